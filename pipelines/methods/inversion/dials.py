"""Strength to guidance and skip, and which of the two algorithms fits a checkpoint."""

from __future__ import annotations

from typing import Literal, get_args

from ...core.errors import InputError
from . import nullface, reverse

Algorithm = Literal["nullface", "reverse_personalization"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
MAX_STRENGTH = 1.5
_LOWEST_SKIP = 0.6
"""NullFace's skip at the highest strength: the generation starts from more noise."""


def guidance_of(algorithm: Algorithm, strength: float) -> float:
    """g: 0 at strength 0, and the authors' 10 or -10 at strength 1.

    NullFace's stays there above 1, where its start moves instead; that of Reverse Personalization goes on to -15.
    """
    _check(strength)
    if algorithm == "nullface":
        return nullface.GUIDANCE * min(strength, 1.0)
    return reverse.GUIDANCE * strength


def skip_of(algorithm: Algorithm, strength: float) -> float:
    """The share of the noise schedule that is skipped: the authors' 0.7, and down to 0.6 at strength 1.5 in NullFace.

    A lower one changes more, also hair and background. That of Reverse Personalization stays, because another one needs
    another inversion.
    """
    _check(strength)
    if algorithm == "nullface":
        share = max(strength - 1.0, 0.0) / (MAX_STRENGTH - 1.0)
        return nullface.SKIP + share * (_LOWEST_SKIP - nullface.SKIP)
    return reverse.SKIP


def fitting(context_size: int) -> Algorithm:
    """The algorithm that was published for checkpoints with text tokens of this length; both work with either."""
    return "reverse_personalization" if context_size > SD15_CONTEXT else "nullface"


SD15_CONTEXT = 768
"""Length of a text token in Stable Diffusion 1.5."""


def _check(strength: float) -> None:
    if not 0 <= strength <= MAX_STRENGTH:
        raise InputError(f"strength must be between 0 and {MAX_STRENGTH:g}, got {strength:g}")
