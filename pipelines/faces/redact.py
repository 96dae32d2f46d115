"""Face redaction: remove a face without a replacement. The policy also uses it for faces that cannot be replaced.

A solid redaction removes the pixels. Pixelation and blur keep a coarse copy, which recognizers trained on such images
can still match (McPherson et al. 2016). They are offered for their appearance only, and scale with the size of the
face.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..imaging.resample import blur
from .align import box_transform
from .face import Face
from .masks import box_mask, ellipse_mask, hull_mask, outline
from .names import REDACTION_SHAPES, REDACTION_STYLES, RedactionShape, RedactionStyle
from .paste import paste

BLOCKS = 6
"""Mosaic blocks along the longer side of a face. Below 8, none of the available recognizers distinguishes people."""
MIN_BLOCK = 8
"""Pixels of a block: smaller ones would leave a small face as it is."""
BLUR_SHARE = 0.22
"""Standard deviation of the blur as a fraction of the longer side of the face."""
WINDOW_MARGIN, WIDE_MARGIN = 0.3, 1.0
"""Around a face, as a share of its longer side: more than a redaction depends on; blurs and stickers reach farther."""
GROW = 0.25
"""Enlargement of the box. Detectors box the inner face; redaction also includes hairline, ears and chin."""


def redact(
    image: Tensor,
    face: Face,
    style: RedactionStyle = "solid",
    shape: RedactionShape = "ellipse",
    color: tuple[float, float, float] = (0.5, 0.5, 0.5),
    sticker: Tensor | None = None,
    grow: float = GROW,
) -> tuple[Tensor, Tensor]:
    """Redact one face.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1]; it is not modified.
        style: ``solid`` (removes all pixels of the face), ``pixelate`` or ``blur`` (weaker), or ``sticker``.
        shape: ``ellipse`` and ``box`` follow the box, ``hull`` follows the landmarks.
        color: RGB in [0, 1] of the solid fill, also below a sticker.
        sticker: ``(1, 4, h, w)`` RGBA in [0, 1], pasted over the solid fill.
        grow: enlargement of the box, 0.25 = 25 %; of the hull, in inter-ocular distances.

    Returns:
        The redacted image and the mask of changed pixels, ``(1, 1, H, W)``.

    Raises:
        InputError: the style or the shape is unknown, or the style ``sticker`` has no RGBA sticker.
    """
    if style not in REDACTION_STYLES:
        raise InputError(f"redaction style {style!r} is not one of {', '.join(REDACTION_STYLES)}")
    if style == "sticker" and (sticker is None or sticker.shape[1] != 4):
        raise InputError("the style sticker needs an image; name one with --sticker, or connect it")
    height, width = image.shape[-2:]
    mask = shape_mask(face, height, width, shape, grow)
    if style == "pixelate":
        fill = _pixelated(image, face)
    elif style == "blur":
        fill = _blurred(image, face)
    else:
        fill = torch.tensor(color, dtype=image.dtype, device=image.device).view(1, 3, 1, 1).expand_as(image)
    mask = mask.to(image)
    result = torch.where(mask > 0, torch.lerp(image, fill, mask), image)
    if style == "sticker" and sticker is not None:
        result = _paste_sticker(result, face, sticker, grow)
        mask = torch.maximum(mask, (result != image).any(1, keepdim=True).to(mask))
    return result, mask


def redaction_window(
    face: Face, height: int, width: int, style: RedactionStyle, shape: RedactionShape
) -> tuple[slice, slice]:
    """Rows and columns of an image that a redaction of the face depends on and changes, with room to spare."""
    x1, y1, x2, y2 = _whole_face_box(face)
    if shape == "hull" and face.landmarks:
        # The forehead can lie far above a tight box.
        low, high = outline(face.points, GROW).min(0), outline(face.points, GROW).max(0)
        x1, y1, x2, y2 = min(x1, low[0]), min(y1, low[1]), max(x2, high[0]), max(y2, high[1])
    margin = (WIDE_MARGIN if style in ("blur", "sticker") else WINDOW_MARGIN) * max(x2 - x1, y2 - y1) + MIN_BLOCK

    def span(low: float, high: float, length: int) -> slice:
        first = int(np.clip(np.floor(low - margin), 0, length - 1))
        return slice(first, int(np.clip(np.ceil(high + margin), first + 1, length)))

    return span(y1, y2, height), span(x1, x2, width)


def shape_mask(face: Face, height: int, width: int, shape: RedactionShape = "ellipse", grow: float = GROW) -> Tensor:
    """Compute the redacted area ``(1, 1, H, W)`` in [0, 1]; 1 inside the shape, with an anti-aliased edge.

    Raises:
        InputError: the shape is unknown.
    """
    if shape not in REDACTION_SHAPES:
        raise InputError(f"redaction shape {shape!r} is not one of {', '.join(REDACTION_SHAPES)}")
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


def _patch(image: Tensor, face: Face, margin: float) -> tuple[slice, slice]:
    x1, y1, x2, y2 = _whole_face_box(face)
    pad = margin * max(x2 - x1, y2 - y1)
    height, width = image.shape[-2:]
    rows = slice(int(np.clip(y1 - pad, 0, height - 1)), int(np.clip(np.ceil(y2 + pad), 1, height)))
    columns = slice(int(np.clip(x1 - pad, 0, width - 1)), int(np.clip(np.ceil(x2 + pad), 1, width)))
    return rows, columns


def _pixelated(image: Tensor, face: Face) -> Tensor:
    rows, columns = _patch(image, face, GROW)
    patch = image[..., rows, columns]
    x1, y1, x2, y2 = _whole_face_box(face)
    block = max(MIN_BLOCK, round(max(x2 - x1, y2 - y1) / BLOCKS))
    height, width = patch.shape[-2:]
    blocks = max(1, -(-height // block)), max(1, -(-width // block))
    small = torch.nn.functional.adaptive_avg_pool2d(patch, blocks)
    result = image.clone()
    result[..., rows, columns] = torch.nn.functional.interpolate(small, size=(height, width), mode="nearest")
    return result


def _blurred(image: Tensor, face: Face) -> Tensor:
    rows, columns = _patch(image, face, 3 * BLUR_SHARE)
    x1, y1, x2, y2 = _whole_face_box(face)
    result = image.clone()
    result[..., rows, columns] = blur(image[..., rows, columns], BLUR_SHARE * max(x2 - x1, y2 - y1))
    return result


def _paste_sticker(image: Tensor, face: Face, sticker: Tensor, grow: float) -> Tensor:
    side = max(sticker.shape[-2:])
    square = torch.zeros(1, 4, side, side)
    y, x = (side - sticker.shape[-2]) // 2, (side - sticker.shape[-1]) // 2
    square[..., y : y + sticker.shape[-2], x : x + sticker.shape[-1]] = sticker
    transform = box_transform(_whole_face_box(face), side, margin=grow)
    return paste(image, square[:, :3].to(image), transform, square[:, 3:].to(image))
