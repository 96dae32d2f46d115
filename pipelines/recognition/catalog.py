"""Open a recognizer by its kind: dlib and our own come with the package, all others need a weights file."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import InputError
from .base import FaceRecognizer
from .kinds import KINDS


def built_in_recognizers() -> tuple[FaceRecognizer, ...]:
    """The recognizers that come with the package; every result is checked by them. dlib is the first."""
    return open_recognizer("dlib"), open_recognizer("faceveil")


def open_recognizer(kind: str = "dlib", path: Path | None = None) -> FaceRecognizer:
    """Open a recognizer.

    Args:
        kind: one of ``KINDS``.
        path: its weights; ignored for dlib, and the built-in ones of ``faceveil`` when omitted.

    Raises:
        InputError: the kind is unknown, or its file is not given.
        WeightsError: the file is missing, damaged or of another kind.
    """
    if kind not in KINDS:
        raise InputError(f"recognizer {kind!r} is not one of {', '.join(KINDS)}; name it as KIND:FILE")
    if kind == "dlib":
        from .dlib_resnet import default_recognizer

        return default_recognizer()
    if kind == "faceveil":
        from .embedder import Embedder, built_in_embedder

        return built_in_embedder() if path is None else Embedder(path)
    if path is None:
        raise InputError(f"the recognizer {kind} needs a weights file that you have; name it as {kind}:FILE")
    if kind == "arcface":
        from .arcface import ArcFace

        return ArcFace(path)
    if kind == "facenet":
        from .facenet import FaceNet

        return FaceNet(path)
    if kind == "farl":
        from .farl import FaRL

        return FaRL(path)
    from .uniface_models import UnifaceRecognizer

    return UnifaceRecognizer(kind, path)
