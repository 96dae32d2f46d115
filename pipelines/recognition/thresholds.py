"""Below which distance two embeddings show one person, and where each figure comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

MIN_PAIRS = 10
"""A false-match rate that is estimated from fewer pairs than this is a guess."""
MAX_DISTANCE = 2.0
"""L2 distance of two opposite unit vectors."""
DLIB_MEAN_LENGTH = 1.515
"""Mean length of dlib's embeddings over 4,000 synthetic faces; dlib does not normalize them."""


@dataclass(frozen=True)
class Threshold:
    """One operating point of a recognizer.

    Attributes:
        distance: L2 distance of unit vectors below which they show one person.
        false_match_rate: share of pairs of different people below it; None where it was not measured.
        source: where the figure comes from.
    """

    distance: float
    false_match_rate: float | None
    source: str


def distance_of(cosine: float) -> float:
    """L2 distance of two unit vectors with this cosine: d^2 = 2 - 2 c."""
    return float(np.sqrt(2 - 2 * cosine))


_ARCFACE = distance_of(0.28)
THRESHOLDS: dict[str, tuple[Threshold, ...]] = {
    # dlib finds generated faces alike: of pairs of different people among our synthetic portraits 29 % lie below.
    "dlib": (Threshold(0.6 / DLIB_MEAN_LENGTH, None, "its author's 0.6 (99.38 % on LFW), over the mean length 1.515"),),
    "faceveil": (Threshold(distance_of(0.48), 0.01, "cosine 0.48, the 99th percentile between 58 strangers"),),
    "arcface": (Threshold(_ARCFACE, 0.01, "cosine 0.28, the 99th percentile between strangers, for w600k_r50"),),
    "adaface": (Threshold(_ARCFACE, None, "ArcFace's; not measured for AdaFace"),),
    "sphereface": (Threshold(_ARCFACE, None, "ArcFace's; not measured for uniface's SphereFace"),),
    "mobileface": (Threshold(_ARCFACE, None, "ArcFace's; not measured for uniface's MobileFace"),),
    "facenet": (Threshold(1.1, None, "the usual distance in the literature for its unit vectors"),),
}
"""By the beginning of a recognizer's name; the first of each is recommended."""


def threshold_of(name: str, false_match_rate: float | None = None) -> Threshold:
    """A recognizer's threshold: the recommended one, or the one whose false-match rate is nearest to a wanted one.

    Raises:
        InputError: none is known for this recognizer, or none with a measured false-match rate.
    """
    found = next((known for prefix, known in THRESHOLDS.items() if name.startswith(prefix)), ())
    if not found:
        raise InputError(
            f"no threshold is known for {name}; measure one on photos of strangers with faceveil calibrate, and name it"
            " as KIND:FILE@DISTANCE or on Load Recognizer"
        )
    if false_match_rate is None:
        return found[0]
    wanted = false_match_rate
    measured = [(abs(t.false_match_rate - wanted), t) for t in found if t.false_match_rate is not None]
    if not measured:
        raise InputError(f"no false-match rate was measured for {name}; measure one with faceveil calibrate")
    return min(measured, key=lambda pair: pair[0])[1]


def measure_threshold(vectors: np.ndarray, false_match_rate: float) -> float:
    """The L2 distance below which a share ``false_match_rate`` of all pairs lies.

    Args:
        vectors: unit vectors ``(N, D)``, one a person.

    Raises:
        InputError: there are too few pairs for so small a rate.
    """
    pairs = np.sqrt(np.maximum(0, 2 - 2 * vectors @ vectors.T))[np.triu_indices(len(vectors), 1)]
    if not 0 < false_match_rate < 1 or len(pairs) * false_match_rate < MIN_PAIRS - 1e-9:
        raise InputError(
            f"{len(vectors)} people make {len(pairs)} pairs, too few for a false-match rate of {false_match_rate:g};"
            " add photos of strangers"
        )
    return float(np.quantile(pairs, false_match_rate))
