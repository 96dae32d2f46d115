"""Embedding Jacobian: a linear forecast of how a recognizer's embedding changes with the face.

The recognizers that a model holds forecasts of are its guides: the search follows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canonical import REGIONS

GUIDES = {"dlib": 128, "faceveil": 256}
"""Name and dimension of each guide."""


@dataclass(frozen=True)
class EmbeddingJacobian:
    """Linear forecast of the change of an embedding: ``sum_r texture_r A_r + moves B + embedding C + c``.

    It is trained on renderings.

    Attributes:
        textures: A, region name to ``(K, D)``; multiplies the new texture code minus the original one.
        moves: B, ``(136, D)``; multiplies the landmark displacements in IOD.
        original: C, ``(D, D)``; multiplies the embedding of the original face.
        offset: c, ``(D,)``.
    """

    textures: dict[str, np.ndarray]
    moves: np.ndarray
    original: np.ndarray
    offset: np.ndarray

    def base(self, embedding: np.ndarray) -> np.ndarray:
        """Compute the part that depends only on the original face, ``(D,)``."""
        return embedding @ self.original + self.offset

    def region(self, name: str, texture: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """Compute one region's part ``(N, D)`` from texture differences ``(N, K)`` and displacements ``(N, 68, 2)``."""
        return texture @ self.textures[name] + moves.reshape(len(moves), -1) @ self.moves

    @classmethod
    def zeros(cls, components: dict[str, int], size: int) -> EmbeddingJacobian:
        """Make a Jacobian of zeros, as a placeholder until it is trained."""
        zero = np.zeros
        return cls(
            {n: zero((k, size)) for n, k in components.items()}, zero((136, size)), zero((size, size)), zero(size)
        )

    def tensors(self, guide: str) -> dict[str, Tensor]:
        """Convert to tensors of one guide for a file: int8 matrices with one scale per row."""
        matrices = {
            **{f"{guide}.response.{n}": m for n, m in self.textures.items()},
            f"{guide}.response.moves": self.moves,
            f"{guide}.response.original": self.original,
        }
        packed = {f"{guide}.response.offset": torch.from_numpy(self.offset).float()}
        for name, matrix in matrices.items():
            scale = np.maximum(np.abs(matrix).max(1) / 127, 1e-9)
            packed[name] = torch.from_numpy(np.round(matrix / scale[:, None])).to(torch.int8)
            packed[f"{name}_scale"] = torch.from_numpy(scale).float()
        return packed

    @classmethod
    def of(cls, tensors: dict[str, Tensor], guide: str) -> EmbeddingJacobian:
        """Invert ``tensors``.

        Raises:
            KeyError: a tensor is missing.
        """

        def matrix(name: str) -> np.ndarray:
            return (tensors[name].float() * tensors[f"{name}_scale"][:, None]).numpy()

        prefix = f"{guide}.response"
        textures = {n: matrix(f"{prefix}.{n}") for n in REGIONS}
        offset = tensors[f"{prefix}.offset"].numpy()
        return cls(textures, matrix(f"{prefix}.moves"), matrix(f"{prefix}.original"), offset)
