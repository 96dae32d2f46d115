"""Identity protection (section 3.2): noise on what carries the identity, the same for all pictures of a person."""

from __future__ import annotations

from dataclasses import replace

from ...core.noise import perturb_codes
from ...geometry.coefficients import Coefficients
from .headnerf import HeadCodes

SCALE = 0.25
"""Scale of HeadNeRF's noise at strength 1; the paper recommends 0.2 to 0.3 and tries 0.05 to 0.4."""
MESH_SCALE = 1.0
"""Scale of a mesh model's noise at strength 1. Its coefficients have unit variance, HeadNeRF's codes less."""
MESH_LIMIT = 3.0
"""Limit of a mesh model's coefficients, where HeadNeRF's codes have 1."""
MESH_FIELDS = ("identity", "texture")
"""What carries the identity of a mesh model: geometry and albedo; z_id of HeadNeRF changes both."""


def protected_codes(codes: HeadCodes, strength: float, seed: int) -> HeadCodes:
    """``z'_id = clamp(z_id + n, -1, 1)`` with ``n ~ N(0, (0.25 strength)^2)``; z_app stays. All rows get the same n."""
    return replace(codes, identity=perturb_codes(codes.identity, strength * SCALE, seed, shared=True))


def protected_coefficients(coefficients: Coefficients, strength: float, seed: int) -> Coefficients:
    """The same for a mesh model of unit variance."""
    return coefficients.perturbed(strength * MESH_SCALE, seed, MESH_FIELDS, MESH_LIMIT)
