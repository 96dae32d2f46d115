"""Embedders: what turns a face into a unit vector. dlib comes with the package, all others need a file that the user
has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError, WeightsError
from ..faces.external import open_uniface
from .arcface import ArcFace, aligned
from .embedder import Embedder
from .ensemble import EnsembleEmbedder, load_ensemble
from .kinds import KINDS
from .recognise import default_recogniser


class DlibEmbedder(Embedder):
    """Unit vectors of 128 numbers from dlib's recogniser."""

    space = "dlib"

    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        return default_recogniser().embed(picture, points)


class UnifaceEmbedder(Embedder):
    """Unit vectors of a recogniser of uniface: AdaFace (which takes BGR), SphereFace or MobileFace, faces aligned to
    112 px.

    Attributes:
        space: ``adaface_ir_50``, ``sphereface-sphere20`` and the like, by the name that uniface gives the file.
    """

    def __init__(self, family: str, path: Path) -> None:
        self._model = _open_uniface(family, path)
        self.space = path.stem if path.stem.startswith(family) else f"{family}-{path.stem}"

    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        vector: np.ndarray = self._model.get_embedding(aligned(picture, points))[0]
        return vector


def open_embedder(kind: str = "dlib", path: Path | None = None) -> Embedder:
    """Open an embedder.

    Args:
        kind: one of ``KINDS``.
        path: its weights; not for dlib.

    Raises:
        InputError: the kind is unknown, or its file was not named.
        WeightsError: the file is missing, damaged or of another kind.
    """
    if kind not in KINDS:
        raise InputError(f"recogniser {kind!r} is not one of {', '.join(KINDS)}")
    if kind == "dlib":
        return DlibEmbedder()
    if path is None:
        raise InputError(f"the recogniser {kind} needs a weights file that you have; name it as {kind}:FILE")
    if kind == "arcface":
        return ArcFace(path)
    if kind == "facenet":
        from .facenet import FaceNet

        return FaceNet(path)
    if kind == "farl":
        from .farl import FaRL

        return FaRL(path)
    return UnifaceEmbedder(kind, path)


def embedder_of(words: str) -> Embedder:
    """From ``dlib``, ``KIND:FILE`` or ``ensemble:FILE,KIND:FILE,KIND:FILE…``, as the command line takes it."""
    first, *others = words.split(",")
    kind, _, file = first.partition(":")
    if kind == "ensemble" and file:
        return EnsembleEmbedder(load_ensemble(Path(file)), [embedder_of(o) for o in others])
    return open_embedder(kind, Path(file) if file else None)


def _open_uniface(family: str, path: Path) -> Any:
    try:
        from uniface import constants, recognition
    except ImportError:
        raise WeightsError("the uniface package is missing; install it with: pip install uniface") from None
    cls: Any
    names: Any
    cls, names = {
        "adaface": (recognition.AdaFace, constants.AdaFaceWeights),
        "sphereface": (recognition.SphereFace, constants.SphereFaceWeights),
        "mobileface": (recognition.MobileFace, constants.MobileFaceWeights),
    }[family]
    return open_uniface(
        path, "recogniser", {name.value: (cls, name) for name in names}, providers=["CPUExecutionProvider"]
    )
