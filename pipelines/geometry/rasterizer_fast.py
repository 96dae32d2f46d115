"""The loop of the rasterizer, compiled by numba where it is installed; see ``rasterizer``."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

_SUBPIXELS, _CENTER = 256, 128


@lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether numba is installed and works."""
    if find_spec("numba") is None:
        return False
    try:
        _compiled()
    except Exception as error:  # a numba that does not fit numpy fails in many ways
        log.warning("numba is installed but does not work (%s); faces are rendered without it", error)
        return False
    return True


def fill(vertices: Tensor, inverse: Tensor, triangles: Tensor, height: int, width: int) -> Tensor:
    """The nearest triangles ``(N, H, W)``, -1 for none.

    Args:
        vertices: in 1/256 px ``(N, V, 2)``.
        inverse: inverse depths ``(N, V)``, 0 for vertices that are not in front of the camera.
        triangles: ``(F, 3)``.
    """
    nearest = np.full((len(vertices), height, width), np.inf, np.float32)
    found = np.full(nearest.shape, -1, np.int64)
    _compiled()(vertices.numpy(), inverse.numpy(), triangles.numpy(), nearest, found)
    return torch.from_numpy(found)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., None]:
    import numba

    # Compiled code names the package that it was compiled in: inside ComfyUI another one than on the command line. Both
    # keep their files in one folder, by this name.
    _loop.__qualname__ = f"_loop_{zlib.crc32(__name__.encode()):08x}"
    try:
        loop: Callable[..., None] = numba.njit(cache=True)(_loop)
    except RuntimeError:
        # No folder is writable: it is compiled again in each process.
        loop = numba.njit(_loop)
    return loop


def _loop(
    vertices: np.ndarray, inverse: np.ndarray, triangles: np.ndarray, nearest: np.ndarray, found: np.ndarray
) -> None:
    height, width = nearest.shape[1:]
    for image in range(len(vertices)):
        for number in range(len(triangles)):
            a, b, c = triangles[number]
            x0, y0 = vertices[image, a]
            x1, y1 = vertices[image, b]
            x2, y2 = vertices[image, c]
            w0, w1, w2 = inverse[image, a], inverse[image, b], inverse[image, c]
            area = (y1 - y0) * (x2 - x0) - (x1 - x0) * (y2 - y0)
            if area <= 0 or w0 <= 0 or w1 <= 0 or w2 <= 0:
                continue
            left = max(0, -((_CENTER - min(x0, x1, x2)) // _SUBPIXELS))
            top = max(0, -((_CENTER - min(y0, y1, y2)) // _SUBPIXELS))
            right = min(width - 1, (max(x0, x1, x2) - _CENTER) // _SUBPIXELS)
            bottom = min(height - 1, (max(y0, y1, y2) - _CENTER) // _SUBPIXELS)
            foreign0 = 1 if (y1 < y0) or (y1 == y0 and x1 > x0) else 0
            foreign1 = 1 if (y2 < y1) or (y2 == y1 and x2 > x1) else 0
            foreign2 = 1 if (y0 < y2) or (y0 == y2 and x0 > x2) else 0
            whole, first = np.float32(area), left * _SUBPIXELS + _CENTER
            for y in range(top, bottom + 1):
                row = y * _SUBPIXELS + _CENTER
                edge0 = (y1 - y0) * (first - x0) - (x1 - x0) * (row - y0)
                edge1 = (y2 - y1) * (first - x1) - (x2 - x1) * (row - y1)
                edge2 = (y0 - y2) * (first - x2) - (x0 - x2) * (row - y2)
                for x in range(left, right + 1):
                    if edge0 >= foreign0 and edge1 >= foreign1 and edge2 >= foreign2:
                        depth = whole / (np.float32(edge1) * w0 + np.float32(edge2) * w1 + np.float32(edge0) * w2)
                        if depth < nearest[image, y, x]:
                            nearest[image, y, x] = depth
                            found[image, y, x] = number
                    edge0 += (y1 - y0) * _SUBPIXELS
                    edge1 += (y2 - y1) * _SUBPIXELS
                    edge2 += (y0 - y2) * _SUBPIXELS
