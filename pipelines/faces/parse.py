"""What covers a face, by a face parser that the user has (BiSeNet trained on CelebAMask-HQ, 19 classes, ONNX)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from ..stored import open_onnx
from .align import crop, five_points, footprint, similarity
from .face import Face
from .sampling import pixel_grid, sample

SIDE = 512
CLASSES = 19
OF_A_FACE = (1, 2, 3, 4, 5, 10, 11, 12, 13)
"""Skin, brows, eyes, nose, mouth, lips; all else that lies over a face covers it: glasses, hair, hat, hands
(background), cloth."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Where the five points of a face lie in the pictures that the parser was trained on.
_TEMPLATE = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]])


class FaceParser:
    """A parser with input ``(1, 3, 512, 512)``, ImageNet normalised, and output ``(1, 19, 512, 512)``."""

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, "face parser")
        given, answer = self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape
        if len(given) != 4 or len(answer) != 4 or given[2:] != [SIDE, SIDE] or answer[1] != CLASSES:
            raise WeightsError(
                f"{path.name} is not a face parser with {CLASSES} classes at {SIDE} px (input {given}, output {answer})"
            )

    def covered(self, image: Tensor, face: Face) -> Tensor:
        """Where something lies over the face, ``(1, 1, H, W)`` in [0, 1]; 0 outside the view of the parser.

        Args:
            image: ``(1, 3, H, W)``, RGB in [0, 1].
            face: with landmarks.
        """
        transform = similarity(five_points(face.points), _TEMPLATE)
        view = crop(image, transform, SIDE)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        logits = torch.from_numpy(
            self._session.run(None, {self._session.get_inputs()[0].name: ((view - mean) / std).numpy()})[0]
        )
        share = logits.float().softmax(1)
        cover = 1 - share[:, list(OF_A_FACE)].sum(1, keepdim=True)
        return _back(cover, transform, image.shape[-2], image.shape[-1])


def _back(view: Tensor, transform: np.ndarray, height: int, width: int) -> Tensor:
    """A map of the view in the picture, 0 where the view does not reach."""
    x0, y0, x1, y1 = footprint(transform, SIDE, height, width)
    result = torch.zeros(1, 1, height, width)
    if x1 > x0 and y1 > y0:
        matrix = torch.from_numpy(transform).float()
        grid = pixel_grid(y1 - y0, x1 - x0) + torch.tensor([float(x0), float(y0)])
        result[..., y0:y1, x0:x1] = sample(view, grid @ matrix[:, :2].T + matrix[:, 2], padding="zeros")
    return result
