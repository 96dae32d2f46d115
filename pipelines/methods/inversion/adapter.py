"""IP-Adapter FaceID: the published file, its identity tokens, and its weights for each attention layer.

The file numbers all attention layers of the UNet: down blocks, up blocks, then the middle block; in each transformer
block the self-attention (even number), then the cross-attention (odd number). A cross-attention has a key and a value
matrix for the identity tokens. Both kinds have a LoRA, which is always active and independent of the adapter's scale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError, WeightsError
from ...core.stored import read_pickle, read_safetensors

PARTS = ("to_q", "to_k", "to_v", "to_out")
"""The matrices of an attention layer that have a LoRA."""
_PROJECTION = ("proj.0.weight", "proj.0.bias", "proj.2.weight", "proj.2.bias", "norm.weight", "norm.bias")
_LAYER = re.compile(r"(\d+)\.(.+)\.weight")
_WHAT, _REMEDY = (
    "FaceID adapter",
    "use ip-adapter-faceid_sd15.bin or ip-adapter-faceid_sdxl.bin of h94/IP-Adapter-FaceID",
)


@dataclass(frozen=True)
class LowRank:
    """A low-rank change of a matrix: W + up @ down. The file has no alpha, so its scale is 1.

    Attributes:
        up: ``(outputs, R)``.
        down: ``(R, inputs)``.
    """

    up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Site:
    """The adapter's weights for the self-attention and the cross-attention of one transformer block.

    Attributes:
        key, value: matrices ``(channels, C)`` for the identity tokens, in the cross-attention.
        self_lora, cross_lora: by the names of ``PARTS``; empty where the file has none.
    """

    key: Tensor
    value: Tensor
    self_lora: dict[str, LowRank]
    cross_lora: dict[str, LowRank]

    @property
    def channels(self) -> int:
        return self.key.shape[0]

    def fits(self, context_size: int) -> bool:
        """Whether both layers have LoRAs of all matrices, and of the right sizes."""

        def whole(loras: dict[str, LowRank], inner: int) -> bool:
            shapes = {part: (self.channels, inner if part in ("to_k", "to_v") else self.channels) for part in PARTS}
            return loras.keys() == shapes.keys() and all(
                (loras[part].up.shape[0], loras[part].down.shape[1]) == shape
                and loras[part].up.shape[1] == loras[part].down.shape[0]
                for part, shape in shapes.items()
            )

        return whole(self.self_lora, self.channels) and whole(self.cross_lora, context_size)


@dataclass(frozen=True)
class FaceIdAdapter:
    """An opened file.

    Attributes:
        projection: the network that makes the tokens, by the file's names.
        sites: one for each transformer block of the UNet, in the file's order.
    """

    projection: dict[str, Tensor]
    sites: tuple[Site, ...]

    @property
    def embedding_size(self) -> int:
        """D: length of a face embedding."""
        return self.projection["proj.0.weight"].shape[1]

    @property
    def context_size(self) -> int:
        """C: length of a token; 768 for Stable Diffusion 1.5, 2048 for SDXL."""
        return self.projection["norm.weight"].shape[0]

    @property
    def count(self) -> int:
        """T: tokens of one face."""
        return self.projection["proj.2.weight"].shape[0] // self.context_size

    def tokens(self, embeddings: Tensor) -> Tensor:
        """LayerNorm(W_2 gelu(W_0 e + b_0) + b_2): the identity tokens, in float32.

        Zeros give tokens as well, which are not zero: they stand for nobody in particular.

        Args:
            embeddings: ``(B, D)``, of ``w600k_r50.onnx``.

        Returns:
            ``(B, T, C)``.

        Raises:
            InputError: embeddings of another length.
        """
        if embeddings.dim() != 2 or embeddings.shape[1] != self.embedding_size:
            raise InputError(
                f"the adapter needs embeddings of {self.embedding_size} numbers, got {tuple(embeddings.shape)}; embed"
                " the face with the recognizer arcface and w600k_r50.onnx"
            )
        p = {name: value.float() for name, value in self.projection.items()}
        hidden = functional.gelu(functional.linear(embeddings.float().cpu(), p["proj.0.weight"], p["proj.0.bias"]))
        hidden = functional.linear(hidden, p["proj.2.weight"], p["proj.2.bias"])
        tokens = hidden.reshape(len(embeddings), -1, self.context_size)
        return functional.layer_norm(tokens, (self.context_size,), p["norm.weight"], p["norm.bias"])

    def check(self, channels: list[int], context_size: int) -> None:
        """Compare with the transformer blocks of a UNet.

        Args:
            channels: of each block's cross-attention, in the file's order.
            context_size: length of the UNet's text tokens.

        Raises:
            WeightsError: the adapter was made for another family of checkpoints.
        """
        own = [site.channels for site in self.sites]
        if self.context_size != context_size or own != channels:
            families = {768: "Stable Diffusion 1.5", 2048: "SDXL"}
            made = families.get(self.context_size, f"checkpoints with {self.context_size} numbers in a text token")
            given = families.get(context_size, f"one with {context_size}")
            raise WeightsError(
                f"the FaceID adapter was made for {made} ({len(own)} transformer blocks), but the checkpoint is {given}"
                f" ({len(channels)} blocks); {_REMEDY}, whichever fits the checkpoint"
            )


def open_adapter(path: Path) -> FaceIdAdapter:
    """Open a FaceID adapter, as the published ``.bin`` or as safetensors.

    Raises:
        WeightsError: the file is missing, damaged, or another kind of adapter.
    """
    image_proj, layers = _halves(path)
    kept = [name for name in image_proj if name in _PROJECTION]
    if len(kept) != len(_PROJECTION) or len(image_proj) != len(kept):
        raise WeightsError(f"{path.name} is not a plain FaceID adapter (Plus and Portrait do not fit); {_REMEDY}")
    if not all(bool(torch.isfinite(value).all()) for value in (*image_proj.values(), *layers.values())):
        raise WeightsError(f"{_WHAT} {path.name} contains values that are not finite; get a fresh copy")
    if not any("_lora." in name for name in layers):
        # The files of FaceID Portrait have the same projection, for several faces, and no LoRA.
        raise WeightsError(f"{path.name} is not a plain FaceID adapter (it has no LoRA, as Portrait); {_REMEDY}")
    numbered: dict[int, dict[str, Tensor]] = {}
    for name, value in layers.items():
        match = _LAYER.fullmatch(name)
        if match is None:
            raise WeightsError(f"{_WHAT} {path.name} contains the unknown tensor {name}; {_REMEDY}")
        numbered.setdefault(int(match[1]), {})[match[2]] = value
    try:
        sites = tuple(
            Site(odd["to_k_ip"], odd["to_v_ip"], _loras(numbered.get(number - 1, {})), _loras(odd))
            for number, odd in sorted(numbered.items())
            if number % 2
        )
        adapter = FaceIdAdapter(image_proj, sites)
        consistent = max(numbered) == 2 * len(sites) - 1 and adapter.count * adapter.context_size == len(
            image_proj["proj.2.bias"]
        )
        consistent &= all(site.key.shape == site.value.shape == (site.channels, adapter.context_size) for site in sites)
        consistent &= all(site.fits(adapter.context_size) for site in sites)
        adapter.tokens(torch.zeros(1, adapter.embedding_size))
    except (KeyError, ValueError, IndexError, RuntimeError, ZeroDivisionError):
        consistent = False
    if not consistent:
        raise WeightsError(f"{_WHAT} {path.name} is incomplete; get a fresh copy")
    return adapter


def _halves(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the two parts of a file, without the parts' names."""
    halves: list[Any]
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path, _WHAT, _REMEDY)[0]
        halves = [
            {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
            for part in ("image_proj.", "ip_adapter.")
        ]
    else:
        stored = read_pickle(path, _WHAT, _REMEDY)
        halves = [stored.get(part) for part in ("image_proj", "ip_adapter")]
    good = all(
        isinstance(half, dict) and half and all(isinstance(value, Tensor) for value in half.values()) for half in halves
    )
    if not good:
        raise WeightsError(f"{path.name} is not an IP-Adapter; {_REMEDY}")
    return halves[0], halves[1]


def _loras(layer: dict[str, Tensor]) -> dict[str, LowRank]:
    """Raises KeyError where a LoRA has only one half."""
    names = [part for part in PARTS if f"{part}_lora.up" in layer or f"{part}_lora.down" in layer]
    return {part: LowRank(layer[f"{part}_lora.up"], layer[f"{part}_lora.down"]) for part in names}
