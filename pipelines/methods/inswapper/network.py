"""The face swapper ``inswapper_128.onnx``: renders an ArcFace identity on an aligned face of 128 px.

The user provides the file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import WeightsError
from ...core.stored import open_onnx
from ...faces.align import ARCFACE_TEMPLATE, crop, five_points, similarity
from ...faces.detect import detect_faces
from ...faces.masks import ellipse_mask
from ...faces.paste import paste
from ...recognition.arcface import DIMENSIONS, ArcFace

SIDE = 128
_TEMPLATE = ARCFACE_TEMPLATE + [8.0, 0.0]
"""ArcFace alignment at 112 px, padded by 8 px left and right and by 16 px below."""


class InSwapper:
    """The swapper network: inputs ``target (1, 3, 128, 128)`` in [0, 1] and ``source (1, 512)``, output ``(1, 3, 128,
    128)``.

    Raises:
        WeightsError: the file is missing, damaged or not inswapper_128.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, "face swapper")
        shapes = [list(i.shape) for i in self._session.get_inputs()]
        if shapes != [[1, 3, SIDE, SIDE], [1, DIMENSIONS]]:
            raise WeightsError(f"{path.name} is not inswapper_128 (inputs {shapes}); choose inswapper_128.onnx")
        self._map = _identity_map(path)

    def swap_aligned(self, image: Tensor, transform: np.ndarray, identity: np.ndarray) -> Tensor:
        """Align a face and swap in an identity.

        Args:
            image: ``(1, 3, H, W)``, RGB in [0, 1].
            transform: from the image to the aligned square, ``(2, 3)``.
            identity: ArcFace unit vector ``(512,)``.

        Returns:
            The aligned square ``(1, 3, 128, 128)`` with the new identity.
        """
        aligned = crop(image, transform, SIDE)
        latent = identity @ self._map
        latent = (latent / np.linalg.norm(latent)).astype(np.float32)[None]
        target, source = (i.name for i in self._session.get_inputs())
        return (
            torch.from_numpy(self._session.run(None, {target: aligned.numpy(), source: latent})[0]).float().clamp(0, 1)
        )

    def swap(self, image: Tensor, points: np.ndarray, identity: np.ndarray) -> Tensor:
        """Swap an ArcFace unit vector ``(512,)`` into the face with landmarks ``points`` ``(68, 2)``.

        Returns:
            A new image ``(1, 3, H, W)``.
        """
        transform = swapper_transform(points)
        swapped = self.swap_aligned(image, transform, identity)
        return paste(image, swapped, transform, ellipse_mask((4, 4, SIDE - 4, SIDE - 4), SIDE, SIDE, feather=4.0))


def swapper_transform(points: np.ndarray) -> np.ndarray:
    """Compute the transform ``(2, 3)`` from the image to the swapper's aligned square from 68 landmarks."""
    return similarity(five_points(points), _TEMPLATE)


class ImageSwapper:
    """Swaps the person of one image into another image; see ``triplets.Swapper``."""

    def __init__(self, swapper: Path, recognizer: Path) -> None:
        self._swapper, self._recognizer = InSwapper(swapper), ArcFace(recognizer)

    def __call__(self, person: Tensor, scene: Tensor) -> Tensor | None:
        faces = [
            next((f for f in detect_faces(image, rotated=False) if f.landmarks), None) for image in (person, scene)
        ]
        if faces[0] is None or faces[1] is None:
            return None
        return self._swapper.swap(scene, faces[1].points, self._recognizer.embed(person, faces[0].points))


def _identity_map(path: Path) -> np.ndarray:
    """Read the matrix ``(512, 512)`` from ArcFace space to the swapper's latent space.

    It is the last initializer of this shape in the file.
    """
    import onnx
    from onnx import numpy_helper

    found = [t for t in onnx.load(str(path)).graph.initializer if list(t.dims) == [DIMENSIONS, DIMENSIONS]]
    if not found:
        raise WeightsError(f"{path.name} lacks the 512 x 512 matrix that maps identities; download it again")
    return numpy_helper.to_array(found[-1]).astype(np.float64)
