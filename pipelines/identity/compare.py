"""Compare identities, and open recognizers, including ensembles, by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from ..recognition.base import FaceRecognizer
from ..recognition.catalog import open_recognizer
from ..recognition.thresholds import threshold_of
from ..recognition.verdict import Verdict, verdict
from .ensemble import EnsembleRecognizer, load_ensemble
from .identity import Identity, same_space


def compare_identities(a: Identity, b: Identity) -> Verdict:
    """Compare two identities of one space, one vector each.

    Raises:
        InputError: the spaces differ, one side has several vectors, or no threshold is known for the space.
    """
    threshold = threshold_of(same_space([a, b]))
    return verdict(float(np.linalg.norm(a.vector - b.vector)), threshold.distance)


def recognizer_named(text: str) -> FaceRecognizer:
    """Open the recognizer that a user names: ``dlib``, ``KIND:FILE``, or ``ensemble:FILE,KIND:FILE,KIND:FILE...``.

    ``@DISTANCE`` at the end sets the threshold that ``faceveil calibrate`` measured.

    Raises:
        InputError: the text is not the name of a recognizer.
        WeightsError: a weights file is missing or damaged.
    """
    named, at, distance = text.rpartition("@")
    with suppress(ValueError):
        if at:
            # The name of a file may contain the character, too: then no number follows.
            return recognizer_named(named).with_threshold(float(distance))
    first, *others = text.split(",")
    kind, _, file = first.partition(":")
    if kind == "ensemble" and file:
        return EnsembleRecognizer(load_ensemble(Path(file)), [recognizer_named(o) for o in others])
    return open_recognizer(kind, Path(file) if file else None)
