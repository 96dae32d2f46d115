"""Reverse Personalization: inversion and generation with the second-order solver SDE-DPM-Solver++.

All N time steps lie below the start, which ``skip`` lowers. The guidance scale g is negative, and acts in the
inversion as well: u + g (c - u), with u from zeros instead of text and c from the text "". In the generation c has the
person's tokens, and u the attribute prompt where there is one: with g < 0 the picture moves towards u.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from .denoiser import TRAINED_STEPS, Denoiser, Row, noised

STEPS, SKIP, GUIDANCE = 100, 0.7, -10.0
"""The authors' settings."""
_FEW_STEPS = 15
"""With fewer steps, the generation's last one is first order, as in the authors' code."""


@dataclass(frozen=True)
class Inversion:
    """An inverted batch. Both predictions of each step are stored, so any guidance can be tried on it.

    Attributes:
        timesteps: of the steps, descending.
        noisy: x_0, then the noised latents from the lowest time step to the highest, ``(N + 1, B, 4, h, w)``.
        nothing, empty: predictions of these rows in each step, ``(N, B, 4, h, w)``.
    """

    timesteps: tuple[int, ...]
    noisy: Tensor
    nothing: Tensor
    empty: Tensor

    def before(self, step: int) -> Tensor:
        """The latent that a step starts from, ``(B, 4, h, w)``."""
        return self.noisy[len(self.timesteps) - step]

    def after(self, step: int) -> Tensor:
        """The latent that a step leads to."""
        return self.noisy[len(self.timesteps) - step - 1]


class Solver:
    """SDE-DPM-Solver++ of second order (midpoint), split into the mean of a step and its noise scale.

    Args:
        alphas_bar: the training schedule ``(1000,)``.
        timesteps: of the steps, descending. The last one leads to time step 0.
    """

    def __init__(self, alphas_bar: Tensor, timesteps: tuple[int, ...]) -> None:
        self._timesteps = timesteps
        self._alpha, self._sigma = alphas_bar**0.5, (1 - alphas_bar) ** 0.5
        self._lambda = torch.log(self._alpha) - torch.log(self._sigma)
        self._last: Tensor | None = None

    def step(self, number: int, x: Tensor, eps: Tensor, first_order: bool = False) -> tuple[Tensor, Tensor]:
        """The mean ``(B, 4, h, w)`` and the noise scale of one step.

        The memory of the previous data prediction stays between passes: the first step of the generation uses the last
        one of the inversion, as if it lay at the lowest time step. The authors' code does so; a reset changes the
        result.
        """
        s = self._timesteps[number]
        t = self._timesteps[number + 1] if number + 1 < len(self._timesteps) else 0
        alpha, sigma, lam = self._alpha, self._sigma, self._lambda
        m0, h = (x - sigma[s] * eps) / alpha[s], lam[t] - lam[s]
        share = alpha[t] * (1 - torch.exp(-2 * h))
        mean = sigma[t] / sigma[s] * torch.exp(-h) * x + share * m0
        if self._last is not None and not first_order:
            # Number 0 takes the last time step here.
            s1 = self._timesteps[number - 1]
            mean = mean + 0.5 * share * (m0 - self._last) * h / (lam[s] - lam[s1])
        self._last = m0
        return mean, sigma[t] * torch.sqrt(1 - torch.exp(-2 * h))


def timesteps_of(steps: int = STEPS, skip: float = SKIP) -> tuple[int, ...]:
    """The time steps, descending: ``steps`` values from 999 - 1000 skip to 1, rounded down; duplicates are dropped.

    Raises:
        InputError: fewer than two time steps, or the share to skip is not in 0 ... 1.
    """
    if not 0 <= skip < 1 or steps < 1:
        raise InputError(f"skip must be at least 0 and below 1, and steps at least 1; got {skip:g} and {steps}")
    values = np.linspace(TRAINED_STEPS - skip * TRAINED_STEPS - 1, 1, steps).astype(np.int64)
    distinct = tuple(dict.fromkeys(int(t) for t in values if t >= 1))
    if len(distinct) < 2:
        raise InputError(f"{steps} steps with skip {skip:g} leave fewer than two time steps; lower skip")
    return distinct


def invert(
    denoise: Denoiser,
    alphas_bar: Tensor,
    x0: Tensor,
    noises: list[Tensor],
    timesteps: tuple[int, ...],
    progress: Progress = silent,
) -> Inversion:
    """Invert clean latents.

    Args:
        alphas_bar: the training schedule ``(1000,)``.
        x0: ``(B, 4, h, w)``, scaled.
        noises: one draw ``(B, 4, h, w)`` for each time step, that of the lowest one first.

    Raises:
        InputError: not one draw for each time step.
    """
    if len(noises) != len(timesteps):
        raise InputError(f"{len(timesteps)} time steps need as many draws of noise, got {len(noises)}")
    schedule, steps = alphas_bar.to(x0), len(timesteps)
    noisy = [x0, *(noised(x0, n, schedule[t]) for t, n in zip(reversed(timesteps), noises, strict=True))]
    predictions = []
    for number, t in enumerate(timesteps):
        progress(number, steps, "inverting")
        predictions.append(denoise(noisy[steps - number], t, ("nothing", "empty")))
    progress(steps, steps, "inverting")
    nothing, empty = (torch.stack([pair[i] for pair in predictions]) for i in (0, 1))
    return Inversion(timesteps, torch.stack(noisy), nothing, empty)


def noise_maps(inversion: Inversion, solver: Solver, guidance: float = GUIDANCE) -> list[Tensor]:
    """z of each step, in the order of the steps, ``(B, 4, h, w)`` each; ``solver`` keeps its memory."""
    maps = []
    for number in range(len(inversion.timesteps)):
        u, c = inversion.nothing[number], inversion.empty[number]
        mean, sigma = solver.step(number, inversion.before(number), u + guidance * (c - u))
        maps.append((inversion.after(number) - mean) / sigma)
    return maps


def generate(
    denoise: Denoiser,
    alphas_bar: Tensor,
    inversion: Inversion,
    guidance: float = GUIDANCE,
    mask: Tensor | None = None,
    attributes: bool = False,
    progress: Progress = silent,
) -> Tensor:
    """Denoise an inversion away from the identity.

    Args:
        guidance: g, 0 or negative.
        mask: ``(B or 1, 1, h, w)``, 1 where the face changes. Where it is 0, the latents are the inversion's at every
            step and end as x_0. (The authors have no mask.)
        attributes: an attribute prompt takes the place of the zeros.

    Returns:
        ``(B, 4, h, w)``.

    Raises:
        InputError: g is positive, which would move towards the person.
    """
    if guidance > 0:
        raise InputError(f"the guidance scale of Reverse Personalization must be 0 or negative, got {guidance:g}")
    x, steps = inversion.before(0), len(inversion.timesteps)
    mask = None if mask is None else mask.to(x)
    solver = Solver(alphas_bar.to(x), inversion.timesteps)
    maps = noise_maps(inversion, solver, guidance)
    without: Row = "attributes" if attributes else "nothing"
    for number, t in enumerate(inversion.timesteps):
        progress(number, steps, "denoising")
        if number or attributes:
            u, c = denoise(x, t, (without, "identity"))
        else:
            # The inversion has predicted this row of this latent.
            u, (c,) = inversion.nothing[0], denoise(x, t, ("identity",))
        last = number == steps - 1 and steps < _FEW_STEPS
        mean, sigma = solver.step(number, x, u + guidance * (c - u), first_order=last)
        x = mean + sigma * maps[number]
        if mask is not None:
            x = torch.where(mask > 0, torch.lerp(inversion.after(number), x, mask), inversion.after(number))
    progress(steps, steps, "denoising")
    return x
