"""Arithmetic on identities: interpolation, averages, extrapolation, noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.errors import InputError
from ..core.noise import perturb_codes
from .identity import Identity, same_space

SCALES = (0.05, 0.40)
"""Range of the noise's standard deviation (IDEudemon, section 3.2)."""


def slerp(a: Identity, b: Identity, share: float) -> Identity:
    """Interpolate on the great circle from ``a`` (share 0) to ``b`` (share 1); a share above 1 extrapolates past ``b``.

    Raises:
        InputError: the spaces differ, or one side has several vectors.
    """
    space = same_space([a, b])
    u, v = a.vector, b.vector
    angle = float(np.arccos(np.clip(u @ v, -1, 1)))
    if angle < 1e-6:
        return Identity(u, space)
    return Identity((np.sin((1 - share) * angle) * u + np.sin(share * angle) * v) / np.sin(angle), space)


def average(identities: Sequence[Identity], weights: Sequence[float] | None = None) -> Identity:
    """Compute the weighted mean direction of several identities.

    Raises:
        InputError: the spaces differ, a weight is negative, all weights are zero, or there is not one weight for each
            identity.
    """
    space = same_space(identities)
    share = np.ones(len(identities)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(share) != len(identities) or (share < 0).any() or share.sum() <= 0:
        raise InputError("weights must be one for each identity, none negative, and not all zero")
    return Identity(sum(w * i.average().vector for w, i in zip(share, identities, strict=True)), space)


def away_from(identity: Identity, origin: Identity, amount: float) -> Identity:
    """Move away from ``origin``: ``(1 + amount) identity - amount origin``.

    This is the extrapolation of Face Anonymization Made Simple with degrees above 1.

    Raises:
        InputError: the spaces differ, one side has several vectors, or the amount is negative.
    """
    space = same_space([identity, origin])
    if amount < 0:
        raise InputError(f"the amount must be 0 or more, got {amount:g}; use slerp to move towards an identity")
    return Identity((1 + amount) * identity.vector - amount * origin.vector, space)


def perturb(identity: Identity, scale: float, seed: int) -> Identity:
    """Add noise of N(0, scale^2) to each element and clamp the sum to [-1, 1] (IDEudemon, section 3.2).

    Raises:
        InputError: the scale is outside 0.05 to 0.40.
    """
    low, high = SCALES
    if not low <= scale <= high:
        raise InputError(f"the scale must be between {low:g} and {high:g}, got {scale:g}")
    noisy = perturb_codes(torch.from_numpy(identity.vectors), scale, seed, shared=False)
    return Identity(noisy.numpy(), identity.space)
