"""What is shown on a person of a video, and one try of finding it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.progress import Progress, silent
from ...methods.base import AnyMethod
from ...methods.identities import MethodIdentity
from ...recognition.base import FaceRecognizer
from ..verify import verify


@dataclass(frozen=True)
class Role:
    """What is shown on one person, and how the recognizers know them.

    Attributes:
        identity: shown in all frames.
        embeddings: the mean ``(D,)`` for each recognizer; each frame is compared with them.
    """

    identity: MethodIdentity
    embeddings: tuple[np.ndarray, ...]


Cast = Mapping[int, Role]
"""Number of a person to their role; whoever has none is redacted."""


@dataclass(frozen=True)
class Tried:
    """An identity, and its distance to the original in thresholds, at the view and by the recognizer that find both
    most alike."""

    identity: MethodIdentity
    margin: float


def try_identity(
    method: AnyMethod,
    recognizers: Sequence[FaceRecognizer],
    prepared: Sequence[Any],
    embeddings: tuple[np.ndarray, ...],
    seed: int,
    strength: float,
    progress: Progress = silent,
) -> Tried:
    """Sample an identity of one person, and measure it.

    Args:
        prepared: the person's views, analyzed by the method.
        embeddings: the person's mean ``(D,)`` for each recognizer.
    """
    identity = method.sample_identity(prepared, seed, progress)
    changes = (method.render(view, identity, strength) for view in prepared)
    return Tried(identity, min(verify(change, embeddings, recognizers).margin for change in changes))
