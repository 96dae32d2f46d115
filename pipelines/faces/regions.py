"""Masks of the parts of a face: by a face parser, or by landmarks where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .face import BROWS, EYE_A, EYE_B, inter_ocular
from .masks import hull_mask, polygon_mask
from .parse import FaceParser

REGIONS: dict[str, tuple[int, ...]] = {
    "face": (1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13),
    "head": (*range(1, 14), 17),
    "skin": (1, 7, 8),
    "brows": (2, 3),
    "eyes": (4, 5),
    "nose": (10,),
    "mouth": (11, 12, 13),
    "hair": (17,),
    "glasses": (6,),
}
"""Classes of a parser in each region. ``face`` is what IDEudemon draws anew, with the ears; ``head`` adds glasses,
earrings and hair, but no hat and no neck."""
_FACE_GROW, _HEAD_GROW = 0.12, 0.5
"""Growth of the outline of the landmarks to face and head, in inter-ocular distances."""
_BROW_HEIGHT = 0.09
"""Half the height of a brow around its landmarks, in inter-ocular distances."""
_NOSE = [27, 31, 32, 33, 34, 35]
_LIPS = slice(48, 60)


def region_masks(
    image: Tensor, points: np.ndarray, names: Sequence[str], parser: FaceParser | None = None
) -> dict[str, Tensor]:
    """Masks ``(1, 1, H, W)`` of regions of one face: shares in [0, 1] of a parser, 0 and 1 with a soft edge without.

    Without a parser, glasses are not found, and hair is a rim around the face.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1].
        points: 68 landmarks in pixels, ``(68, 2)``.
        names: of ``REGIONS``.
    """
    if parser is not None:
        shares = parser.shares(image, points, [REGIONS[name] for name in names])
        return {name: shares[:, i : i + 1] for i, name in enumerate(names)}
    height, width = image.shape[-2:]
    return {name: _by_landmarks(name, points, height, width) for name in names}


def _by_landmarks(name: str, points: np.ndarray, height: int, width: int) -> Tensor:
    def all_of(*polygons: np.ndarray) -> Tensor:
        return torch.stack([polygon_mask(p, height, width) for p in polygons]).amax(0)

    if name == "face":
        return hull_mask(points, height, width, grow=_FACE_GROW)
    if name == "head":
        return hull_mask(points, height, width, grow=_HEAD_GROW)
    if name == "hair":
        return _without(_by_landmarks("head", points, height, width), _by_landmarks("face", points, height, width))
    if name == "brows":
        return all_of(*(_band(half, inter_ocular(points)) for half in np.split(points[BROWS], 2)))
    if name == "eyes":
        return all_of(points[EYE_A], points[EYE_B])
    if name == "nose":
        return all_of(points[_NOSE])
    if name == "mouth":
        return all_of(points[_LIPS])
    if name == "skin":
        others = [_by_landmarks(part, points, height, width) for part in ("brows", "eyes", "nose", "mouth")]
        return _without(_by_landmarks("face", points, height, width), torch.stack(others).amax(0))
    return torch.zeros(1, 1, height, width)


def _without(mask: Tensor, other: Tensor) -> Tensor:
    return (mask - other).clamp(min=0)


def _band(line: np.ndarray, iod: float) -> np.ndarray:
    """The polygon around a line of landmarks ``(5, 2)``."""
    along = line[-1] - line[0]
    across = np.array([-along[1], along[0]]) / max(float(np.linalg.norm(along)), 1e-9) * _BROW_HEIGHT * iod
    return np.concatenate([line + across, (line - across)[::-1]])
