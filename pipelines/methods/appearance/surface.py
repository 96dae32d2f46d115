"""The canonical face space as a surface in 3D: what a rotated head shows of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry.shape_model import ShapeFit
from .canonical import SIZE, CanonicalSpace, dilate
from .network import AppearanceModel
from .rotated import RotatedFace

RIM = 0.06
"""How far the surface goes beyond the jaw's landmarks, in inter-ocular distances."""
_HAIRLINE_DEPTH = (-0.42, -0.16, 0.00, 0.05, 0.00, -0.16, -0.42)


def facing(appearance: AppearanceModel, fit: ShapeFit) -> Tensor:
    """How squarely each pixel of the frame faces the viewer of ``fit``: cosine in [-1, 1], ``(1, 1, 256, 256)``."""
    points = appearance.frame.lift(
        with_hairline(appearance, appearance.shapes.shape(fit.coefficients)) @ fit.rotation.T
    )
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    cosine = normal[..., 2] / np.maximum(np.linalg.norm(normal, axis=-1), 1e-9)
    small = torch.from_numpy(cosine).float()[None, None]
    return torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def rotated_face(appearance: AppearanceModel, fit: ShapeFit, shape: np.ndarray) -> RotatedFace:
    """The frame's surface on a face with landmarks ``shape`` ``(68, 2)`` in IOD units."""
    anchors = with_hairline(appearance, appearance.shapes.shape(fit.coefficients))
    return RotatedFace(
        appearance.frame, anchors, fit, shape, grid_triangles(appearance.frame, len(appearance.frame.lift(anchors)))
    )


def grid_triangles(frame: CanonicalSpace, rows: int) -> np.ndarray:
    """Triangles ``(F, 3)`` over the nodes of the frame's grid that lie on the face, counter-clockwise from outside."""
    place = np.linspace(0.5, SIZE - 0.5, rows).astype(int)
    inside = dilate(frame.face, RIM)[0, 0].numpy()[place][:, place] > 0.5
    columns = rows
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    whole = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]
    # Rows run downwards, so this order is counter-clockwise seen from the front.
    return np.concatenate([np.stack([a, c, b], -1)[whole], np.stack([b, c, d], -1)[whole]])


def with_hairline(appearance: AppearanceModel, points: np.ndarray, depth: bool = True) -> np.ndarray:
    """Add the seven hairline points to 68 points in space, ``(75, 3)``, y up."""
    flat = points[:, :2] * [1, -1]
    carried = appearance.frame.extend(flat)[68:] * [1, -1]
    forehead = np.concatenate([carried, np.array(_HAIRLINE_DEPTH)[:, None] * float(depth)], 1)
    return np.concatenate([points, forehead])
