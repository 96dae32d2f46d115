"""Recognizers of uniface (AdaFace, SphereFace, MobileFace), from files that the user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import WeightsError
from ..faces.external import open_uniface
from .arcface import aligned_bgr
from .base import FaceRecognizer, unit


class UnifaceRecognizer(FaceRecognizer):
    """Unit vectors of AdaFace, SphereFace or MobileFace from faces aligned to 112 px.

    Attributes:
        name: ``adaface_ir_50``, ``sphereface-sphere20`` and the like, by uniface's name of the file.
    """

    dimension = 512
    alignment = "arcface-112"

    def __init__(self, family: str, path: Path) -> None:
        self._model = _open(family, path)
        self.name = path.stem if path.stem.startswith(family) else f"{family}-{path.stem}"

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        # uniface's networks take one face at a time.
        rows = [
            self._model.get_embedding(aligned_bgr(image, points))[0]
            for image, points in zip(images, landmarks, strict=True)
        ]
        return unit(np.stack(rows)) if rows else np.zeros((0, self.dimension))


def _open(family: str, path: Path) -> Any:
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
    known = {name.value: (cls, name) for name in names}
    return open_uniface(path, "recognizer", known, providers=["CPUExecutionProvider"])
