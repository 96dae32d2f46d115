"""Convert reflectance detail to one vector per region and symmetry half, and back.

A resize is linear and separable, so it is one product with a matrix for the rows and one for the columns.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ...imaging.resample import resize
from .canonical import REGIONS, SIZE, CanonicalSpace, enlarging

LUMA_SIZE = {"eyes": 256, "nose": 256, "mouth": 256, "base": 192}
CHROMA_SIZE = 64


class Packer:
    """Converts the detail of a canonical space."""

    def __init__(self, canonical: CanonicalSpace) -> None:
        dilated = F.max_pool2d((canonical.face > 0.5).float(), 7, 1, 3)
        self.weights = canonical.regions
        self._luma = {n: _used(self.weights[n] * dilated, LUMA_SIZE[n]) for n in REGIONS}
        self._chroma = {n: _used(self.weights[n] * dilated, CHROMA_SIZE) for n in REGIONS}

    def chroma_weight(self, name: str) -> float:
        """Compute the factor of chroma values. Its square is the number of luma pixels per chroma pixel."""
        return LUMA_SIZE[name] / CHROMA_SIZE

    def pack(self, detail: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Compute the symmetric and antisymmetric half ``(P,)`` of each region of detail ``(1, 3, 256, 256)``."""
        luma = detail[0].mean(0, keepdim=True)
        chroma = detail[0, ::2] - luma
        # Weight bright pixels more, so that dark lashes do not change the color of the eyelids.
        trust = torch.exp(2.5 * luma.clamp(-1.5, 0.6))
        trusted, trust_small = chroma * trust, _shrunk(trust, CHROMA_SIZE)
        packed = {}
        for name in REGIONS:
            weight = self.weights[name][0]
            y = _shrunk(luma * weight, LUMA_SIZE[name])
            c = _shrunk(trusted * weight, CHROMA_SIZE) / trust_small * self.chroma_weight(name)
            symmetric, antisymmetric = (
                torch.cat([_taken(part_y, self._luma[name])[0], _taken(part_c, self._chroma[name]).T.reshape(-1)])
                for part_y, part_c in zip(_split_mirror(y), _split_mirror(c), strict=True)
            )
            packed[name] = symmetric, antisymmetric
        return packed

    def unpack(self, halves: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Invert ``pack``; returns ``(1, 3, 256, 256)``."""
        luma, chroma = torch.zeros(1, SIZE, SIZE), torch.zeros(2, CHROMA_SIZE, CHROMA_SIZE)
        for name, (symmetric, antisymmetric) in halves.items():
            count, used = len(self._luma[name]), LUMA_SIZE[name]
            y = _whole(*(_placed(half[:count, None], self._luma[name], used) for half in (symmetric, antisymmetric)))
            luma += _enlarged(y, "bicubic")
            pairs = (half[count:].reshape(-1, 2) for half in (symmetric, antisymmetric))
            c = _whole(*(_placed(half, self._chroma[name], CHROMA_SIZE) for half in pairs))
            chroma += c / self.chroma_weight(name)
        red, blue = luma + _enlarged(chroma, "bilinear")
        green = 3 * luma[0] - red - blue
        return torch.stack([red, green, blue])[None]

    def luma_gradient(self, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Derivative of ``(weight * luma).sum()`` of ``unpack`` with respect to both halves ``(P,)`` of a region.

        Args:
            weight: of each canonical pixel, ``(256, 256)``.
        """
        size = LUMA_SIZE[name]
        if size != SIZE:
            up = enlarging(size, SIZE, "bicubic", False)
            weight = up.T @ weight @ up
        right, left = weight[None, :, size // 2 :], weight[None, :, : size // 2].flip(-1)
        chroma = torch.zeros(2 * len(self._chroma[name]))
        symmetric, antisymmetric = (
            torch.cat([_taken(half, self._luma[name])[0], chroma]) for half in (right + left, right - left)
        )
        return symmetric, antisymmetric


@lru_cache(maxsize=8)
def _shrinking(size: int) -> Tensor:
    """The matrix ``(size, 256)`` that shrinks rows without aliasing."""
    return resize(torch.eye(SIZE)[None, None], size, SIZE)[0, 0]


def _shrunk(planes: Tensor, size: int) -> Tensor:
    """Planes ``(C, 256, 256)`` at a smaller size."""
    if size == SIZE:
        return planes
    matrix = _shrinking(size)
    return matrix @ planes @ matrix.T


def _enlarged(planes: Tensor, mode: str) -> Tensor:
    """Square planes ``(C, size, size)`` as ``(C, 256, 256)``."""
    if planes.shape[-1] == SIZE:
        return planes
    matrix = enlarging(planes.shape[-1], SIZE, mode, False)
    return matrix @ planes @ matrix.T


def _used(weight: Tensor, size: int) -> Tensor:
    """Indices of the pixels of a right half ``(size, size // 2)`` in which a region has a weight."""
    small = resize(weight, size, size)[0, 0, :, size // 2 :]
    return (small > 0.03).reshape(-1).nonzero()[:, 0]


def _split_mirror(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The right halves ``(C, size, size // 2)`` of the symmetric and the antisymmetric part."""
    middle = planes.shape[-1] // 2
    right, left = planes[..., middle:], planes[..., :middle].flip(-1)
    return (right + left) / 2, (right - left) / 2


def _whole(symmetric: Tensor, antisymmetric: Tensor) -> Tensor:
    return torch.cat([(symmetric - antisymmetric).flip(-1), symmetric + antisymmetric], -1)


def _taken(planes: Tensor, indices: Tensor) -> Tensor:
    """The values ``(C, P)`` of planes at pixels."""
    return planes.reshape(len(planes), -1).index_select(1, indices)


def _placed(values: Tensor, indices: Tensor, size: int) -> Tensor:
    """Planes ``(C, size, size // 2)`` with values ``(P, C)`` at pixels."""
    planes = torch.zeros(values.shape[1], size * size // 2)
    planes.index_copy_(1, indices, values.T)
    return planes.view(-1, size, size // 2)
