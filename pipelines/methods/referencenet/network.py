"""The ReferenceNets of the public checkpoint and the two equations of anonymization.

The checkpoint has three UNets with the architecture of Stable Diffusion 2.1: the denoiser and two ReferenceNets, which
only record states.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from .attention import LastStateRecorded, States, write_states

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
}
"""Noise schedule of Stable Diffusion 2.1 as a diffusers scheduler config."""
LATENT_SCALE = 0.18215
"""Scaling factor of the VAE latents of Stable Diffusion 1 and 2."""
K = TypeVar("K")
REFERENCE_TIME = 0
"""Time step of both ReferenceNets; their input latents have no noise."""


class ReferenceNet:
    """A UNet that records the inputs of its self-attentions.

    Args:
        unet: a ``diffusers.UNet2DConditionModel``; its attention processors are replaced.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self._recorded: States = {}
        self._unconditional: dict[tuple[Any, ...], States] = {}
        write_states(unet, self._recorded)

    def record(self, latents: Tensor, embedding: Tensor) -> States:
        """Compute the states of images.

        Args:
            latents: ``(B, 4, h, w)``, scaled, without noise.
            embedding: CLIP embeddings, ``(B, 1, D)``.

        Returns:
            States ``(B, N, C)``.
        """
        self._recorded.clear()
        with suppress(LastStateRecorded):
            self.unet(latents, REFERENCE_TIME, embedding)
        states = dict(self._recorded)
        self._recorded.clear()
        return states

    def unconditional(self, latents: Tensor, embedding: Tensor) -> States:
        """Compute the unconditional states: those of zero latents and a zero embedding.

        They are computed once per size, dtype and device, and cached.

        Args:
            latents, embedding: latents and embedding of any image; only shape, dtype and device are used.

        Returns:
            States ``(1, N, C)``.
        """
        key = (*latents.shape[1:], embedding.shape[-1], latents.dtype, latents.device)
        if key not in self._unconditional:
            self._unconditional[key] = self.record(torch.zeros_like(latents[:1]), torch.zeros_like(embedding[:1]))
        return self._unconditional[key]

    def clear_cache(self) -> None:
        """Drop the cached unconditional states. Call it after a change of the weights."""
        self._unconditional.clear()


def weaken(embedding: Tensor, degree: float) -> Tensor:
    """Apply the anonymization degree d to the source embedding (paper, Eq. 1): ``Z' = (1 - d) Z``."""
    return (1 - degree) * embedding


def mix(conditional: dict[K, Tensor], unconditional: dict[K, Tensor], degree: float) -> dict[K, Tensor]:
    """Apply the anonymization degree d to the source states (paper, Eq. 2): ``S' = (1 - d) S + d S_unconditional``."""
    return {key: (1 - degree) * state + degree * unconditional[key] for key, state in conditional.items()}
