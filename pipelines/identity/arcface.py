"""ArcFace recognisers in ONNX (``w600k_r50.onnx`` and its kin), run by insightface from a file that the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import WeightsError
from ..faces.align import ARCFACE_SIZE, arcface_transform, crop
from ..faces.detect import to_bytes
from ..stored import open_onnx
from .embedder import Embedder

DIMENSIONS = 512
SPACE = "arcface-w600k"
"""Of ``w600k_r50.onnx``, which is also what inswapper understands."""


class ArcFace(Embedder):
    """Unit vectors of 512 numbers from faces aligned to 112 px (Deng et al. 2019).

    Attributes:
        space: ``arcface-w600k`` for ``w600k_r50.onnx``, ``arcface-NAME`` for a file of another name: networks do not
            share a space.
    """

    def __init__(self, path: Path) -> None:
        session = open_onnx(path, "recogniser")
        given, answer = session.get_inputs()[0].shape, session.get_outputs()[0].shape
        if list(given[1:]) != [3, ARCFACE_SIZE, ARCFACE_SIZE] or answer[-1] != DIMENSIONS:
            raise WeightsError(
                f"{path.name} is not an ArcFace recogniser (input {given}, output {answer}); use w600k_r50.onnx"
            )
        try:
            from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        except ImportError:
            raise WeightsError("the insightface package is missing; install it with: pip install insightface") from None
        # insightface knows which of these networks scale their input themselves.
        self._model = ArcFaceONNX(str(path), session=session)
        self.space = SPACE if path.stem == "w600k_r50" else f"arcface-{path.stem}"

    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        vector: np.ndarray = self._model.get_feat(aligned(picture, points))[0]
        return vector


def aligned(picture: Tensor, points: np.ndarray) -> np.ndarray:
    """The face at 112 px in the ArcFace alignment, as the BGR bytes ``(112, 112, 3)`` that insightface and uniface
    take."""
    return np.ascontiguousarray(to_bytes(crop(picture, arcface_transform(points), ARCFACE_SIZE))[:, :, ::-1])
