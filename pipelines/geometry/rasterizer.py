"""Find the nearest triangle at each pixel center, exactly: batched, deterministic, in plain PyTorch.

Corners are rounded to 1/256 px and the edge functions are computed in integers. A pixel center on the edge of two
triangles belongs to exactly one of them, so that a closed surface has no cracks.

Triangles are grouped by the size of their bounding boxes. All boxes of one size class are tested pixel by pixel in one
operation; larger boxes are divided into tiles, of which those beside the triangle are left out. The z-buffer keeps, for
each pixel, the minimum of ``depth bits << 32 | triangle index``. It needs one scatter operation and has no race
condition. Of two triangles at equal depth, the one with the lower index is visible.

With numba (``pip install 'faceveil[fast]'``) the same is done in a compiled loop on the CPU, with the same result.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.errors import InputError
from .rasterizer_fast import fill, is_available

SUBPIXELS = 256
"""Steps of a pixel to which corners are rounded."""
CENTER = SUBPIXELS // 2
MAX_COORDINATE = 1 << 20
"""Pixels. The products of larger coordinates would not fit into 64 bits."""
MIN_DISTANCE = 0.05
"""Minimum distance from the camera plane, in decimeters. Triangles with a closer vertex are not rendered."""
_BOX_SIZES = (0, 2, 3, 5, 8, 16, 32)
"""Limits of the size classes of bounding boxes in pixels. More classes need more calls, fewer test more pixels."""
_TILE = _BOX_SIZES[-1]
_MAX_PIXELS = 1 << 22
"""Maximum number of pixels that are tested in one operation, to limit memory."""
_EMPTY = torch.iinfo(torch.int64).max


class _Boxes(NamedTuple):
    """Boxes of pixels to test: the triangle of each ``(M,)``, its first and last pixel ``(M, 2)``."""

    owner: Tensor
    low: Tensor
    high: Tensor

    def rows(self, chosen: Tensor) -> _Boxes:
        return _Boxes(self.owner[chosen], self.low[chosen], self.high[chosen])


def rasterize(flat: Tensor, depth: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """Find the index of the nearest triangle at each pixel center, ``(N, H, W)``, -1 for none.

    Triangles that face away from the camera are culled.

    Args:
        flat: vertices in pixels ``(N, V, 2)``, y down.
        depth: distances of the vertices from the camera plane ``(N, V)``.
        triangles: ``(F, 3)``, counter-clockwise as seen from outside.
        height, width: size of the image in pixels.

    Raises:
        InputError: a vertex in front of the camera is more than a million pixels away from the image, or not finite.
    """
    count, faces = len(flat), len(triangles)
    order = triangles.reshape(-1)
    in_front = depth.detach() > MIN_DISTANCE
    # What is not in front of the camera is not rendered, wherever it is projected to.
    points = torch.where(in_front[..., None], flat.detach(), 0.0)
    if not bool((points.abs() <= MAX_COORDINATE).all()):
        raise InputError("a vertex lies too far outside of the image to be rendered; check pose and coefficients")
    vertices = (points * SUBPIXELS).round().long()
    # 0 where a vertex is not in front of the camera.
    reciprocal = (1 / torch.where(in_front, depth.detach(), torch.inf)).float()
    if is_available() and flat.device.type == "cpu":
        return fill(vertices, reciprocal, triangles, height, width)
    fixed = vertices.index_select(1, order).reshape(-1, 3, 2)
    inverse = reciprocal.index_select(1, order).reshape(-1, 3)
    area = -_cross(fixed[:, 1] - fixed[:, 0], fixed[:, 2] - fixed[:, 0])
    low, high = _first_pixel(fixed.amin(1)), _last_pixel(fixed.amax(1))
    limit = torch.tensor([width - 1, height - 1], device=flat.device)
    low, high = low.clamp(min=0), torch.minimum(high, limit)
    visible = (area > 0) & (inverse > 0).all(1) & (low <= high).all(1)
    owner = visible.nonzero()[:, 0]
    boxes = _Boxes(owner, low[owner], high[owner])
    buffer = torch.full((count * height * width,), _EMPTY, dtype=torch.int64, device=flat.device)
    side = (boxes.high - boxes.low + 1).amax(1)
    for smaller, larger in pairwise(_BOX_SIZES):
        members = ((side > smaller) & (side <= larger)).nonzero()[:, 0]
        _draw(buffer, fixed, inverse, area, boxes.rows(members), larger, faces, height, width)
    large = boxes.rows((side > _TILE).nonzero()[:, 0])
    if len(large.owner):
        _draw(buffer, fixed, inverse, area, _tiles(fixed, large), _TILE, faces, height, width)
    nearest = torch.where(buffer == _EMPTY, -1, buffer & 0xFFFFFFFF)
    return nearest.view(count, height, width)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _first_pixel(fixed: Tensor) -> Tensor:
    """The first pixel whose center is not before a coordinate."""
    return -torch.div(CENTER - fixed, SUBPIXELS, rounding_mode="floor")


def _last_pixel(fixed: Tensor) -> Tensor:
    """The last pixel whose center is not after a coordinate."""
    return torch.div(fixed - CENTER, SUBPIXELS, rounding_mode="floor")


def _tiles(fixed: Tensor, boxes: _Boxes) -> _Boxes:
    """Divide boxes into tiles, without those that lie beside an edge of their triangle."""
    counts = torch.div(boxes.high - boxes.low, _TILE, rounding_mode="floor") + 1
    total = counts.prod(1)
    which = torch.repeat_interleave(torch.arange(len(total), device=total.device), total)
    number = torch.arange(len(which), device=total.device) - (total.cumsum(0) - total)[which]
    columns = counts[which, 0]
    place = torch.stack([number % columns, torch.div(number, columns, rounding_mode="floor")], 1)
    low = boxes.low[which] + place * _TILE
    high = torch.minimum(low + _TILE - 1, boxes.high[which])
    owner = boxes.owner[which]
    corners = fixed[owner]
    keep = torch.ones(len(owner), dtype=torch.bool, device=total.device)
    first, last = low * SUBPIXELS + CENTER, high * SUBPIXELS + CENTER
    for i in range(3):
        start, run = corners[:, i], corners[:, (i + 1) % 3] - corners[:, i]
        # The edge function is linear: its largest value is at one of the tile's corners.
        across = torch.maximum(run[:, 1] * (first[:, 0] - start[:, 0]), run[:, 1] * (last[:, 0] - start[:, 0]))
        down = torch.minimum(run[:, 0] * (first[:, 1] - start[:, 1]), run[:, 0] * (last[:, 1] - start[:, 1]))
        keep &= across >= down
    return _Boxes(owner, low, high).rows(keep.nonzero()[:, 0])


def _draw(
    buffer: Tensor,
    fixed: Tensor,
    inverse: Tensor,
    area: Tensor,
    boxes: _Boxes,
    side: int,
    faces: int,
    height: int,
    width: int,
) -> None:
    """Test all pixels of boxes of at most ``side x side`` pixels, and keep the nearest triangles in the buffer."""
    for owner, low, high in zip(*(part.split(max(1, _MAX_PIXELS // side**2)) for part in boxes), strict=True):
        x = low[:, :1] + torch.arange(side, device=low.device)
        y = low[:, 1:] + torch.arange(side, device=low.device)
        edges = [_edge(fixed[owner], i, x, y) for i in range(3)]
        # The sign bit of the union is set where one of the three is negative.
        inside = (edges[0][0] | edges[1][0] | edges[2][0]) >= 0
        inside &= (x <= high[:, :1])[:, None, :] & (y <= high[:, 1:])[:, :, None]
        which, row, column = inside.nonzero(as_tuple=True)
        triangle = owner[which]
        # The weight of a corner is the value of the opposite edge.
        a, b, c = ((edges[i][0][which, row, column] + edges[i][1][which]).float() for i in (1, 2, 0))
        scaled = a * inverse[triangle, 0] + b * inverse[triangle, 1] + c * inverse[triangle, 2]
        depth = area[triangle].float() / scaled
        image = torch.div(triangle, faces, rounding_mode="floor")
        pixel = (image * height + y[which, row]) * width + x[which, column]
        # The bit patterns of positive floats have the same order as the floats.
        key = (depth.view(torch.int32).long() << 32) | (triangle - image * faces)
        buffer.scatter_reduce_(0, pixel, key, "amin")


def _edge(corners: Tensor, number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The edge function of pixels ``(M, rows, columns)``, at least 0 inside, and what was subtracted from it ``(M,)``.

    Where the edge does not own its pixels, 1 is subtracted: the triangle on its other side owns them.
    """
    start, run = corners[:, number], corners[:, (number + 1) % 3] - corners[:, number]
    foreign = ((run[:, 1] < 0) | ((run[:, 1] == 0) & (run[:, 0] > 0))).long()
    across = run[:, 1:] * (x * SUBPIXELS + CENTER - start[:, :1])
    down = run[:, :1] * (y * SUBPIXELS + CENTER - start[:, 1:])
    return (across - foreign[:, None])[:, None, :] - down[:, :, None], foreign
