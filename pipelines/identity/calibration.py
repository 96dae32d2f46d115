"""Thresholds: below which distance a recogniser's unit vectors show the same person, and where the figure comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .identity import Identity, same_space
from .recognise import Verdict, verdict


@dataclass(frozen=True)
class Calibration:
    """A threshold on the L2 distance of unit vectors.

    Attributes:
        threshold: below it: the same person.
        false_match: share of strangers below it, where it is known.
        source: where the figures come from.
    """

    threshold: float
    false_match: float | None
    source: str


CALIBRATIONS = {
    "dlib": Calibration(0.396, None, "its author's 0.6 on raw vectors (99.38 % on LFW), divided by their mean length 1.515"),
    "arcface-w600k": Calibration(float(np.sqrt(2 - 2 * 0.28)), 0.01, "cosine 0.28, the 99th percentile between strangers in this project's notes"),
    "facenet": Calibration(1.1, None, "the distance that the literature uses for its unit vectors"),
}
"""By space. Cosine c and distance d of unit vectors: d^2 = 2 - 2 c."""


def judge_identities(a: Identity, b: Identity) -> Verdict:
    """Compare two identities of one space, one vector each.

    Raises:
        InputError: their spaces differ, or no threshold is known for theirs.
    """
    space = same_space([a, b])
    if space not in CALIBRATIONS:
        raise InputError(f"no threshold is known for the space {space}; known are {', '.join(CALIBRATIONS)}")
    return verdict(float(np.linalg.norm(a.vector - b.vector)), CALIBRATIONS[space].threshold)
