"""A renderer in plain PyTorch: batched, deterministic, and differentiable in everything except visibility.

Triangles are grouped by the size of their bounding boxes. All boxes of one size class are tested pixel by pixel in one
operation. The z-buffer keeps, for each pixel, the minimum of ``depth bits << 32 | triangle index``. It needs one
scatter operation and has no race condition. Of two triangles at equal depth, the one with the lower index is visible.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .camera import place, project
from .coefficients import Coefficients
from .lighting import shading
from .morphable import MorphableModel

_BOX_SIZES = (0, 2, 3, 5, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Limits of the size classes of bounding boxes, in pixels."""
_MAX_PIXELS = 1 << 22
"""Maximum number of pixels that are tested in one operation, to limit memory."""
_EMPTY = torch.iinfo(torch.int64).max
_MIN_DISTANCE = 0.05
"""Minimum distance from the camera plane, in decimeters. Triangles with a closer vertex are not rendered."""


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


def rasterize(flat: Tensor, depth: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Find the index of the nearest triangle at each pixel center, ``(N, H, W)``, -1 for none.

    Triangles that face away from the camera are culled.

    Args:
        flat: vertices in pixels ``(N, V, 2)``, y down.
        depth: distances of the vertices from the camera plane ``(N, V)``.
        triangles: ``(F, 3)``, counter-clockwise as seen from outside.
        height, width: size of the image in pixels.
    """
    count, faces = len(flat), len(triangles)
    order = triangles.reshape(-1)
    corners = flat.detach().index_select(1, order).reshape(-1, 3, 2)
    inverse = 1 / depth.detach().index_select(1, order).reshape(-1, 3)
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    limit = torch.tensor([width - 1, height - 1], device=flat.device)
    # Pixel centers are at index + 0.5. Take the first center at or after the minimum corner of the box, and the last
    # center at or before its maximum corner.
    low, high = torch.ceil(corners.amin(1) - 0.5).long(), torch.floor(corners.amax(1) - 0.5).long()
    visible = (
        (area < -1e-9)
        & ((inverse > 0) & (inverse < 1 / _MIN_DISTANCE)).all(1)
        & ((high >= 0) & (low <= limit) & (low <= high)).all(1)
    )
    chosen = visible.nonzero()[:, 0]
    low, high = low[chosen].clamp(min=0), torch.minimum(high[chosen], limit)
    boxes = high - low + 1
    buffer = torch.full((count * height * width,), _EMPTY, dtype=torch.int64, device=flat.device)
    side = boxes.amax(1)
    # Fewer size classes would test more pixels outside the boxes; more size classes would need more calls.
    for smaller, larger in pairwise(_BOX_SIZES):
        members = ((side > smaller) & (side <= larger)).nonzero()[:, 0]
        for part in members.split(max(1, _MAX_PIXELS // larger**2)):
            pixel, key = _test(
                corners, inverse, area, chosen[part], low[part], high[part], larger, larger, faces, height, width
            )
            buffer.scatter_reduce_(0, pixel, key, "amin")
    nearest = torch.where(buffer == _EMPTY, -1, buffer & 0xFFFFFFFF)
    return nearest.view(count, height, width)


def _test(
    corners: Tensor,
    inverse: Tensor,
    area: Tensor,
    chosen: Tensor,
    low: Tensor,
    high: Tensor,
    columns: int,
    rows: int,
    faces: int,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Find the pixels inside triangles whose boxes have at most ``columns x rows`` pixels.

    Returns:
        Flat pixel indices into the batch, and the z-buffer keys of these pixels: ``depth bits << 32 | triangle index``.
    """
    x = low[:, :1] + torch.arange(columns, device=low.device)
    y = low[:, 1:] + torch.arange(rows, device=low.device)
    a, b, c = corners[chosen].unbind(1)
    scale = 1 / area[chosen]

    def weight(start: Tensor, end: Tensor) -> Tensor:
        run = (end - start) * scale[:, None]
        across = run[:, 1:] * (x + 0.5 - start[:, :1])
        down = run[:, :1] * (y + 0.5 - start[:, 1:])
        return down[:, :, None] - across[:, None, :]

    first, second = weight(b, c), weight(c, a)
    third = 1 - first - second
    inside = torch.minimum(torch.minimum(first, second), third) >= 0
    inside &= (x <= high[:, :1])[:, None, :] & (y <= high[:, 1:])[:, :, None]
    which, row, column = inside.nonzero(as_tuple=True)
    owner = chosen[which]
    inverse_depth = inverse[owner]
    hit = (which, row, column)
    depth = 1 / (
        first[hit] * inverse_depth[:, 0] + second[hit] * inverse_depth[:, 1] + third[hit] * inverse_depth[:, 2]
    )
    image_index = torch.div(owner, faces, rounding_mode="floor")
    pixel = (image_index * height + y[which, row]) * width + x[which, column]
    # The bit patterns of positive floats have the same order as the floats.
    return pixel, (depth.float().view(torch.int32).long() << 32) | (owner - image_index * faces)


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
