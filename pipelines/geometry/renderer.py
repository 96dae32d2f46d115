"""A renderer in plain PyTorch: batched, deterministic, and differentiable in everything except visibility."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .camera import place, project
from .coefficients import Coefficients
from .lighting import shading
from .morphable import MorphableModel
from .rasterizer import rasterize


@dataclass(frozen=True)
class Rendering:
    """Rendered images and maps of N faces.

    Attributes:
        image: RGB ``(N, 3, S, S)``, not clamped, 0 in the background.
        mask: ``(N, 1, S, S)``, 1 on the mesh, 0 in the background.
        depth: distance from the camera plane ``(N, 1, S, S)`` in decimeters, 0 in the background.
        normals: unit normals of the rotated head in world axes ``(N, 3, S, S)``, 0 in the background.
        uv: texture coordinates ``(N, 2, S, S)``, 0 in the background.
        faces: index of the triangle at each pixel ``(N, S, S)``, -1 in the background.
    """

    image: Tensor
    mask: Tensor
    depth: Tensor
    normals: Tensor
    uv: Tensor
    faces: Tensor


def render(model: MorphableModel, coefficients: Coefficients, size: int) -> Rendering:
    """Render N faces at ``size`` px, differentiable with respect to the coefficients."""
    c = coefficients
    shape = model.vertices(c.identity, c.expression)
    placed = place(shape, c.angles, c.translation)
    normals = model.normals(placed)
    colors = model.colors(c.texture) * shading(normals, c.lighting)
    flat, depth = project(placed, size)
    with torch.no_grad():
        faces = rasterize(flat, depth, model.triangles, size, size)
    uv = model.uv.expand(len(flat), -1, -1)
    values = interpolate(torch.cat([colors, depth[..., None], normals, uv], -1), flat, depth, model.triangles, faces)
    image, distance, normal, where = values.split((3, 1, 3, 2), 1)
    return Rendering(
        image,
        (faces >= 0)[:, None].to(image.dtype),
        distance,
        torch.nn.functional.normalize(normal, dim=1),
        where,
        faces,
    )


def interpolate(values: Tensor, flat: Tensor, depth: Tensor, triangles: Tensor, faces: Tensor) -> Tensor:
    """Interpolate vertex values at pixels with perspective correction: ``(N, C, H, W)``, 0 in the background.

    Differentiable with respect to values, positions and depths. Visibility is given by ``faces`` and held fixed.

    Args:
        values: vertex values ``(N, V, C)``.
        flat: vertices in pixels ``(N, V, 2)``, y down.
        depth: distances of the vertices from the camera plane ``(N, V)``.
        triangles: ``(F, 3)``.
        faces: triangle indices from ``rasterize``, ``(N, H, W)``.
    """
    count, height, width = faces.shape
    image_index, y, x = (faces >= 0).nonzero(as_tuple=True)
    corner = triangles[faces[image_index, y, x]] + (image_index * flat.shape[1])[:, None]
    positions = flat.reshape(-1, 2)
    a, b, c = (positions.index_select(0, corner[:, i]) for i in range(3))
    center = torch.stack([x, y], -1) + 0.5

    def twice_area(p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    weights = (
        torch.stack([twice_area(b, c, center), twice_area(c, a, center), twice_area(a, b, center)], 1)
        / depth.reshape(-1)[corner]
    )
    weights = weights / weights.sum(1, keepdim=True)
    rows = values.reshape(-1, values.shape[-1])
    mixed = sum(
        (weights[:, i : i + 1] * rows.index_select(0, corner[:, i]) for i in range(1, 3)),
        weights[:, :1] * rows.index_select(0, corner[:, 0]),
    )
    out = mixed.new_zeros(count * height * width, values.shape[-1])
    out = out.index_copy(0, (image_index * height + y) * width + x, mixed)
    return out.view(count, height, width, -1).movedim(-1, 1)
