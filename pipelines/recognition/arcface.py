"""ArcFace recognizers in ONNX (``w600k_r50.onnx`` and its kin), run by insightface from a file that the user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from ..core.errors import WeightsError
from ..core.stored import open_onnx
from ..faces.align import ARCFACE_SIZE, arcface_transform, crop
from ..imaging.uint8 import to_uint8
from .base import FaceRecognizer, unit

DIMENSIONS = 512
SPACE = "arcface-w600k"
"""Name of ``w600k_r50.onnx``, whose embeddings inswapper takes."""


class ArcFace(FaceRecognizer):
    """Unit vectors of 512 numbers from faces aligned to 112 px (Deng et al. 2019).

    Attributes:
        name: ``arcface-w600k`` for ``w600k_r50.onnx``, ``arcface-NAME`` for a file of another name, because each
            network has its own space.
    """

    dimension = DIMENSIONS
    alignment = "arcface-112"

    def __init__(self, path: Path) -> None:
        session = open_onnx(path, "recognizer")
        given, answer = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        if list(given[1:]) != [3, ARCFACE_SIZE, ARCFACE_SIZE] or answer[-1] != DIMENSIONS:
            raise WeightsError(
                f"{path.name} is not an ArcFace recognizer (input {given}, output {answer}); use w600k_r50.onnx"
            )
        try:
            from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        except ImportError:
            raise WeightsError("the insightface package is missing; install it with: pip install insightface") from None
        # insightface knows which of these networks scale their input themselves.
        self._model = ArcFaceONNX(str(path), session=session)
        self.name = SPACE if path.stem == "w600k_r50" else f"arcface-{path.stem}"

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        crops = [aligned_bgr(image, points) for image, points in zip(images, landmarks, strict=True)]
        return unit(self._model.get_feat(crops)) if crops else np.zeros((0, self.dimension))


def aligned_bgr(image: Tensor, points: np.ndarray) -> np.ndarray:
    """The face in the ArcFace alignment as BGR bytes ``(112, 112, 3)``, as insightface and uniface take it."""
    return np.ascontiguousarray(to_uint8(crop(image, arcface_transform(points), ARCFACE_SIZE))[:, :, ::-1])
