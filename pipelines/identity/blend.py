"""Arithmetic with identities: between, away from, around."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import InputError
from .identity import Identity, same_space

SCALES = (0.05, 0.40)
"""Range of perturbations (IDEudemon, section 3.2)."""


def slerp(a: Identity, b: Identity, share: float) -> Identity:
    """On the great circle from ``a`` (share 0) to ``b`` (share 1); beyond 1 it goes on past ``b``."""
    space = same_space([a, b])
    u, v = a.vector, b.vector
    angle = float(np.arccos(np.clip(u @ v, -1, 1)))
    if angle < 1e-6:
        return Identity(u, space)
    return Identity((np.sin((1 - share) * angle) * u + np.sin(share * angle) * v) / np.sin(angle), space)


def average(identities: Sequence[Identity], weights: Sequence[float] | None = None) -> Identity:
    """Weighted mean direction.

    Raises:
        InputError: the weights are negative, all zero, or not one an identity.
    """
    space = same_space(identities)
    share = np.ones(len(identities)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(share) != len(identities) or (share < 0).any() or share.sum() <= 0:
        raise InputError("weights must be one an identity, none negative, and not all zero")
    return Identity(sum(w * i.average().vector for w, i in zip(share, identities, strict=True)), space)


def away_from(identity: Identity, origin: Identity, amount: float) -> Identity:
    """Move away from ``origin``: ``(1 + amount) identity - amount origin``, as FAMS extrapolates with degrees above
    1."""
    space = same_space([identity, origin])
    if amount < 0:
        raise InputError(f"the amount must be 0 or more, got {amount:g}; slerp moves towards an identity")
    return Identity((1 + amount) * identity.vector - amount * origin.vector, space)


def perturb(identity: Identity, scale: float, seed: int) -> Identity:
    """Add noise of N(0, scale^2), clamped to [-1, 1], to each number (IDEudemon, section 3.2).

    Raises:
        InputError: the scale is outside 0.05 to 0.40.
    """
    low, high = SCALES
    if not low <= scale <= high:
        raise InputError(f"the scale must be between {low:g} and {high:g}, got {scale:g}")
    noise = np.random.default_rng(seed).normal(0.0, scale, identity.vectors.shape)
    return Identity(identity.vectors + np.clip(noise, -1.0, 1.0), identity.space)
