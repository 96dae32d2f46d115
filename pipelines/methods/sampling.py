"""Diffusion in pixel space with any scheduler of diffusers, for the methods whose networks predict the noise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress

SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
"""Settings of the schedulers; those of DDPM."""


def default_scheduler() -> Any:
    """DDIM from the last time step on; Z_0 is clipped, as in training."""
    return DDIMScheduler(**SCHEDULER, clip_sample=True, timestep_spacing="trailing")


def initial_noise(scheduler: Any, steps: int, size: int, rows: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Set the timesteps, and draw the start ``(rows, 3, size, size)`` from one generator for each row.

    Raises:
        InputError: not one generator for each row.
    """
    if len(generators) != rows:
        raise InputError(f"{rows} faces need as many generators, got {len(generators)}")
    scheduler.set_timesteps(steps)
    noise = torch.cat([torch.randn(1, 3, size, size, generator=g) for g in generators])
    return noise * scheduler.init_noise_sigma  # type: ignore[no-any-return]


def denoise(
    scheduler: Any,
    start: Tensor,
    predict: Callable[[Tensor, Tensor], Tensor],
    generators: Sequence[torch.Generator],
    progress: Progress,
    eta: float = 0.0,
) -> Tensor:
    """Denoise ``start`` ``(B, 3, S, S)`` over the scheduler's timesteps; returns ``(B, 3, S, S)`` in about [-1, 1].

    Args:
        predict: the noise in ``(B, 3, S, S)`` at a time step, on the CPU.
        eta: share of new noise in each step, for schedulers that have one.
    """
    accepted = inspect.signature(scheduler.step).parameters
    given = {"eta": eta, "generator": list(generators)}
    options = {name: value for name, value in given.items() if name in accepted}
    x, timesteps = start, scheduler.timesteps
    for done, time in enumerate(timesteps):
        progress(done, len(timesteps), "denoising")
        noise = predict(scheduler.scale_model_input(x, time), time)
        x = scheduler.step(noise, time, x, **options).prev_sample
    progress(len(timesteps), len(timesteps), "denoising")
    return x
