"""What an inversion needs of a diffusion network: noise predictions of one latent under different conditions."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

Row = Literal["nothing", "empty", "identity", "attributes"]
"""Conditions of one row of a denoiser.

- ``nothing``: zeros instead of text, and the tokens of a zero embedding.
- ``empty``: the text "", and the tokens of a zero embedding.
- ``identity``: the text "", or in NullFace the attribute prompt where there is one, and the tokens of the person.
- ``attributes``: the attribute prompt, and the tokens of a zero embedding.
"""
TRAINED_STEPS = 1000
"""Time steps of the noise schedule of Stable Diffusion."""
BETA_START, BETA_END = 0.00085, 0.012


class Denoiser(Protocol):
    """A noise prediction network with its conditions."""

    def __call__(self, x: Tensor, t: int, rows: tuple[Row, ...]) -> tuple[Tensor, ...]:
        """Predict the noise of ``x`` ``(B, 4, h, w)`` at time step ``t``: one prediction ``(B, 4, h, w)`` for each row.

        It may raise an exception to interrupt the run.
        """


def alphas_bar() -> Tensor:
    """The cumulative products of 1 - beta ``(1000,)`` that Stable Diffusion 1.5 and SDXL were trained with."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAINED_STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1 - betas, 0)


def draw(like: Tensor, count: int, seeds: list[int]) -> list[Tensor]:
    """``count`` draws of normal noise with the shape of ``like`` ``(B, 4, h, w)``; one generator for each of its rows.

    A larger count adds draws behind the same first ones.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    shape = like.shape[1:]
    return [torch.stack([torch.randn(shape, generator=g) for g in generators]).to(like) for _ in range(count)]


def noised(x0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n."""
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise
