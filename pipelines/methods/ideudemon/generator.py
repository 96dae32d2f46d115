"""What ``faceveil train restorer`` can train: our own small network, or GFPGAN."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import WeightsError
from ...core.files import write_whole
from ...imaging.upscale import RESTORER_SIDE
from .restorer import RestorerConfig, RestorerNetwork, is_own, load_restorer, save_restorer

_GFPGAN = "GFPGAN"


class Generator(nn.Module):
    """A restorer that is trained: squares ``(B, 3, S, S)`` in [0, 1] to such squares.

    Attributes:
        kind: what the network is; a training goes on only with the same.
        size: S.
        origin: digest of the file that it started from, empty for a new one; likewise.
    """

    def __init__(self, network: nn.Module, kind: str, size: int, origin: str = "") -> None:
        super().__init__()
        self.network, self.kind, self.size, self.origin = network.requires_grad_(True), kind, size, origin
        if kind == _GFPGAN:
            # The heads for smaller images are not used.
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(not name.startswith("toRGB."))

    def forward(self, hybrid: Tensor) -> Tensor:
        if self.kind != _GFPGAN:
            return self.network(hybrid)  # type: ignore[no-any-return]
        drawn: Tensor = self.network(hybrid * 2 - 1, return_rgb=False, randomize_noise=False)[0]
        return (drawn + 1) / 2

    def save(self, path: Path) -> None:
        """Write the network as safetensors, GFPGAN with the names that spandrel knows.

        Raises:
            OutputError: the file cannot be written.
        """
        if isinstance(self.network, RestorerNetwork):
            save_restorer(path, self.network)
            return
        from safetensors.torch import save

        # A copy of each: tensors that share memory cannot be stored.
        tensors = {k: v.detach().clone().contiguous().cpu() for k, v in self.network.state_dict().items()}
        write_whole(path, save(tensors))


def new_generator(start: Path | None, config: RestorerConfig) -> Generator:
    """The network to train: a new one, one of this training, or GFPGAN.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    if start is None:
        return Generator(RestorerNetwork(config), f"own {config}", config.size)
    if is_own(start):
        network = load_restorer(start)
        return Generator(network, f"own {network.config}", network.config.size, _digest(start))
    return Generator(_open_gfpgan(start), _GFPGAN, RESTORER_SIDE, _digest(start))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_gfpgan(path: Path) -> nn.Module:
    try:
        from spandrel import ModelLoader
    except ImportError:
        raise WeightsError("GFPGAN needs spandrel; install it with: pip install spandrel") from None
    if not path.is_file():
        raise WeightsError(f"restorer {path.name} does not exist; check its name and folder")
    try:
        model: Any = ModelLoader(torch.device("cpu")).load_from_file(path)
    except Exception as error:  # spandrel's errors and those of damaged files have no common class
        raise WeightsError(f"{path.name} is no network that spandrel knows ({type(error).__name__})") from None
    if model.architecture.id != _GFPGAN:
        raise WeightsError(f"{path.name} is {model.architecture.id}; only GFPGAN can be trained further")
    network: nn.Module = model.model
    return network
