"""ArcFace recognisers in ONNX (``w600k_r50.onnx`` and its kin), from a file that the user has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import WeightsError
from ..faces.align import ARCFACE_SIZE, arcface_transform, crop
from ..stored import open_onnx

DIMENSIONS = 512


class ArcFace:
    """Unit vectors of 512 numbers from faces aligned to 112 px (Deng et al. 2019)."""

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, "recogniser")
        given, answer = self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape
        if list(given[1:]) != [3, ARCFACE_SIZE, ARCFACE_SIZE] or answer[-1] != DIMENSIONS:
            raise WeightsError(f"{path.name} is not an ArcFace recogniser (input {given}, output {answer}); use w600k_r50.onnx")

    def embed(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        """Unit vector ``(512,)`` of the face with 68 landmarks ``(68, 2)`` in ``picture`` ``(1, 3, H, W)``."""
        view = crop(picture, arcface_transform(points), ARCFACE_SIZE) * 2 - 1
        vector = self._session.run(None, {self._session.get_inputs()[0].name: view.numpy()})[0][0].astype(np.float64)
        return vector / np.linalg.norm(vector)
