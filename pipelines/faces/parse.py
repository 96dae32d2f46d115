"""Face parsers of the user: BiSeNet as ONNX, or SegFormer as a folder of transformers. Both know 19 classes.

The classes are those of CelebAMask-HQ in BiSeNet's order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import WeightsError
from ..core.stored import open_onnx
from ..imaging.resample import pixel_grid, sample
from .align import crop, five_points, footprint, similarity
from .face import Face

SIDE = 512
NAMES = (
    *("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r"),
    *("nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat"),
)
CLASSES = len(NAMES)
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


class FaceParser(ABC):
    """Finds the parts of a face."""

    @abstractmethod
    def probabilities(self, view: Tensor) -> Tensor:
        """Probabilities of the classes ``(1, 19, 512, 512)`` for ``(1, 3, 512, 512)``, ImageNet normalized."""

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
        return self.shares(image, points, [classes])

    def shares(self, image: Tensor, points: np.ndarray, groups: Sequence[Sequence[int]]) -> Tensor:
        """Total probability of each group of classes, ``(1, G, H, W)``; see ``share``."""
        transform = similarity(five_points(points), _TEMPLATE)
        view = crop(image, transform, SIDE)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        probabilities = self.probabilities((view - mean) / std)
        chosen = torch.cat([probabilities[:, list(classes)].sum(1, keepdim=True) for classes in groups], 1)
        return _to_image(chosen, transform, image.shape[-2], image.shape[-1])


class OnnxParser(FaceParser):
    """BiSeNet.

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
            or self._session.get_inputs()[0].type != "tensor(float)"
        ):
            raise WeightsError(
                f"{path.name} is not a face parser with {CLASSES} classes at {SIDE} px (input {input_shape},"
                f" output {output_shape}); choose another file"
            )

    def probabilities(self, view: Tensor) -> Tensor:
        logits = self._session.run(None, {self._session.get_inputs()[0].name: view.numpy()})[0]
        return torch.from_numpy(logits).float().softmax(1)


class SegformerParser(FaceParser):
    """SegFormer, whose configuration names its classes.

    Args:
        folder: with ``config.json`` and ``model.safetensors``, as transformers saves them.

    Raises:
        WeightsError: the folder is incomplete, damaged, or of another network.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from transformers import SegformerForSemanticSegmentation

        from ..core.devices import best_device

        try:
            with torch.inference_mode(False):
                loaded: Any = SegformerForSemanticSegmentation.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
                )
            network, loading = loaded
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as damage:
            raise WeightsError(
                f"{folder.name} is not a complete SegFormer folder ({type(damage).__name__}); it needs config.json and"
                " model.safetensors"
            ) from None
        # transformers fills what is missing with random numbers.
        if any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")) or not all(
            bool(torch.isfinite(value).all()) for value in network.state_dict().values()
        ):
            raise WeightsError(f"the weights in {folder.name} are incomplete or of another network; get a fresh copy")
        number = {str(name): int(index) for index, name in network.config.id2label.items()}
        if set(number) != set(NAMES):
            raise WeightsError(f"the SegFormer in {folder.name} does not know the {CLASSES} classes of CelebAMask-HQ")
        self._order = [number[name] for name in NAMES]
        self._network: Any = network.to(best_device()).eval()
        self._device = best_device()

    def probabilities(self, view: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self._network(view.to(self._device)).logits.float().cpu()
        large = torch.nn.functional.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
        return large.softmax(1)[:, self._order]


def open_parser(path: Path) -> FaceParser:
    """Open a face parser.

    Args:
        path: an ONNX file of BiSeNet; or a folder of SegFormer, or the ``model.safetensors`` in it.

    Raises:
        WeightsError: it is missing or damaged, or of another kind.
    """
    if path.suffix == ".safetensors" and path.is_file():
        return SegformerParser(path.parent)
    return SegformerParser(path) if path.is_dir() else OnnxParser(path)


def _to_image(view: Tensor, transform: np.ndarray, height: int, width: int) -> Tensor:
    """Resample masks from the view of the parser to the image; 0 outside the view."""
    x0, y0, x1, y1 = footprint(transform, SIDE, height, width)
    result = torch.zeros(1, view.shape[1], height, width)
    if x1 > x0 and y1 > y0:
        matrix = torch.from_numpy(transform).float()
        grid = pixel_grid(y1 - y0, x1 - x0) + torch.tensor([float(x0), float(y0)])
        result[..., y0:y1, x0:x1] = sample(view, grid @ matrix[:, :2].T + matrix[:, 2], padding="zeros")
    return result
