"""A renderer in plain torch: batched, differentiable in everything but visibility, the same picture each time.

Triangles are sorted by the size of their boxes; every box of one size is tested pixel by pixel at once. The z-buffer
keeps, for each pixel, the least of ``depth bits << 32 | triangle``: one scatter, no race, and of two triangles at one
depth the first
one wins.
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

_SIDES = (0, 2, 3, 5, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_AT_ONCE = 1 << 22
"""Pixels tested in one go: bounds memory."""
_NOTHING = torch.iinfo(torch.int64).max
_NEAREST = 0.05
"""Triangles nearer to the camera plane are cut away."""


@dataclass(frozen=True)
class Rendering:
    """What the camera sees of N faces.

    Attributes:
        image: RGB ``(N, 3, S, S)``, not clamped, 0 where nothing is hit.
        mask: ``(N, 1, S, S)``, 1 where the mesh is hit.
        depth: distance from the camera plane ``(N, 1, S, S)`` in decimetres, 0 where nothing is hit.
        normals: unit vectors of the turned head ``(N, 3, S, S)``.
        uv: texture coordinates ``(N, 2, S, S)``.
        faces: the triangle at each pixel ``(N, S, S)``, -1 for none.
    """

    image: Tensor
    mask: Tensor
    depth: Tensor
    normals: Tensor
    uv: Tensor
    faces: Tensor


def render(model: MorphableModel, coefficients: Coefficients, size: int) -> Rendering:
    """Render N faces at ``size`` px; gradients reach the coefficients."""
    c = coefficients
    shape = model.vertices(c.identity, c.expression)
    placed = place(shape, c.angles, c.translation)
    normals = model.normals(placed)
    colours = model.colours(c.texture) * shading(normals, c.lighting)
    flat, depth = project(placed, size)
    with torch.no_grad():
        faces = rasterise(flat, depth, model.triangles, size, size)
    uv = model.uv.expand(len(flat), -1, -1)
    values = interpolate(torch.cat([colours, depth[..., None], normals, uv], -1), flat, depth, model.triangles, faces)
    image, distance, normal, where = values.split((3, 1, 3, 2), 1)
    return Rendering(
        image,
        (faces >= 0)[:, None].to(image.dtype),
        distance,
        torch.nn.functional.normalize(normal, dim=1),
        where,
        faces,
    )


def rasterise(flat: Tensor, depth: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """The nearest triangle at each pixel's centre, ``(N, H, W)``, -1 for none; triangles that turn their back are not
    seen.

    Args:
        flat: vertices in pixels ``(N, V, 2)``, y down.
        depth: their distances from the camera plane ``(N, V)``.
        triangles: ``(F, 3)``, counter-clockwise seen from outside.
    """
    count, faces = len(flat), len(triangles)
    order = triangles.reshape(-1)
    corners = flat.detach().index_select(1, order).reshape(-1, 3, 2)
    inverse = 1 / depth.detach().index_select(1, order).reshape(-1, 3)
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    limit = torch.tensor([width - 1, height - 1], device=flat.device)
    # A pixel's centre lies half a pixel inside: the first one at or after the box's corner, the last one at or before
    # it.
    low, high = torch.ceil(corners.amin(1) - 0.5).long(), torch.floor(corners.amax(1) - 0.5).long()
    seen = (
        (area < -1e-9)
        & ((inverse > 0) & (inverse < 1 / _NEAREST)).all(1)
        & ((high >= 0) & (low <= limit) & (low <= high)).all(1)
    )
    chosen = seen.nonzero()[:, 0]
    low, high = low[chosen].clamp(min=0), torch.minimum(high[chosen], limit)
    boxes = high - low + 1
    buffer = torch.full((count * height * width,), _NOTHING, dtype=torch.int64, device=flat.device)
    side = boxes.amax(1)
    # Sides grow by about half: fewer sizes would test more pixels outside of boxes, more of them cost calls.
    for smaller, larger in pairwise(_SIDES):
        members = ((side > smaller) & (side <= larger)).nonzero()[:, 0]
        for part in members.split(max(1, _AT_ONCE // larger**2)):
            pixel, key = _test(
                corners, inverse, area, chosen[part], low[part], high[part], larger, larger, faces, height, width
            )
            buffer.scatter_reduce_(0, pixel, key, "amin")
    nearest = torch.where(buffer == _NOTHING, -1, buffer & 0xFFFFFFFF)
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
    """Pixels that lie inside triangles with boxes of at most ``columns x rows``, and what they bring to the
    z-buffer."""
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
    near = inverse[owner]
    hit = (which, row, column)
    depth = 1 / (first[hit] * near[:, 0] + second[hit] * near[:, 1] + third[hit] * near[:, 2])
    picture = torch.div(owner, faces, rounding_mode="floor")
    pixel = (picture * height + y[which, row]) * width + x[which, column]
    # Bits of positive floats are ordered as the floats are.
    return pixel, (depth.float().view(torch.int32).long() << 32) | (owner - picture * faces)


def interpolate(values: Tensor, flat: Tensor, depth: Tensor, triangles: Tensor, faces: Tensor) -> Tensor:
    """Values at the vertices ``(N, V, C)``, carried to the pixels in true perspective: ``(N, C, H, W)``, 0 where
    nothing is hit.

    Differentiable in values, positions and depths; which triangle is seen is taken as given.

    Args:
        faces: from ``rasterise``.
    """
    count, height, width = faces.shape
    picture, y, x = (faces >= 0).nonzero(as_tuple=True)
    corner = triangles[faces[picture, y, x]] + (picture * flat.shape[1])[:, None]
    places = flat.reshape(-1, 2)
    a, b, c = (places.index_select(0, corner[:, i]) for i in range(3))
    at = torch.stack([x, y], -1) + 0.5

    def twice_area(p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    weights = (
        torch.stack([twice_area(b, c, at), twice_area(c, a, at), twice_area(a, b, at)], 1) / depth.reshape(-1)[corner]
    )
    weights = weights / weights.sum(1, keepdim=True)
    rows = values.reshape(-1, values.shape[-1])
    mixed = sum(
        (weights[:, i : i + 1] * rows.index_select(0, corner[:, i]) for i in range(1, 3)),
        weights[:, :1] * rows.index_select(0, corner[:, 0]),
    )
    out = mixed.new_zeros(count * height * width, values.shape[-1])
    out = out.index_copy(0, (picture * height + y) * width + x, mixed)
    return out.view(count, height, width, -1).movedim(-1, 1)
