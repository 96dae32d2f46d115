"""Masks as pure functions: float ``(1, 1, H, W)`` in [0, 1], combined by minimum (both) or maximum (either)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .face import inter_ocular
from .sampling import blur, pixel_grid

BROW_TO_HAIR = 0.95
"""How far the forehead reaches above the eyes, in inter-ocular distances."""


def polygon_mask(points: np.ndarray, height: int, width: int, feather: float = 0.0) -> Tensor:
    """Inside of a closed polygon ``(N, 2)`` in pixels, anti-aliased, its edge softened by ``feather`` pixels."""
    from PIL import Image, ImageDraw

    # Draw the polygon's own window at four times its size; large pictures stay cheap.
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
    window = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255.0)[None, None]
    mask[..., y0:y1, x0:x1] = blur(window, feather) if feather > 0 else window
    return mask


def outline(points: np.ndarray, grow: float = 0.0) -> np.ndarray:
    """Jaw line closed over the forehead, ``(N, 2)``, from 68 landmarks; ``grow`` in inter-ocular distances."""
    iod = inter_ocular(points)
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    across = (right - left) / np.linalg.norm(right - left)
    up = np.array([across[1], -across[0]])
    ends = points[0], points[16]
    # Forehead: half an ellipse over the line between the jaw ends.
    middle, half = (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / 2
    height = float(((left + right) / 2 - middle) @ up) + BROW_TO_HAIR * iod
    angles = np.linspace(0, np.pi, 15)[1:-1]
    forehead = middle + np.cos(angles)[:, None] * half + np.sin(angles)[:, None] * up * height
    ring = np.concatenate([points[0:17], forehead])
    centre = ring.mean(0)
    away = ring - centre
    return ring + away / np.linalg.norm(away, axis=1, keepdims=True) * grow * iod


def hull_mask(points: np.ndarray, height: int, width: int, grow: float = 0.0, feather: float = 0.0) -> Tensor:
    """The face from 68 landmarks, forehead included; ``grow`` in inter-ocular distances."""
    return polygon_mask(outline(points, grow), height, width, feather)


def ellipse_mask(
    box: tuple[float, float, float, float], height: int, width: int, grow: float = 0.0, feather: float = 0.0
) -> Tensor:
    """The ellipse in a box; ``grow`` as a share of the box (0.2 = 20 % larger)."""
    x1, y1, x2, y2 = box
    rx, ry = max((x2 - x1) / 2 * (1 + grow), 0.5), max((y2 - y1) / 2 * (1 + grow), 0.5)
    distance = (
        (pixel_grid(height, width) - torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])) / torch.tensor([rx, ry])
    ).norm(dim=-1)
    mask = (0.5 + (1 - distance) * min(rx, ry)).clamp(0, 1)[None, None]
    return blur(mask, feather) if feather > 0 else mask


def box_mask(
    box: tuple[float, float, float, float], height: int, width: int, grow: float = 0.0, feather: float = 0.0
) -> Tensor:
    """A filled box; ``grow`` as a share of the box."""
    x1, y1, x2, y2 = box
    dx, dy = (x2 - x1) / 2 * grow, (y2 - y1) / 2 * grow
    corners = np.array([[x1 - dx, y1 - dy], [x2 + dx, y1 - dy], [x2 + dx, y2 + dy], [x1 - dx, y2 + dy]])
    return polygon_mask(corners, height, width, feather)
