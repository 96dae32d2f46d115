"""The face swapper ``inswapper_128.onnx``: shows an ArcFace identity on an aligned face of 128 px. The file is the
user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import WeightsError
from ...core.stored import open_onnx
from ...faces.align import ARCFACE_TEMPLATE, crop, five_points, similarity
from ...faces.detect import detect_faces
from ...faces.paste import paste
from ...imaging.masks import ellipse_mask
from ...recognition.arcface import DIMENSIONS, ArcFace

SIDE = 128
_TEMPLATE = ARCFACE_TEMPLATE + [8.0, 0.0]
"""ArcFace's alignment at 112 px, with 8 px more on each side and below."""


class InSwapper:
    """The swapper: inputs ``target (1, 3, 128, 128)`` in [0, 1] and ``source (1, 512)``, output ``(1, 3, 128,
    128)``."""

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, "face swapper")
        shapes = [list(i.shape) for i in self._session.get_inputs()]
        if shapes != [[1, 3, SIDE, SIDE], [1, DIMENSIONS]]:
            raise WeightsError(f"{path.name} is not inswapper_128 (inputs {shapes})")
        self._map = _identity_map(path)

    def show(self, picture: Tensor, transform: np.ndarray, identity: np.ndarray) -> Tensor:
        """The square ``(1, 3, 128, 128)`` that ``transform`` cuts out of a picture, with an ArcFace unit vector
        ``(512,)`` shown on it."""
        view = crop(picture, transform, SIDE)
        latent = identity @ self._map
        latent = (latent / np.linalg.norm(latent)).astype(np.float32)[None]
        target, source = (i.name for i in self._session.get_inputs())
        return torch.from_numpy(self._session.run(None, {target: view.numpy(), source: latent})[0]).float().clamp(0, 1)

    def swap(self, picture: Tensor, points: np.ndarray, identity: np.ndarray) -> Tensor:
        """Show an ArcFace unit vector ``(512,)`` on the face with ``points`` ``(68, 2)``: a new picture ``(1, 3, H,
        W)``."""
        transform = swapper_transform(points)
        shown = self.show(picture, transform, identity)
        return paste(picture, shown, transform, ellipse_mask((4, 4, SIDE - 4, SIDE - 4), SIDE, SIDE, feather=4.0))


def swapper_transform(points: np.ndarray) -> np.ndarray:
    """From a picture to the swapper's square, by 68 landmarks."""
    return similarity(five_points(points), _TEMPLATE)


class PictureSwapper:
    """Shows the person of one picture in another one; see ``triplets.Swapper``."""

    def __init__(self, swapper: Path, recognizer: Path) -> None:
        self._swapper, self._recognizer = InSwapper(swapper), ArcFace(recognizer)

    def __call__(self, person: Tensor, scene: Tensor) -> Tensor | None:
        faces = [
            next((f for f in detect_faces(picture, rotated=False) if f.landmarks), None) for picture in (person, scene)
        ]
        if faces[0] is None or faces[1] is None:
            return None
        return self._swapper.swap(scene, faces[1].points, self._recognizer.embed(person, faces[0].points))


def _identity_map(path: Path) -> np.ndarray:
    """The matrix ``(512, 512)`` from ArcFace's space into the swapper's: its file keeps it as the last initializer."""
    import onnx
    from onnx import numpy_helper

    found = [t for t in onnx.load(str(path)).graph.initializer if list(t.dims) == [DIMENSIONS, DIMENSIONS]]
    if not found:
        raise WeightsError(f"{path.name} lacks the matrix of 512 x 512 numbers that maps identities; get a fresh copy")
    return numpy_helper.to_array(found[-1]).astype(np.float64)
