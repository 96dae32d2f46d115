"""The networks of the public checkpoint: three UNets in Stable Diffusion 2.1's layout, of which two only record
states."""

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
"""Stable Diffusion 2.1's noise schedule, under diffusers' names."""
LATENT_SCALE = 0.18215
K = TypeVar("K")
REFERENCE_TIME = 0
"""Both ReferenceNets see clean latents at this time step."""


class ReferenceNet:
    """A UNet that records what its self-attentions see.

    Args:
        unet: a ``diffusers.UNet2DConditionModel``; its attention processors are replaced.
    """

    def __init__(self, unet: Any) -> None:
        self.unet = unet
        self._recorded: States = {}
        self._unconditional: dict[tuple[Any, ...], States] = {}
        write_states(unet, self._recorded)

    def record(self, latents: Tensor, embedding: Tensor) -> States:
        """States of clean pictures.

        Args:
            latents: ``(B, 4, h, w)``, scaled.
            embedding: ``(B, 1, D)``.
        """
        self._recorded.clear()
        with suppress(LastStateRecorded):
            self.unet(latents, REFERENCE_TIME, embedding)
        states = dict(self._recorded)
        self._recorded.clear()
        return states

    def unconditional(self, latents: Tensor, embedding: Tensor) -> States:
        """States of no picture: zero latents and a zero embedding; one row, computed once a size, dtype and device.

        Args:
            latents, embedding: of any picture; only their size matters.
        """
        key = (*latents.shape[1:], embedding.shape[-1], latents.dtype, latents.device)
        if key not in self._unconditional:
            self._unconditional[key] = self.record(torch.zeros_like(latents[:1]), torch.zeros_like(embedding[:1]))
        return self._unconditional[key]

    def forget(self) -> None:
        """Drop what was computed with these weights; call it after changing them."""
        self._unconditional.clear()


def weaken(embedding: Tensor, degree: float) -> Tensor:
    """The source embedding at an anonymization degree (paper, Eq. 1): ``Z' = (1 - d) Z``."""
    return (1 - degree) * embedding


def mix(conditional: dict[K, Tensor], unconditional: dict[K, Tensor], degree: float) -> dict[K, Tensor]:
    """The source states at an anonymization degree (paper, Eq. 2): ``S' = (1 - d) S + d S_unconditional``."""
    return {key: (1 - degree) * state + degree * unconditional[key] for key, state in conditional.items()}
