"""NullFace: edit-friendly DDPM inversion, and generation away from an identity.

Index k runs from 0, the clean latent, to N; step k goes from x_k to x_{k-1} at time step t_k. Only the K = N - skip
lowest noise levels take part. Predictions that no result depends on are not computed: those above K, that of k = 1,
whose noise map is set to zero, and the first one of the generation, which the inversion already has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from .denoiser import TRAINED_STEPS, Denoiser, Row, noised

STEPS, SKIP, GUIDANCE, ETA, MASK_DELAY = 100, 0.7, 10.0, 1.0, 10
"""The authors' settings: N, the share of the steps above the start, g, eta, and steps before the mask acts."""
_T_1 = 1
"""Time step of k = 1."""


@dataclass(frozen=True)
class Schedule:
    """The DDIM time steps of N steps over the training schedule.

    Attributes:
        alphas_bar: cumulative products of 1 - beta ``(1000,)``.
        steps: N.

    Raises:
        InputError: N is not in 1 ... 1000.
    """

    alphas_bar: Tensor
    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TRAINED_STEPS:
            raise InputError(f"steps must be between 1 and {TRAINED_STEPS}, got {self.steps}")

    def t(self, k: int) -> int:
        """t_k, for k = 1 ... N."""
        return _T_1 + (k - 1) * (TRAINED_STEPS // self.steps)

    def a(self, k: int) -> Tensor:
        """a_k; that of the clean latent is the training schedule's first value, not 1."""
        return self.alphas_bar[self.t(k) if k else 0]

    def variance(self, k: int) -> Tensor:
        return (1 - self.a(k - 1)) / (1 - self.a(k)) * (1 - self.a(k) / self.a(k - 1))

    def mean(self, x: Tensor, eps: Tensor, k: int, eta: float) -> Tensor:
        """mu(x_k, eps). The direction term has eta where DDIM has its square, as the authors' code."""
        a, previous = self.a(k), self.a(k - 1)
        x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        return previous**0.5 * x0 + (1 - previous - eta * self.variance(k)) ** 0.5 * eps

    def sigma(self, k: int, eta: float) -> Tensor:
        return eta * self.variance(k) ** 0.5


@dataclass(frozen=True)
class Inversion:
    """An inverted batch. It depends on no identity, guidance or eta, so any of them can be tried on it.

    Attributes:
        steps: N.
        noisy: x_0 ... x_K, ``(K + 1, B, 4, h, w)``, each with noise of its own.
        predictions: the noise predictions of x_2 ... x_K, ``(K - 1, B, 4, h, w)``.
    """

    steps: int
    noisy: Tensor
    predictions: Tensor

    @property
    def depth(self) -> int:
        """K."""
        return len(self.noisy) - 1

    def prediction(self, k: int) -> Tensor | None:
        """The noise prediction of x_k; None for k = 1."""
        return self.predictions[k - 2] if k >= 2 else None


def depth_of(steps: int, skip: float) -> int:
    """K: how many of N steps remain where a share of them is skipped.

    Raises:
        InputError: nothing remains, or the share is negative.
    """
    if not 0 <= skip < 1:
        raise InputError(f"skip must be at least 0 and below 1, got {skip:g}")
    return max(1, steps - round(skip * steps))


def invert(
    denoise: Denoiser,
    alphas_bar: Tensor,
    x0: Tensor,
    noises: list[Tensor],
    steps: int = STEPS,
    known: Inversion | None = None,
    progress: Progress = silent,
) -> Inversion:
    """Invert clean latents.

    Args:
        alphas_bar: the training schedule ``(1000,)``.
        x0: ``(B, 4, h, w)``, scaled.
        noises: K draws ``(B, 4, h, w)``, for k = 1 ... K.
        known: an inversion of the same latents with the same first noises, which is continued.

    Raises:
        InputError: more draws than steps, or none.
    """
    schedule, depth = Schedule(alphas_bar.to(x0), steps), len(noises)
    if not 1 <= depth <= steps:
        raise InputError(f"{steps} steps need 1 to {steps} draws of noise, got {depth}")
    noisy = [x0, *(noised(x0, n, schedule.a(k)) for k, n in enumerate(noises, 1))]
    have = [] if known is None else list(known.predictions[: depth - 1])
    predictions = list(have)
    for k in range(2 + len(have), depth + 1):
        progress(k - 2, depth - 1, "inverting")
        predictions.append(denoise(noisy[k], schedule.t(k), ("empty",))[0])
    progress(depth, depth, "inverting")
    return Inversion(steps, torch.stack(noisy), torch.stack(predictions) if predictions else x0.new_zeros(0, *x0.shape))


def noise_map(inversion: Inversion, alphas_bar: Tensor, k: int, eta: float = ETA) -> Tensor:
    """z_k = (x_{k-1} - mu(x_k, eps_k)) / sigma_k, and zero for k = 1; ``(B, 4, h, w)``."""
    prediction, x = inversion.prediction(k), inversion.noisy
    if prediction is None:
        return torch.zeros_like(x[0])
    schedule = Schedule(alphas_bar.to(x), inversion.steps)
    return (x[k - 1] - schedule.mean(x[k], prediction, k, eta)) / schedule.sigma(k, eta)


def generate(
    denoise: Denoiser,
    alphas_bar: Tensor,
    inversion: Inversion,
    guidance: float = GUIDANCE,
    eta: float = ETA,
    depth: int | None = None,
    mask: Tensor | None = None,
    mask_delay: int = MASK_DELAY,
    hold: bool = False,
    attributes: bool = False,
    progress: Progress = silent,
) -> Tensor:
    """Denoise an inversion away from the identity: eps = u + g (c - u).

    Args:
        guidance: g; 0 reconstructs.
        eta: above 0 and at most 1.
        depth: start at x_depth; K when omitted.
        mask: ``(B or 1, 1, h, w)``, 1 where the face changes, 0 where it stays; everything changes when omitted.
        mask_delay: steps at the start in which the mask does not act yet. Ignored with ``hold``.
        hold: where the mask is 0, the latents are the inversion's at every step and end as x_0. Otherwise the
            prediction without identity acts there, as in the authors' code, and x_0 returns only approximately.
        attributes: an attribute prompt takes the place of the empty text.

    Returns:
        ``(B, 4, h, w)``.

    Raises:
        InputError: eta or the depth is out of range, or the delay reaches beyond the last step.
    """
    depth = inversion.depth if depth is None else depth
    if not 0 < eta <= 1:
        raise InputError(f"eta must be above 0 and at most 1, got {eta:g}")
    if not 1 <= depth <= inversion.depth:
        raise InputError(f"the inversion has {inversion.depth} steps, but {depth} are needed; invert with a lower skip")
    if mask is not None and not hold and mask_delay >= depth:
        raise InputError(
            f"the mask would act after {mask_delay} of {depth} steps, so never; lower the delay, or take more steps"
        )
    schedule, x = Schedule(alphas_bar.to(inversion.noisy), inversion.steps), inversion.noisy[depth]
    mask = None if mask is None else mask.to(x)
    without: Row = "attributes" if attributes else "empty"
    for step, k in enumerate(range(depth, 0, -1)):
        progress(step, depth, "denoising")
        u = None if step or attributes else inversion.prediction(k)
        if u is None:
            u, c = denoise(x, schedule.t(k), (without, "identity"))
        else:
            (c,) = denoise(x, schedule.t(k), ("identity",))
        eps = u + guidance * (c - u)
        if mask is not None and not hold and step >= mask_delay:
            eps = (1 - mask) * u + mask * eps
        z = noise_map(inversion, alphas_bar, k, eta)
        x = schedule.mean(x, eps, k, eta) + schedule.sigma(k, eta) * z
        if mask is not None and hold:
            x = torch.where(mask > 0, torch.lerp(inversion.noisy[k - 1], x, mask), inversion.noisy[k - 1])
    progress(depth, depth, "denoising")
    return x
