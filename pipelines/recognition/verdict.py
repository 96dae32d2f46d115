"""Compare two faces and put the answer in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import FaceRecognizer

_WORDS = (
    (0.75, "the same person, clearly"),
    (1.0, "probably the same person"),
    (1.15, "probably different people"),
)
"""Upper limits of distance / threshold."""


@dataclass(frozen=True)
class Verdict:
    """A distance between two embeddings and what it means.

    Attributes:
        distance: of the embeddings.
        threshold: distance below which they show one person.
        same: ``distance < threshold``.
        words: for people to read.
    """

    distance: float
    threshold: float
    same: bool
    words: str


def judge(recognizer: FaceRecognizer, a: np.ndarray, b: np.ndarray) -> Verdict:
    """Compare two embeddings ``(D,)`` of one recognizer.

    Raises:
        InputError: no threshold is known for the recognizer.
    """
    return verdict(recognizer.distance(a, b), recognizer.threshold)


def verdict(distance: float, threshold: float) -> Verdict:
    """Put a distance in words."""
    words = next((text for limit, text in _WORDS if distance < limit * threshold), "different people, clearly")
    return Verdict(distance, threshold, distance < threshold, words)
