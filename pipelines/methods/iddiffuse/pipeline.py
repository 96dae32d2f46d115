"""Sample faces with IDDiffuse's denoiser, and store it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError, WeightsError
from ...core.files import write_whole
from ...core.progress import Progress, silent
from ...core.stored import read_safetensors
from ..sampling import default_scheduler, denoise, initial_noise
from .network import Denoiser, NetworkConfig

FORMAT = "faceveil.iddiffuse/1"
REMEDY = "train one with: faceveil train iddiffuse"
STEPS, ETA = 50, 1.0
"""DDIM steps, and the share of new noise in each; DCFace's."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, in evaluation mode, and the name of its identities' space."""

    network: Denoiser
    space: str

    def save(self, path: Path) -> None:
        """Write a safetensors file in half precision.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {
            k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
            for k, v in self.network.state_dict().items()
        }
        facts = {"format": FORMAT, "network": json.dumps(self.network.config.as_dict()), "space": self.space}
        write_whole(path, save(tensors, facts))

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read what ``save`` wrote.

        Raises:
            WeightsError: the file is missing, damaged or of another kind.
        """
        tensors, metadata = read_safetensors(path, "IDDiffuse checkpoint", REMEDY)
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{path.name} is not an IDDiffuse checkpoint of format {FORMAT}; {REMEDY}")
        weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        if not all(bool(torch.isfinite(v).all()) for v in weights.values()):
            raise WeightsError(f"{path.name} contains values that are not finite; {REMEDY}")
        try:
            # ComfyUI runs nodes in inference mode; tensors made there could not be used outside of it.
            with torch.inference_mode(False):
                network = Denoiser(NetworkConfig.of(json.loads(metadata["network"])))
            network.load_state_dict(weights)
            return cls(network.eval().requires_grad_(False), metadata["space"])
        except (KeyError, RuntimeError, TypeError, ValueError, InputError) as error:
            raise WeightsError(
                f"{path.name} is incomplete or of another version ({type(error).__name__}); {REMEDY}"
            ) from None


class IDDiffusePipeline:
    """Samples faces.

    Args:
        network: the denoiser, on its device.
        scheduler: any scheduler of diffusers with the settings ``SCHEDULER``; DDIM when omitted.
        eta: share of new noise in each DDIM step.
    """

    def __init__(self, network: Denoiser, scheduler: Any = None, eta: float = ETA) -> None:
        self.network = network
        self.scheduler = scheduler or default_scheduler()
        self._eta = eta

    @torch.no_grad()
    def sample(
        self,
        identity: Tensor,
        texture: Tensor,
        generators: Sequence[torch.Generator],
        steps: int = STEPS,
        progress: Progress = silent,
    ) -> Tensor:
        """Draw a face for each row of tokens, ``(B, 3, S, S)`` in [0, 1].

        Args:
            identity: tokens ``(B, 50, T)``.
            texture: tokens ``(B, m^2 + 1, T)``.
            generators: one for each row, on the CPU, so that a row does not depend on the others.
            steps: denoising steps.

        Raises:
            InputError: not one generator for each row.
        """
        start = initial_noise(self.scheduler, steps, self.network.config.unet.size, len(identity), generators)
        return ((self.denoise(identity, texture, start, generators, progress) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def denoise(
        self,
        identity: Tensor,
        texture: Tensor,
        start: Tensor,
        generators: Sequence[torch.Generator],
        progress: Progress = silent,
    ) -> Tensor:
        """Denoise ``start`` ``(B, 3, S, S)`` over the scheduler's timesteps; returns ``(B, 3, S, S)``."""
        network = self.network
        device, dtype = network.scale.device, network.dtype
        tokens = [part.to(device, dtype) for part in (identity, texture)]

        def predict(x: Tensor, time: Tensor) -> Tensor:
            noise = network(x.to(device, dtype), time.expand(len(x)).to(device), *tokens)
            return noise.float().cpu()  # type: ignore[no-any-return]  # a module's call is untyped

        return denoise(self.scheduler, start, predict, generators, progress, self._eta)
