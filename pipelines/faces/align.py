"""Crops of a face by an affine template, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .face import Face, eye_centres
from .sampling import blur, pixel_grid, resize, sample

ARCFACE_SIZE = 112
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Five points of the ArcFace alignment at 112 px: image-left eye, other eye, nose tip, mouth corners."""


@dataclass(frozen=True)
class Crop:
    """Aligned faces.

    Attributes:
        images: ``(N, 3, S, S)``.
        transforms: affine maps from the picture to the crop, ``(N, 2, 3)``, in pixels.
        masks: ``(N, 1, S, S)``, 1 where the face may be changed.
    """

    images: Tensor
    transforms: Tensor
    masks: Tensor


def five_points(points: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners ``(5, 2)`` from 68 landmarks."""
    left, right = eye_centres(points)
    return np.stack([left, right, points[30], points[48], points[54]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, uniform scale and shift ``(2, 3)`` that takes ``source`` to ``target`` (Umeyama 1991).

    Raises:
        ValueError: the source points coincide.
    """
    mu_s, mu_t = source.mean(0), target.mean(0)
    s, t = source - mu_s, target - mu_t
    variance = (s**2).sum()
    if variance < 1e-9:
        raise ValueError("the points coincide, so no similarity can be fitted")
    # In the plane the best rotation and scale are one complex number.
    a = (s * t).sum() / variance
    b = (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / variance
    linear = np.array([[a, -b], [b, a]])
    return np.concatenate([linear, (mu_t - linear @ mu_s)[:, None]], 1)


def invert(transform: np.ndarray) -> np.ndarray:
    """Inverse of an affine map ``(2, 3)``."""
    linear = np.linalg.inv(transform[:, :2])
    return np.concatenate([linear, -linear @ transform[:, 2:]], 1)


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Affine map ``(2, 3)`` of points ``(..., 2)``."""
    return points @ transform[:, :2].T + transform[:, 2]


def footprint(transform: np.ndarray, size: int, height: int, width: int) -> tuple[int, int, int, int]:
    """The upright window ``x0, y0, x1, y1`` of a picture that a crop of ``size`` pixels was taken from; empty when it
    lies outside."""
    corners = apply(invert(transform), np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int), 0, [width, height])
    return int(x0), int(y0), int(x1), int(y1)


def ffhq_transform(points: np.ndarray, size: int) -> np.ndarray:
    """The oriented square of the FFHQ data set (eyes and mouth decide), scaled to ``size`` pixels."""
    left, right = eye_centres(points)
    mouth = (points[48] + points[54]) / 2
    eye_to_eye, centre = right - left, (left + right) / 2
    eye_to_mouth = mouth - centre
    x = eye_to_eye - np.array([-eye_to_mouth[1], eye_to_mouth[0]])
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8) / np.hypot(*x)
    y = np.array([-x[1], x[0]])
    c = centre + eye_to_mouth * 0.1
    corners = np.stack([c - x - y, c - x + y, c + x + y])
    target = np.array([[0.0, 0.0], [0.0, size], [size, size]])
    return similarity(corners, target)


def arcface_transform(points: np.ndarray, size: int = ARCFACE_SIZE) -> np.ndarray:
    """The five-point alignment that recognisers of the ArcFace family expect."""
    return similarity(five_points(points), ARCFACE_TEMPLATE * (size / ARCFACE_SIZE))


def box_transform(box: tuple[float, float, float, float], size: int, margin: float = 0.5) -> np.ndarray:
    """An upright square around a box, enlarged by ``margin`` of its longer side."""
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1) * (1 + margin)
    scale = size / side
    return np.array([[scale, 0, size / 2 - scale * (x1 + x2) / 2], [0, scale, size / 2 - scale * (y1 + y2) / 2]])


def crop(image: Tensor, transform: np.ndarray, size: int, mode: str = "bilinear") -> Tensor:
    """Cut one aligned square out of ``image`` ``(1, C, H, W)``, anti-aliased when it shrinks.

    Returns:
        ``(1, C, size, size)``; outside the picture its border is repeated.
    """
    back = invert(transform)
    window, offset = _window(image, back, size)
    shrink = float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    if shrink > 1.5:
        # Halve the bulk with an exact prefilter, leave the rest to the lookup.
        height, width = (max(1, round(n / shrink)) for n in window.shape[-2:])
        factor = torch.tensor([width / window.shape[-1], height / window.shape[-2]])
        window = resize(window, height, width)
    else:
        factor = torch.ones(2)
        window = blur(window, 0.35 * shrink) if shrink > 1.0 else window
    matrix = torch.from_numpy(back).to(torch.float32)
    points = pixel_grid(size, size) @ matrix[:, :2].T + matrix[:, 2]
    points = (points - torch.tensor(offset, dtype=torch.float32)) * factor
    return sample(window, points.to(image.device), mode)


def _window(image: Tensor, back: np.ndarray, size: int) -> tuple[Tensor, tuple[int, int]]:
    """The part of the picture that a crop can see, so that a large photo is not filtered whole."""
    corners = apply(back, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    pad = 4 * max(1.0, float(np.sqrt(abs(np.linalg.det(back[:, :2])))))
    height, width = image.shape[-2:]
    x0 = int(np.clip(np.floor(corners[:, 0].min() - pad), 0, width - 1))
    y0 = int(np.clip(np.floor(corners[:, 1].min() - pad), 0, height - 1))
    x1 = int(np.clip(np.ceil(corners[:, 0].max() + pad), x0 + 1, width))
    y1 = int(np.clip(np.ceil(corners[:, 1].max() + pad), y0 + 1, height))
    return image[..., y0:y1, x0:x1], (x0, y0)


def crop_faces(image: Tensor, faces: list[Face], size: int, template: str = "ffhq") -> Crop:
    """Crop several faces of one picture ``(1, 3, H, W)``.

    Args:
        template: ``ffhq``, ``arcface`` or ``box`` (upright, needs no landmarks).
    """
    from .masks import ellipse_mask, hull_mask

    images, transforms, masks = [], [], []
    for face in faces:
        if template == "box" or not face.landmarks:
            transform = box_transform(face.box, size)
        else:
            transform = (arcface_transform if template == "arcface" else ffhq_transform)(face.points, size)
        images.append(crop(image, transform, size))
        if face.landmarks:
            masks.append(hull_mask(apply(transform, face.points), size, size, feather=size / 64))
        else:
            x1, y1, x2, y2 = face.box
            corners = apply(transform, np.array([[x1, y1], [x2, y2]]))
            masks.append(ellipse_mask((*corners[0], *corners[1]), size, size, feather=size / 64))
        transforms.append(torch.from_numpy(transform).to(torch.float32))
    if not images:
        return Crop(torch.zeros(0, 3, size, size), torch.zeros(0, 2, 3), torch.zeros(0, 1, size, size))
    return Crop(torch.cat(images), torch.stack(transforms), torch.cat(masks))
