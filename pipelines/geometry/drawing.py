"""Draw the geometry of people who do not exist (DiffDeID, Eq. 3)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..errors import InputError
from ..identity.lds import LEVELS, IdentitySampler, builtin_sampler
from .coefficients import Coefficients


def draw_geometry(
    coefficients: Coefficients, level: int, seed: int, texture: bool, sampler: IdentitySampler | None = None
) -> Coefficients:
    """The same faces with another person's shape, one person for all rows.

    Args:
        level: 1 (akin to the first row) to 10 (a stranger).
        texture: draw texture coefficients as well, of unit variance, at the level's share.
        sampler: of the model's identity coefficients; the built-in model's when omitted.

    Raises:
        InputError: the sampler belongs to another model.
    """
    sampler = sampler or builtin_sampler("appearance-shape")
    if coefficients.model != sampler.space:
        raise InputError(
            f"this sampler draws shapes of {sampler.space}, but the coefficients belong to {coefficients.model}; load"
            " the built-in model"
        )
    drawn = sampler.level(coefficients.identity[0].double().numpy(), level, seed).vectors
    count = len(coefficients)
    changed = replace(coefficients, identity=torch.from_numpy(drawn).to(coefficients.identity).expand(count, -1))
    if not texture:
        return changed
    noise = torch.randn(coefficients.texture.shape[1], generator=torch.Generator().manual_seed(seed)).to(
        coefficients.texture
    )
    share = level / LEVELS
    return replace(
        changed, texture=((1 - share**2) ** 0.5 * coefficients.texture[:1] + share * noise).expand(count, -1)
    )
