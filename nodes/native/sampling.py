"""Core's custom sampling, as a function."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sample
from torch import Tensor

from ...pipelines.core.progress import Progress


def sample(guider: Any, sampler: Any, sigmas: Tensor, latent: dict[str, Any], seed: int, progress: Progress) -> Tensor:
    """Sample as SamplerCustomAdvanced does.

    Args:
        latent: the start ``samples``, and ``noise_mask`` where only a part of it changes.
        progress: called in each step; it may raise to interrupt.

    Returns:
        Latents, unscaled.
    """
    start = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"])
    noise = comfy.sample.prepare_noise(start, seed, latent.get("batch_index"))
    total = max(1, len(sigmas) - 1)

    def step(done: int, x0: Tensor, x: Tensor, steps: int) -> None:
        progress(done + 1, total, "sampling")

    found = guider.sample(
        noise,
        start,
        sampler,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=step,
        disable_pbar=True,
        seed=seed,
    )
    return found.to(comfy.model_management.intermediate_device())  # type: ignore[no-any-return]
