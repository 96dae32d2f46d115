"""Sample images with DiffDeID's denoiser, and store it: diffusion in pixel space with any scheduler of diffusers."""

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
from ...geometry.coefficients import Layout, Standardizer
from ..sampling import default_scheduler, denoise, initial_noise
from .network import Conditions, Denoiser, NetworkConfig

FORMAT = "faceveil.diffdeid/1"
REMEDY = "train one with: faceveil train diffdeid"
STEPS = 50


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what its conditions mean.

    Attributes:
        network: in evaluation mode.
        standardizer: of the coefficients.
        model: name of the morphable model that they belong to.
        space: name of the recognizer's space of z_id; empty for the network of videos.
    """

    network: Denoiser
    standardizer: Standardizer
    model: str
    space: str

    def save(self, path: Path) -> None:
        """Write a safetensors file; the network in half precision.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors.torch import save

        tensors = {f"network.{k}": v.half().contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {
            "coefficients.mean": self.standardizer.mean.float(),
            "coefficients.std": self.standardizer.std.float(),
        }
        metadata = {
            "format": FORMAT,
            "network": json.dumps(self.network.config.as_dict()),
            "layout": json.dumps(self.standardizer.layout),
            "model": self.model,
            "space": self.space,
        }
        write_whole(path, save({k: v.cpu() for k, v in tensors.items()}, metadata))

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read what ``save`` wrote.

        Raises:
            WeightsError: the file is missing, damaged or of another kind.
        """
        tensors, metadata = read_safetensors(path, "DiffDeID checkpoint", REMEDY)
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{path.name} is not a DiffDeID checkpoint of format {FORMAT}; {REMEDY}")
        weights = {k.removeprefix("network."): v.float() for k, v in tensors.items() if k.startswith("network.")}
        try:
            # ComfyUI runs nodes in inference mode; tensors made there could not be used outside of it.
            with torch.inference_mode(False):
                network = Denoiser(NetworkConfig.of(json.loads(metadata["network"])))
            network.load_state_dict(weights)
            layout: Layout = tuple((name, size) for name, size in json.loads(metadata["layout"]))
            standardizer = Standardizer(layout, tensors["coefficients.mean"], tensors["coefficients.std"])
            checkpoint = cls(network.eval().requires_grad_(False), standardizer, metadata["model"], metadata["space"])
        except (KeyError, RuntimeError, TypeError, ValueError, InputError) as error:
            raise WeightsError(
                f"{path.name} is incomplete or of another version ({type(error).__name__}); {REMEDY}"
            ) from None
        if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
            raise WeightsError(f"{path.name} contains values that are not finite; {REMEDY}")
        return checkpoint


class DiffDeIDPipeline:
    """Samples faces.

    Args:
        network: the denoiser, on its device.
        scheduler: any scheduler of diffusers with the settings ``SCHEDULER``; deterministic DDIM when omitted.
    """

    def __init__(self, network: Denoiser, scheduler: Any = None) -> None:
        self.network = network
        self.scheduler = scheduler or default_scheduler()

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        generators: Sequence[torch.Generator],
        steps: int = STEPS,
        guidance: float = 1.0,
        progress: Progress = silent,
    ) -> Tensor:
        """Draw an image for each row of the conditions, ``(B, 3, S, S)`` in [0, 1].

        Args:
            generators: one for each row, on the CPU, so that a row does not depend on the others.
            steps: denoising steps.
            guidance: scale of classifier-free guidance by the identity; 1 is none.

        Raises:
            InputError: not one generator for each row.
        """
        size = self.network.config.size
        start = initial_noise(self.scheduler, steps, size, len(conditions), generators)
        return ((self.denoise(conditions, start, guidance, generators, progress) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def denoise(
        self,
        conditions: Conditions,
        start: Tensor,
        guidance: float,
        generators: Sequence[torch.Generator],
        progress: Progress = silent,
    ) -> Tensor:
        """Denoise ``start`` ``(B, 3, S, S)`` over the scheduler's timesteps; returns ``(B, 3, S, S)`` in about [-1, 1].

        The texture encoder runs once, not at every step.
        """
        device, dtype = self.network.decoder.out.weight.device, self.network.dtype
        guided = guidance != 1 and conditions.identity.shape[1] > 0
        rows = Conditions.cat([conditions.without_identity(), conditions]) if guided else conditions
        rows = rows.to(device, dtype)
        textures = self.network.textures(rows.masked, self.network.condition(rows.identity, rows.coefficients))

        def predict(x: Tensor, time: Tensor) -> Tensor:
            inputs = (torch.cat([x, x]) if guided else x).to(device, dtype)
            noise = self.network(inputs, time.expand(len(inputs)).to(device), *rows.parts(), textures=textures)
            noise = noise.float().cpu()
            if not guided:
                return noise  # type: ignore[no-any-return]  # a module's call is untyped
            without, with_identity = noise.chunk(2)
            return without + guidance * (with_identity - without)  # type: ignore[no-any-return]

        return denoise(self.scheduler, start, predict, generators, progress)
