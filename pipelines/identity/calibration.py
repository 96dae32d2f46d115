"""Thresholds: below which distance a recogniser's unit vectors show the same person, and where the figure comes
from."""

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


LEAST_PAIRS = 10
"""A share of fewer pairs of strangers than this is a guess."""


def distance_of(cosine: float) -> float:
    """L2 distance of two unit vectors with this cosine: d^2 = 2 - 2 c."""
    return float(np.sqrt(2 - 2 * cosine))


CALIBRATIONS = {
    # dlib finds generated faces alike: of pairs of strangers in our synthetic portraits 29 % lie below.
    "dlib": Calibration(
        0.396, None, "its author's 0.6 on raw vectors (99.38 % on LFW), divided by their mean length 1.515"
    ),
    "arcface": Calibration(
        distance_of(0.28),
        0.01,
        "cosine 0.28, the 99th percentile between strangers in this project's notes, for w600k_r50",
    ),
    "adaface": Calibration(distance_of(0.28), None, "ArcFace's; not measured for AdaFace"),
    "sphereface": Calibration(distance_of(0.28), None, "ArcFace's; not measured for uniface's SphereFace"),
    "mobileface": Calibration(distance_of(0.28), None, "ArcFace's; not measured for uniface's MobileFace"),
    "facenet": Calibration(1.1, None, "the distance that the literature uses for its unit vectors"),
}
"""By the beginning of a space's name."""


def calibration_of(space: str) -> Calibration:
    """What is known of a space.

    Raises:
        InputError: nothing.
    """
    found = [c for name, c in CALIBRATIONS.items() if space.startswith(name)]
    if not found:
        raise InputError(
            f"no threshold is known for the space {space}; measure one on photos of strangers with: faceveil calibrate"
        )
    return found[0]


def threshold_at(vectors: np.ndarray, false_match: float) -> float:
    """The distance below which a share ``false_match`` of all pairs lies.

    Args:
        vectors: unit vectors ``(N, D)``, one a person.

    Raises:
        InputError: there are too few pairs for so small a share.
    """
    pairs = np.sqrt(np.maximum(0, 2 - 2 * vectors @ vectors.T))[np.triu_indices(len(vectors), 1)]
    if not 0 < false_match < 1 or len(pairs) * false_match < LEAST_PAIRS - 1e-9:
        raise InputError(
            f"{len(vectors)} people make {len(pairs)} pairs, too few for a false-match rate of {false_match:g}; add"
            " photos of strangers"
        )
    return float(np.quantile(pairs, false_match))


def judge_identities(a: Identity, b: Identity) -> Verdict:
    """Compare two identities of one space, one vector each.

    Raises:
        InputError: their spaces differ, or no threshold is known for theirs.
    """
    calibration = calibration_of(same_space([a, b]))
    return verdict(float(np.linalg.norm(a.vector - b.vector)), calibration.threshold)
