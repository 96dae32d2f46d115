"""Face alignment: affine transforms from an image to an aligned square, their inverse, and aligned crops."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..imaging.resample import blur, pixel_grid, resize, sample
from .face import eye_centers

ARCFACE_SIZE = 112
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Five points of the ArcFace alignment at 112 px: image-left eye, image-right eye, nose tip, image-left mouth corner,
image-right mouth corner."""


def five_points(points: np.ndarray) -> np.ndarray:
    """Compute eye centers, nose tip and mouth corners ``(5, 2)`` from 68 landmarks."""
    left, right = eye_centers(points)
    return np.stack([left, right, points[30], points[48], points[54]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the least-squares similarity transform ``(2, 3)`` (rotation, uniform scale, translation) from ``source`` to
    ``target`` (Umeyama 1991).

    Raises:
        ValueError: the source points coincide.
    """
    mu_s, mu_t = source.mean(0), target.mean(0)
    s, t = source - mu_s, target - mu_t
    variance = (s**2).sum()
    if variance < 1e-9:
        raise ValueError("all points coincide; a similarity transform needs at least two different points")
    # In 2D, rotation and scale together are one complex number.
    a = (s * t).sum() / variance
    b = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / variance
    linear = np.array([[a, -b], [b, a]])
    return np.concatenate([linear, (mu_t - linear @ mu_s)[:, None]], 1)


def invert(transform: np.ndarray) -> np.ndarray:
    """Invert an affine transform ``(2, 3)``."""
    linear = np.linalg.inv(transform[:, :2])
    return np.concatenate([linear, -linear @ transform[:, 2:]], 1)


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply an affine transform ``(2, 3)`` to points ``(..., 2)``."""
    return points @ transform[:, :2].T + transform[:, 2]


def chained(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The affine transform ``(2, 3)`` that applies ``first`` and then ``second``."""
    return np.concatenate([second[:, :2] @ first[:, :2], apply(second, first[:, 2])[:, None]], 1)


def footprint(transform: np.ndarray, size: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Compute the axis-aligned patch ``x0, y0, x1, y1`` of the image that contains a crop of ``size`` pixels.

    The patch is clipped to the image, and empty when the crop lies outside it.
    """
    corners = apply(invert(transform), np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int), 0, [width, height])
    return int(x0), int(y0), int(x1), int(y1)


def ffhq_transform(points: np.ndarray, size: int) -> np.ndarray:
    """Compute the FFHQ alignment ``(2, 3)`` from eye and mouth positions, for a square of ``size`` pixels."""
    left, right = eye_centers(points)
    mouth = (points[48] + points[54]) / 2
    eye_to_eye, center = right - left, (left + right) / 2
    eye_to_mouth = mouth - center
    x = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    c = center + eye_to_mouth * 0.1
    corners = np.stack([c - x - y, c - x + y, c + x + y])
    target = np.array([[0.0, 0.0], [0.0, size], [size, size]])
    return similarity(corners, target)


def arcface_transform(points: np.ndarray, size: int = ARCFACE_SIZE) -> np.ndarray:
    """Compute the five-point alignment ``(2, 3)`` of the ArcFace recognizers, for a square of ``size`` pixels."""
    return similarity(five_points(points), ARCFACE_TEMPLATE * (size / ARCFACE_SIZE))


def box_transform(box: tuple[float, float, float, float], size: int, margin: float = 0.5) -> np.ndarray:
    """Compute the transform ``(2, 3)`` to an axis-aligned square around a box.

    The side of the square is ``1 + margin`` times the longer side of the box.
    """
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1) * (1 + margin)
    scale = size / side
    return np.array([[scale, 0, size / 2 - scale * (x1 + x2) / 2], [0, scale, size / 2 - scale * (y1 + y2) / 2]])


def crop(image: Tensor, transform: np.ndarray, size: int, mode: str = "bilinear") -> Tensor:
    """Crop one aligned square from ``image`` ``(1, C, H, W)``, with anti-aliasing when the crop is smaller.

    Returns:
        ``(1, C, size, size)``; outside the image the border pixels are repeated.
    """
    back = invert(transform)
    patch, offset = _patch(image, back, size)
    shrink = float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    if shrink > 1.5:
        # Downscale with an anti-aliasing filter; the lookup below then needs no filter.
        height, width = (max(1, round(n / shrink)) for n in patch.shape[-2:])
        factor = torch.tensor([width / patch.shape[-1], height / patch.shape[-2]])
        patch = resize(patch, height, width)
    else:
        factor = torch.ones(2)
        patch = blur(patch, 0.35 * shrink) if shrink > 1.0 else patch
    matrix = torch.from_numpy(back).to(torch.float32)
    points = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    points = (points - torch.tensor(offset, dtype=torch.float32)) * factor
    return sample(patch, points.to(image.device), mode)


def _patch(image: Tensor, back: np.ndarray, size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut out the patch that a crop needs, so that a large image is not filtered as a whole.

    Returns:
        The patch ``(1, C, h, w)`` and the position ``(x, y)`` of its corner in the image.
    """
    corners = apply(back, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    pad = 4 * max(1.0, float(np.sqrt(abs(np.linalg.det(back[:, :2])))))
    height, width = image.shape[-2:]
    x0 = int(np.clip(np.floor(corners[:, 0].min() - pad), 0, width - 1))
    y0 = int(np.clip(np.floor(corners[:, 1].min() - pad), 0, height - 1))
    x1 = int(np.clip(np.ceil(corners[:, 0].max() + pad), x0 + 1, width))
    y1 = int(np.clip(np.ceil(corners[:, 1].max() + pad), y0 + 1, height))
    return image[..., y0:y1, x0:x1], (x0, y0)
