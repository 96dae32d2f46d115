"""Sample the face geometry of synthetic people (DiffDeID, Eq. 3)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..core.errors import InputError
from ..identity.lds import LEVELS, IdentitySampler, builtin_sampler
from .coefficients import Coefficients


def sample_geometry(
    coefficients: Coefficients, level: int, seed: int, texture: bool, sampler: IdentitySampler | None = None
) -> Coefficients:
    """Replace the shape of all rows by the shape of one synthetic person.

    Args:
        level: 1 (similar to the first row) to 10 (a different person).
        seed: of the random generators.
        texture: also sample texture coefficients of unit variance, mixed with those of the first row by level.
        sampler: a sampler of the model's identity coefficients; that of the built-in model if omitted.

    Raises:
        InputError: the sampler belongs to another model.
    """
    sampler = sampler or builtin_sampler("appearance-shape")
    if coefficients.model != sampler.space:
        raise InputError(
            f"this sampler is for shapes of {sampler.space}, but the coefficients belong to {coefficients.model}; load"
            " the built-in model"
        )
    sampled = sampler.level(coefficients.identity[0].double().numpy(), level, seed).vectors
    count = len(coefficients)
    changed = replace(coefficients, identity=torch.from_numpy(sampled).to(coefficients.identity).expand(count, -1))
    if not texture:
        return changed
    noise = torch.randn(coefficients.texture.shape[1], generator=torch.Generator().manual_seed(seed)).to(
        coefficients.texture
    )
    share = level / LEVELS
    return replace(
        changed, texture=((1 - share**2) ** 0.5 * coefficients.texture[:1] + share * noise).expand(count, -1)
    )
