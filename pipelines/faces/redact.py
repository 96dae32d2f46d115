"""Cover faces: the floor under every method, and what the policy falls back to.

A solid cover removes the pixels. Pixelation and blur keep a coarse copy, which recognisers trained on such pictures can
still match (McPherson et al. 2016), so they are offered for looks and tied to the size of the face.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .align import box_transform
from .blend import paste
from .face import Face
from .masks import box_mask, ellipse_mask, hull_mask
from .sampling import blur

Cover = Literal["solid", "pixelate", "blur", "sticker"]
COVERS: tuple[str, ...] = get_args(Cover)
Shape = Literal["ellipse", "box", "hull"]
SHAPES: tuple[str, ...] = get_args(Shape)

BLOCKS = 6
"""Mosaic blocks across a face: below 8 no recogniser that we have tells people apart."""
BLUR_SHARE = 0.22
"""Blur radius (standard deviation) as a share of the face's longer side."""
GROW = 0.25
"""Detectors box the inner face; hairline, ears and chin are covered too."""


def redact(
    image: Tensor,
    face: Face,
    cover: Cover = "solid",
    shape: Shape = "ellipse",
    colour: tuple[float, float, float] = (0.5, 0.5, 0.5),
    sticker: Tensor | None = None,
    grow: float = GROW,
) -> tuple[Tensor, Tensor]:
    """Cover one face.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1]; it is not changed.
        cover: ``solid`` (nothing of the face is left), or ``pixelate``, ``blur`` (weaker), or ``sticker``.
        shape: ``ellipse`` and ``box`` follow the box, ``hull`` the landmarks.
        colour: RGB in [0, 1] of a solid cover and under a sticker.
        sticker: ``(1, 4, h, w)`` RGBA in [0, 1], laid over the solid cover.
        grow: enlargement of the box, 0.25 = 25 %.

    Returns:
        The covered picture and the mask of what changed, ``(1, 1, H, W)``.

    Raises:
        InputError: an unknown cover or shape, or a sticker cover without a sticker.
    """
    if cover not in COVERS:
        raise InputError(f"cover {cover!r} is not one of {', '.join(COVERS)}")
    if cover == "sticker" and (sticker is None or sticker.shape[1] != 4):
        raise InputError("a sticker cover needs a sticker picture with an alpha channel")
    height, width = image.shape[-2:]
    mask = shape_mask(face, height, width, shape, grow)
    if cover == "pixelate":
        covering = _mosaic(image, face)
    elif cover == "blur":
        covering = _blurred(image, face)
    else:
        covering = torch.tensor(colour, dtype=image.dtype, device=image.device).view(1, 3, 1, 1).expand_as(image)
    mask = mask.to(image)
    result = torch.where(mask > 0, torch.lerp(image, covering, mask), image)
    if cover == "sticker" and sticker is not None:
        result = _stick(result, face, sticker, grow)
        mask = torch.maximum(mask, (result != image).any(1, keepdim=True).to(mask))
    return result, mask


def shape_mask(face: Face, height: int, width: int, shape: Shape = "ellipse", grow: float = GROW) -> Tensor:
    """The area that a cover fills, hard enough that nothing of the face shines through: ``(1, 1, H, W)``."""
    if shape not in SHAPES:
        raise InputError(f"shape {shape!r} is not one of {', '.join(SHAPES)}")
    box = _whole_face_box(face)
    if shape == "box":
        return box_mask(box, height, width, grow)
    if shape == "hull" and face.landmarks:
        return hull_mask(face.points, height, width, grow=grow)
    return ellipse_mask(box, height, width, grow)


def _whole_face_box(face: Face) -> tuple[float, float, float, float]:
    if not face.landmarks:
        return face.box
    points = face.points
    low = np.minimum(points.min(0), face.box[:2])
    high = np.maximum(points.max(0), face.box[2:])
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _window(image: Tensor, face: Face, margin: float) -> tuple[slice, slice]:
    x1, y1, x2, y2 = _whole_face_box(face)
    pad = margin * max(x2 - x1, y2 - y1)
    height, width = image.shape[-2:]
    rows = slice(int(np.clip(y1 - pad, 0, height - 1)), int(np.clip(np.ceil(y2 + pad), 1, height)))
    columns = slice(int(np.clip(x1 - pad, 0, width - 1)), int(np.clip(np.ceil(x2 + pad), 1, width)))
    return rows, columns


def _mosaic(image: Tensor, face: Face) -> Tensor:
    rows, columns = _window(image, face, GROW)
    window = image[..., rows, columns]
    x1, y1, x2, y2 = _whole_face_box(face)
    block = max(1, round(max(x2 - x1, y2 - y1) / BLOCKS))
    height, width = window.shape[-2:]
    blocks = max(1, -(-height // block)), max(1, -(-width // block))
    small = torch.nn.functional.adaptive_avg_pool2d(window, blocks)
    result = image.clone()
    result[..., rows, columns] = torch.nn.functional.interpolate(small, size=(height, width), mode="nearest")
    return result


def _blurred(image: Tensor, face: Face) -> Tensor:
    rows, columns = _window(image, face, 3 * BLUR_SHARE)
    x1, y1, x2, y2 = _whole_face_box(face)
    result = image.clone()
    result[..., rows, columns] = blur(image[..., rows, columns], BLUR_SHARE * max(x2 - x1, y2 - y1))
    return result


def _stick(image: Tensor, face: Face, sticker: Tensor, grow: float) -> Tensor:
    side = max(sticker.shape[-2:])
    square = torch.zeros(1, 4, side, side)
    y, x = (side - sticker.shape[-2]) // 2, (side - sticker.shape[-1]) // 2
    square[..., y : y + sticker.shape[-2], x : x + sticker.shape[-1]] = sticker
    transform = box_transform(_whole_face_box(face), side, margin=grow)
    return paste(image, square[:, :3].to(image), transform, square[:, 3:].to(image))
