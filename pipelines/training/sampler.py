"""Train an identity sampler: ``faceveil train lds`` (DiffDeID, Eq. 2 for embeddings, Eq. 3 for coefficients)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..identity.lds import BETAS, TIMES, Denoiser, IdentitySampler, Norm
from .loop import Plan, Trainer, subject_of

MIN_FACES = 200
_STEP_SEEDS = 1_000_003
"""Prime that keeps the random streams of different seeds apart."""


@dataclass(frozen=True)
class Recipe:
    """How a sampler is trained.

    Attributes:
        norm: of the loss: ``l2`` for embeddings, ``l1`` for coefficients.
        ema: decay of the weights' moving average, which is what is kept.
    """

    width: int = 384
    blocks: int = 6
    steps: int = 6000
    batch: int = 256
    rate: float = 1e-3
    norm: Norm = "l2"
    ema: float = 0.999
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"at least 1 training step is needed, got {self.steps}")


def train_sampler(
    vectors: np.ndarray,
    space: str,
    unit: int,
    recipe: Recipe,
    state: Path | None = None,
    logs: Path | None = None,
    stop_after: int | None = None,
    progress: Progress = silent,
) -> IdentitySampler:
    """Learn the distribution of ``vectors`` ``(N, D)``.

    Args:
        unit: how many of the leading numbers are a unit vector.
        state: file that a stopped training continues from, exactly; remove it when the sampler is saved.
        logs: folder for TensorBoard.
        stop_after: stop after this many steps and return the sampler as it is then.

    Raises:
        InputError: fewer than 200 vectors, values that are not finite, or a damaged state.
    """
    if len(vectors) < MIN_FACES or not np.isfinite(vectors).all():
        raise InputError(
            f"an identity sampler needs at least {MIN_FACES} faces with finite vectors, got {len(vectors)}"
        )
    mean, std = vectors.mean(0), vectors.std(0) + 1e-9
    data = torch.from_numpy((vectors - mean) / std).float()
    torch.manual_seed(recipe.seed)
    network = Denoiser(vectors.shape[1], recipe.width, recipe.blocks)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    noise: Any = DDPMScheduler(
        num_train_timesteps=TIMES, beta_start=BETAS[0], beta_end=BETAS[1], beta_schedule="linear"
    )

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(recipe.seed * _STEP_SEEDS + step)
        clean = data[torch.randint(len(data), (recipe.batch,), generator=generator)]
        time = torch.randint(0, TIMES, (recipe.batch,), generator=generator)
        epsilon = torch.randn(clean.shape, generator=generator)
        error = network(noise.add_noise(clean, epsilon, time), time) - epsilon
        return error.square().mean() if recipe.norm == "l2" else error.abs().mean()

    subject = subject_of(vectors, space, unit, recipe)
    plan = Plan(recipe.steps, f"learning {space}", state, subject, logs=logs, stop_after=stop_after)
    Trainer(network, schedule, loss, recipe.ema).run(plan, progress)
    return IdentitySampler(network, mean, std, space, unit)
