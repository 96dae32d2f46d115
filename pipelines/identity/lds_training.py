"""Train an identity sampler: ``faceveil train lds --images DIR`` (DiffDeID, Eq. 2 for recognisers, Eq. 3 for
coefficients)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..images import write_whole
from ..progress import Progress, silent
from .lds import TIMES, Denoiser, IdentitySampler, Norm, alphas, tensors_of

FEWEST = 200


@dataclass(frozen=True)
class Recipe:
    """How a sampler is trained.

    Attributes:
        norm: of the loss: ``l2`` for identity vectors, ``l1`` for coefficients.
        smooth: decay of the weights' moving average, which is what is kept.
    """

    width: int = 384
    blocks: int = 6
    steps: int = 6000
    batch: int = 256
    rate: float = 1e-3
    norm: Norm = "l2"
    smooth: float = 0.999
    decay: float = 1e-2
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
    stop_after: int | None = None,
    progress: Progress = silent,
) -> IdentitySampler:
    """Learn the distribution of ``vectors`` ``(N, D)``.

    Args:
        unit: how many of the leading numbers are a unit vector.
        state: file that a stopped training goes on from, exactly; it is written when the training stops early and
            removed at the end.
        stop_after: stop after this many steps and return what is there.

    Raises:
        InputError: fewer than 200 vectors, or values that are not finite.
    """
    if len(vectors) < FEWEST or not np.isfinite(vectors).all():
        raise InputError(f"an identity sampler needs at least {FEWEST} faces with finite vectors, got {len(vectors)}")
    mean, std = vectors.mean(0), vectors.std(0) + 1e-9
    data = torch.from_numpy((vectors - mean) / std).float()
    torch.manual_seed(recipe.seed)
    net = Denoiser(vectors.shape[1], recipe.width, recipe.blocks)
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    smooth = {k: v.clone() for k, v in net.state_dict().items()}
    first = _resume(state, net, optimiser, smooth)
    kept = alphas()
    last = recipe.steps if stop_after is None else min(first + stop_after, recipe.steps)
    for step in range(first, last):
        if step % 50 == 0:
            progress(step, recipe.steps, f"learning {space}")
        # Each step draws from its own seed, so that a resumed run sees what an unbroken one would have.
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        clean = data[torch.randint(len(data), (recipe.batch,), generator=generator)]
        time = torch.randint(0, TIMES, (recipe.batch,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        a = kept[time][:, None]
        apart = net(a.sqrt() * clean + (1 - a).sqrt() * noise, time) - noise
        loss = apart.square().mean() if recipe.norm == "l2" else apart.abs().mean()
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        # The average forgets the random start quickly.
        decay = min(recipe.smooth, (1 + step) / (10 + step))
        for key, value in net.state_dict().items():
            smooth[key].lerp_(value, 1 - decay)
    progress(last, recipe.steps, f"learning {space}")
    if state is not None:
        if last < recipe.steps:
            _save(state, last, net, optimiser, smooth)
        else:
            state.unlink(missing_ok=True)
    net.load_state_dict(smooth)
    return IdentitySampler(net, mean, std, space, unit)


def save_sampler(path: Path, sampler: IdentitySampler) -> None:
    """Write a sampler as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors, metadata = tensors_of(sampler)
    write_whole(path, save(tensors, metadata))


def _save(
    path: Path, step: int, net: Denoiser, optimiser: torch.optim.Optimizer, smooth: dict[str, torch.Tensor]
) -> None:
    part = path.with_name(path.name + ".part")
    torch.save({"step": step, "net": net.state_dict(), "optimiser": optimiser.state_dict(), "smooth": smooth}, part)
    part.replace(path)


def _resume(path: Path | None, net: Denoiser, optimiser: torch.optim.Optimizer, smooth: dict[str, torch.Tensor]) -> int:
    if path is None or not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    smooth.update(state["smooth"])
    return int(state["step"])
