"""Occlusion masks from a face parser of the user (BiSeNet trained on CelebAMask-HQ, 19 classes, ONNX)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import WeightsError
from ..core.stored import open_onnx
from ..imaging.resample import pixel_grid, sample
from .align import crop, five_points, footprint, similarity
from .face import Face

SIDE = 512
CLASSES = 19
FACE_CLASSES = (1, 2, 3, 4, 5, 10, 11, 12, 13)
"""Skin, brows, eyes, nose, mouth, lips. All other classes are occlusions: glasses, hair, hat, hands (background),
cloth."""
IDENTITY_CLASSES = (1, 2, 3, 4, 5, 6, 10)
"""What identifies a person: skin, brows, eyes, glasses, nose."""
FRONT_CLASSES = (16, 17, 18)
"""Cloth, hair and hat, which can hang over a face."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Eyes, nose tip and mouth corners in the aligned images that the parser was trained on, in pixels.
_TEMPLATE = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]])


class FaceParser:
    """A face parser with input ``(1, 3, 512, 512)``, ImageNet normalized, and output ``(1, 19, 512, 512)``.

    Raises:
        WeightsError: the file is missing or damaged, or is not a face parser of this kind.
    """

    def __init__(self, path: Path) -> None:
        self._session = open_onnx(path, "face parser")
        input_shape, output_shape = self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape
        if (
            len(input_shape) != 4
            or len(output_shape) != 4
            or input_shape[2:] != [SIDE, SIDE]
            or output_shape[1] != CLASSES
        ):
            raise WeightsError(
                f"{path.name} is not a face parser with {CLASSES} classes at {SIDE} px (input {input_shape},"
                f" output {output_shape}); choose another file"
            )

    def occlusion(self, image: Tensor, face: Face) -> Tensor:
        """Compute the occlusion mask of a face, ``(1, 1, H, W)`` in [0, 1]; 0 outside the input of the parser.

        Args:
            image: ``(1, 3, H, W)``, RGB in [0, 1].
            face: a face with landmarks.

        Raises:
            InputError: the face has no landmarks.
        """
        others = [label for label in range(CLASSES) if label not in FACE_CLASSES]
        return self.share(image, face.points, others)

    def share(self, image: Tensor, points: np.ndarray, classes: Sequence[int]) -> Tensor:
        """Total probability of ``classes`` at each pixel, ``(1, 1, H, W)``; 0 outside the input of the parser.

        Args:
            image: ``(1, 3, H, W)``, RGB in [0, 1].
            points: 68 landmarks in pixels, ``(68, 2)``.
        """
        transform = similarity(five_points(points), _TEMPLATE)
        view = crop(image, transform, SIDE)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        logits = torch.from_numpy(
            self._session.run(None, {self._session.get_inputs()[0].name: ((view - mean) / std).numpy()})[0]
        )
        probabilities = logits.float().softmax(1)
        chosen = probabilities[:, list(classes)].sum(1, keepdim=True)
        return _to_image(chosen, transform, image.shape[-2], image.shape[-1])


def _to_image(view: Tensor, transform: np.ndarray, height: int, width: int) -> Tensor:
    """Resample a mask from the view of the parser to the image; 0 outside the view."""
    x0, y0, x1, y1 = footprint(transform, SIDE, height, width)
    result = torch.zeros(1, 1, height, width)
    if x1 > x0 and y1 > y0:
        matrix = torch.from_numpy(transform).float()
        grid = pixel_grid(y1 - y0, x1 - x0) + torch.tensor([float(x0), float(y0)])
        result[..., y0:y1, x0:x1] = sample(view, grid @ matrix[:, :2].T + matrix[:, 2], padding="zeros")
    return result
