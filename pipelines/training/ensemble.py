"""Train IDDiffuse's ensemble identity E_I: ``faceveil train ensemble`` (section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..identity.ensemble import FALSE_MATCH_RATE, EnsembleMapper
from ..recognition.thresholds import MIN_PAIRS, measure_threshold
from .loop import Plan, Trainer, subject_of

MIN_PEOPLE = 12


@dataclass(frozen=True)
class Recipe:
    """How E_I is trained.

    Attributes:
        margin: the paper's alpha, which it does not give; between squared distances of unit vectors, so of 0 to 4.
        people, views: of a batch; each view is compared with every other one.
        epochs: each shows every person once; the paper's number.
    """

    margin: float = 0.2
    people: int = 32
    views: int = 4
    epochs: int = 50
    rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 2 or self.views < 2 or self.epochs < 1:
            raise InputError("a batch needs at least 2 people with 2 views each, and the training at least 1 epoch")


def triplet_loss(mapped: Tensor, people: Tensor, margin: float) -> Tensor:
    """``mean max(|a - p|^2 - |a - n|^2 + margin, 0)`` over the triplets of a batch that still cost something.

    Args:
        mapped: unit vectors ``(B, D)``.
        people: whose they are, ``(B,)``.
    """
    apart = (2 - 2 * mapped @ mapped.T).clamp(min=0)
    same = people[:, None] == people[None]
    positive = same & ~torch.eye(len(people), dtype=torch.bool, device=people.device)
    # One row an anchor: each of its positives against each of its negatives.
    cost = apart[:, :, None] - apart[:, None, :] + margin
    valid = positive[:, :, None] & ~same[:, None, :]
    costly = cost[valid].clamp(min=0)
    return costly.sum() / (costly > 0).sum().clamp(min=1)


def train_ensemble(
    joined: np.ndarray,
    people: np.ndarray,
    spaces: Sequence[str],
    dimensions: Sequence[int],
    recipe: Recipe,
    state: Path | None = None,
    logs: Path | None = None,
    progress: Progress = silent,
) -> EnsembleMapper:
    """Learn E_I.

    Args:
        joined: ``(N, sum D)``, the recognizers' unit vectors side by side.
        people: a label of the person in each row, ``(N,)``.
        state: file that a stopped training continues from, exactly; remove it when the mapper is saved.
        logs: folder for TensorBoard.

    Raises:
        InputError: fewer than 12 people with two photos each, or values that are not finite.
    """
    if joined.shape != (len(people), sum(dimensions)) or not np.isfinite(joined).all():
        raise InputError(
            f"an ensemble of {sum(dimensions)} numbers needs finite vectors of that size, got {joined.shape}"
        )
    photos = [rows for p in np.unique(people) if len(rows := np.flatnonzero(people == p)) > 1]
    if len(photos) < MIN_PEOPLE:
        raise InputError(f"an ensemble needs photos of at least {MIN_PEOPLE} people, and two of each; add some")
    torch.manual_seed(recipe.seed)
    mapper = EnsembleMapper(spaces, dimensions)
    data, batches = torch.from_numpy(joined).float(), math.ceil(len(photos) / recipe.people)

    def loss(step: int) -> Tensor:
        epoch, place = divmod(step, batches)
        # The order of an epoch, then the views of a batch: each from its own seed, so that a training can resume.
        order = np.random.default_rng((recipe.seed, epoch)).permutation(len(photos))
        batch = np.array_split(order, batches)[place]
        rng = np.random.default_rng((recipe.seed, epoch, place))
        rows = [rng.choice(photos[p], recipe.views, replace=len(photos[p]) < recipe.views) for p in batch]
        labels = torch.from_numpy(np.repeat(batch, recipe.views))
        return triplet_loss(mapper(data[np.concatenate(rows)]), labels, recipe.margin)

    optimizer = torch.optim.Adam(mapper.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    subject = subject_of(joined, people.tolist(), spaces, dimensions, recipe)
    plan = Plan(recipe.epochs * batches, "learning the ensemble", state, subject, logs=logs)
    Trainer(mapper, schedule, loss).run(plan, progress)
    with torch.no_grad():
        # One photo of each person, so that all pairs are of different people.
        embedded = mapper.eval()(data[[rows[0] for rows in photos]]).double().numpy()
    smallest_rate = MIN_PAIRS / (len(embedded) * (len(embedded) - 1) / 2)
    mapper.threshold = measure_threshold(embedded, max(FALSE_MATCH_RATE, smallest_rate))
    return mapper
