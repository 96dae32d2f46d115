"""The canonical face space as a surface in 3D, to determine what is visible on a rotated head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry.shape_model import ShapeFit
from .canonical import SIZE, CanonicalSpace, dilate
from .network import AppearanceModel
from .rotated import RotatedFace

RIM = 0.06
"""Margin of the surface beyond the jaw landmarks, in inter-ocular distances."""
_HAIRLINE_DEPTH = (-0.42, -0.16, 0.00, 0.05, 0.00, -0.16, -0.42)
"""Depth of the seven hairline points in IOD."""


def facing(appearance: AppearanceModel, fit: ShapeFit) -> Tensor:
    """Compute the cosine between surface normal and viewing direction at canonical pixels, ``(1, 1, 256, 256)``."""
    points = appearance.canonical.to_grid(
        with_hairline(appearance, appearance.shapes.shape(fit.coefficients)) @ fit.rotation.T
    )
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    cosine = normal[..., 2] / np.maximum(np.linalg.norm(normal, axis=-1), 1e-9)
    small = torch.from_numpy(cosine).float()[None, None]
    return torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def rotated_face(appearance: AppearanceModel, fit: ShapeFit, shape: np.ndarray) -> RotatedFace:
    """Make the canonical surface of a face with landmarks ``shape`` ``(68, 2)`` in IOD units."""
    anchors = with_hairline(appearance, appearance.shapes.shape(fit.coefficients))
    return RotatedFace(
        appearance.canonical,
        anchors,
        fit,
        shape,
        grid_triangles(appearance.canonical, len(appearance.canonical.to_grid(anchors))),
    )


def grid_triangles(canonical: CanonicalSpace, rows: int) -> np.ndarray:
    """Triangulate the canonical grid nodes on the face: ``(F, 3)``, counter-clockwise from outside."""
    nodes = np.linspace(0.5, SIZE - 0.5, rows).astype(int)
    inside = dilate(canonical.face, RIM)[0, 0].numpy()[nodes][:, nodes] > 0.5
    columns = rows
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    whole = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]
    # Rows run downward, so this order is counter-clockwise from the front.
    return np.concatenate([np.stack([a, c, b], -1)[whole], np.stack([b, c, d], -1)[whole]])


def with_hairline(appearance: AppearanceModel, points: np.ndarray, depth: bool = True) -> np.ndarray:
    """Append seven hairline points to points ``(68, 3)``, y up: ``(75, 3)``. Their z is 0 without ``depth``."""
    flat = points[:, :2] * [1, -1]
    carried = appearance.canonical.extend(flat)[68:] * [1, -1]
    forehead = np.concatenate([carried, np.array(_HAIRLINE_DEPTH)[:, None] * float(depth)], 1)
    return np.concatenate([points, forehead])
