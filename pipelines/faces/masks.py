"""Masks as pure functions: float ``(1, 1, H, W)`` in [0, 1].

Combine masks by minimum (intersection) or maximum (union).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..imaging.resample import blur
from .face import inter_ocular

FOREHEAD_HEIGHT = 0.95
"""Height of the forehead above the eye centers, in inter-ocular distances (IOD)."""


def polygon_mask(points: np.ndarray, height: int, width: int, feather: float = 0.0) -> Tensor:
    """Fill a closed polygon ``(N, 2)`` in pixels, anti-aliased, with its edge blurred by ``feather`` pixels."""
    from PIL import Image, ImageDraw

    # Render only the patch of the polygon, at four times its size, to save time and memory in large images.
    pad = int(3 * feather) + 2
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + pad, [width, height])
    mask = torch.zeros(1, 1, height, width)
    if x1 <= x0 or y1 <= y0:
        return mask
    scale = 4 if max(x1 - x0, y1 - y0) < 1500 else 1
    canvas = Image.new("L", (int(x1 - x0) * scale, int(y1 - y0) * scale))
    ImageDraw.Draw(canvas).polygon([((x - x0) * scale - 0.5, (y - y0) * scale - 0.5) for x, y in points], fill=255)
    small = canvas.resize((int(x1 - x0), int(y1 - y0)), Image.Resampling.BOX) if scale > 1 else canvas
    patch = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255.0)[None, None]
    mask[..., y0:y1, x0:x1] = blur(patch, feather) if feather > 0 else patch
    return mask


def outline(points: np.ndarray, grow: float = 0.0) -> np.ndarray:
    """Compute the outline of the face ``(N, 2)``, jaw and forehead, from 68 landmarks; ``grow`` expands it, in IOD."""
    iod = inter_ocular(points)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    across = (right - left) / np.linalg.norm(right - left)
    up = np.array([across[1], -across[0]])
    ends = points[0], points[16]
    # The forehead is half an ellipse above the line between the jaw ends.
    middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    height = float(((left + right) / 2 - middle) @ up) + FOREHEAD_HEIGHT * iod
    angles = np.linspace(0, np.pi, 15)[1:-1]
    forehead = middle + np.cos(angles)[:, None] * half + np.sin(angles)[:, None] * up * height
    ring = np.concatenate([points[0:17], forehead])
    center = ring.mean(0)
    away = ring - center
    return ring + away / np.linalg.norm(away, axis=1, keepdims=True) * grow * iod


def hull_mask(points: np.ndarray, height: int, width: int, grow: float = 0.0, feather: float = 0.0) -> Tensor:
    """Fill the outline of the face, with the forehead, from 68 landmarks; ``grow`` in IOD, ``feather`` in pixels."""
    return polygon_mask(outline(points, grow), height, width, feather)


def ellipse_mask(
    box: tuple[float, float, float, float], height: int, width: int, grow: float = 0.0, feather: float = 0.0
) -> Tensor:
    """Fill the ellipse inside a box; ``grow`` as a fraction of the box (0.2 = 20 % larger), ``feather`` in pixels."""
    x1, y1, x2, y2 = box
    rx, ry = max((x2 - x1) / 2 * (1 + grow), 0.5), max((y2 - y1) / 2 * (1 + grow), 0.5)
    x = (torch.arange(width) + 0.5 - (x1 + x2) / 2) / rx
    y = (torch.arange(height) + 0.5 - (y1 + y2) / 2) / ry
    distance = (x * x + (y * y)[:, None]).sqrt()
    mask = (0.5 + (1 - distance) * min(rx, ry)).clamp(0, 1)[None, None]
    return blur(mask, feather) if feather > 0 else mask


def box_mask(
    box: tuple[float, float, float, float], height: int, width: int, grow: float = 0.0, feather: float = 0.0
) -> Tensor:
    """Fill a box; ``grow`` as a fraction of the box, ``feather`` in pixels."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / 2 * grow, (y2 - y1) / 2 * grow
    corners = np.array([[x1 - dx, y1 - dy], [x2 + dx, y1 - dy], [x2 + dx, y2 + dy], [x1 - dx, y2 + dy]])
    return polygon_mask(corners, height, width, feather)
