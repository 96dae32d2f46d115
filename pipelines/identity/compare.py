"""Compare identities, and open recognizers, including ensembles, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import InputError
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
    # The name of a file may contain the character, too: then no number follows.
    if at and _is_number(distance):
        if _is_number(named.rpartition("@")[2]):
            raise InputError(f"{text} names two thresholds; name one")
        return recognizer_named(named).with_threshold(float(distance))
    first, *others = text.split(",")
    kind, _, file = first.partition(":")
    if kind == "ensemble" and file:
        return EnsembleRecognizer(load_ensemble(Path(file)), [recognizer_named(o) for o in others])
    if kind == "dlib" and file:
        raise InputError(f"dlib comes with the package and takes no file, but {file} is named")
    return open_recognizer(kind, Path(file) if file else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
