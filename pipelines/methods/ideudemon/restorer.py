"""A small face restorer of our own: a U-Net from a hybrid image to a photo-real face.

The image is folded to a quarter of its pixels with twelve channels, so that 256 px cost as much as 128 px.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....weights.builtin import FOLDER
from ...core.devices import best_device
from ...core.errors import InputError, WeightsError
from ...core.files import write_whole
from ...core.stored import read_safetensors
from ...imaging.resample import resize
from ...imaging.upscale import Restorer, open_upscaler

FORMAT = "faceveil.restorer/2"
BUILT_IN = FOLDER / "restorer.safetensors"
"""The restorer that comes with the package."""
REMEDY = "train one with: faceveil train restorer"
MAX_SIZE = 1024
_SCALE, _LARGEST, _SMALLEST_SCALE = ".scale", 127, 1e-6
"""Suffix of the scales of 8-bit weights, their largest value, and the smallest scale."""
_FOLD = 2
_GROUPS = 8


@dataclass(frozen=True)
class RestorerConfig:
    """Sizes of the network.

    Attributes:
        size: side of the image in pixels, a multiple of 2^levels.
        widths: channels of each level, multiples of 8; each has half the side of the one before, the first half the
            image's.
        blocks: residual blocks of each level, downwards and upwards.
    """

    size: int = 256
    widths: tuple[int, ...] = (40, 64, 128, 192)
    blocks: int = 1

    def __post_init__(self) -> None:
        if not self.widths or any(width < _GROUPS or width % _GROUPS for width in self.widths):
            raise InputError(f"the channels of a restorer must be multiples of {_GROUPS}, got {self.widths}")
        if not all(type(n) is int for n in (self.size, self.blocks, *self.widths)) or self.size > MAX_SIZE:
            raise InputError(f"the sizes of a restorer must be whole numbers, and its side at most {MAX_SIZE} px")
        if self.size < 16 or self.size % (_FOLD << (len(self.widths) - 1)):
            raise InputError(f"a restorer with {len(self.widths)} levels cannot draw {self.size} px")

    @classmethod
    def of(cls, values: dict[str, Any]) -> RestorerConfig:
        """From what JSON gives."""
        return cls(values["size"], tuple(values["widths"]), values["blocks"])


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


class RestorerNetwork(nn.Module):
    """Restores squares ``(N, 3, S, S)`` in [0, 1]."""

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        widths, pixels = config.widths, 3 * _FOLD**2
        self.first = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Sequential(*(Block(w) for _ in range(config.blocks))) for w in widths)
        pairs = list(pairwise(widths))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(nn.Sequential(*(Block(a) for _ in range(config.blocks))) for a, _ in pairs)
        self.last = nn.Conv2d(widths[0], pixels, 3, padding=1)

    def forward(self, hybrid: Tensor) -> Tensor:
        x = self.first(functional.pixel_unshuffle(hybrid * 2 - 1, _FOLD))
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.up))):
            large = functional.interpolate(self.grow[level](x), scale_factor=2.0, mode="nearest")
            x = self.up[level](large + skips[level])
        return hybrid + functional.pixel_shuffle(self.last(x), _FOLD) / 2


def save_restorer(path: Path, network: RestorerNetwork) -> None:
    """Write a network: convolutions with 8 bits and a scale for each output channel, the rest in half precision.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        weight = value.detach().float().cpu()
        if weight.dim() == 4:
            scale = (weight.abs().amax((1, 2, 3)) / _LARGEST).clamp(min=_SMALLEST_SCALE).half()
            tensors[name + _SCALE] = scale
            tensors[name] = (weight / scale.float().view(-1, 1, 1, 1)).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        else:
            tensors[name] = weight.half().contiguous()
    write_whole(path, save(tensors, {"format": FORMAT, "network": json.dumps(asdict(network.config))}))


def load_restorer(path: Path) -> RestorerNetwork:
    """Open what ``save_restorer`` wrote.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    tensors, metadata = read_safetensors(path, "restorer", REMEDY)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name} is not a restorer of format {FORMAT}; {REMEDY}")
    if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise WeightsError(f"{path.name} contains values that are not finite; {REMEDY}")
    try:
        # ComfyUI runs nodes in inference mode; a network made there could not be used outside of it.
        with torch.inference_mode(False):
            network = RestorerNetwork(RestorerConfig.of(json.loads(metadata["network"])))
            network.load_state_dict(_unpacked(tensors))
        return network.eval().requires_grad_(False)
    except (KeyError, RuntimeError, TypeError, ValueError, InputError) as error:
        raise WeightsError(
            f"{path.name} is incomplete or of another version ({type(error).__name__}); {REMEDY}"
        ) from None


def _unpacked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of what ``save_restorer`` wrote."""
    found = {}
    for name, value in tensors.items():
        if name + _SCALE in tensors:
            found[name] = value.float() * tensors[name + _SCALE].float().view(-1, 1, 1, 1)
        elif not name.endswith(_SCALE):
            found[name] = value.float()
    return found


def open_restorer(path: Path = BUILT_IN) -> Restorer:
    """Open a restorer: the built-in one, one of ``faceveil train restorer``, or a network that spandrel knows.

    Raises:
        WeightsError: the file is missing or damaged, or nobody knows it.
    """
    if path != BUILT_IN and not is_own(path):
        return open_upscaler(path)
    return applied(load_restorer(path).to(best_device()))


def applied(network: RestorerNetwork) -> Restorer:
    """The function of a network, for squares of any size."""
    size, device = network.config.size, network.last.weight.device

    @torch.no_grad()
    def restore(square: Tensor) -> Tensor:
        given = resize(square, size, size).clamp(0, 1)
        drawn: Tensor = network(given.to(device)).float().cpu()
        return drawn.clamp(0, 1)

    return restore


def is_own(path: Path) -> bool:
    """Whether a file was written by ``save_restorer``."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(str(path), "pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False
