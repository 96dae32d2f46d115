"""Third step of a job: compare each new face with the original, by every recognizer at hand."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import FaceVeilError
from ..faces.align import five_points
from ..faces.face import eye_opening, mouth_gap, yaw_proxy
from ..faces.landmarks import fit_landmarks
from ..methods.base import Change
from ..recognition.base import FaceRecognizer
from .report import Check, Utility

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verification:
    """What the recognizers find.

    Attributes:
        checks: one for each recognizer that could compare the faces.
        failed: names of the recognizers that could not.
        points: landmarks of the new face as measured in its pixels, in pixels of the image, ``(68, 2)``.
    """

    checks: tuple[Check, ...]
    failed: tuple[str, ...]
    points: np.ndarray

    @property
    def margin(self) -> float:
        """Of the recognizer that finds the two faces most alike, in its thresholds; 0 where one could not compare."""
        return 0.0 if self.failed else min((check.margin for check in self.checks), default=0.0)

    @property
    def matched_by(self) -> tuple[str, ...]:
        """Names of the recognizers that still take the new face for the original."""
        return tuple(check.recognizer for check in self.checks if check.same_person)


def verify(
    change: Change, originals: Sequence[np.ndarray], recognizers: Sequence[FaceRecognizer], rounds: int = 2
) -> Verification:
    """Compare a rendered face with its original.

    Args:
        originals: embedding of the untouched face for each recognizer, ``(D,)``.
        rounds: of the measurement of the new landmarks; one takes half the time.
    """
    meant = change.points - np.asarray(change.origin)
    box = np.concatenate([meant.min(0), meant.max(0)])
    # Measured again: the recognizer of an attacker does not know where the landmarks were meant to be.
    measured = fit_landmarks(change.patch, box, five_points(meant), rounds)
    points = meant if measured is None else measured
    checks, failed = [], []
    for recognizer, original in zip(recognizers, originals, strict=True):
        try:
            distance = recognizer.distance(recognizer.embed(change.patch, points), original)
        except (FaceVeilError, RuntimeError, ValueError) as error:
            log.warning("%s could not compare a face: %s", recognizer.name, error)
            distance = math.nan
        if math.isfinite(distance):
            threshold = recognizer.threshold
            checks.append(Check(recognizer.name, threshold, distance, distance < threshold))
        else:
            failed.append(recognizer.name)
    return Verification(tuple(checks), tuple(failed), points + np.asarray(change.origin))


def utility(original: np.ndarray, rendered: np.ndarray) -> Utility:
    """What changed although it should stay, from the landmarks ``(68, 2)`` of both faces."""
    return Utility(*(abs(measure(rendered) - measure(original)) for measure in (yaw_proxy, mouth_gap, eye_opening)))
