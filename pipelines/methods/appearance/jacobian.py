"""How a recognizer answers to a change of a face: a linear forecast, learned from renderings, that guides the
search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canonical import REGIONS


@dataclass(frozen=True)
class EmbeddingJacobian:
    """Forecast of the shift of an embedding: ``sum_r texture_r A_r + moves B + embedding C + c``.

    Attributes:
        textures: A, region name to ``(K, D)``, on the difference between new and own texture code.
        moves: B, ``(136, D)``, on the landmarks' moves in IOD.
        own: C, ``(D, D)``, on the embedding of the untouched face.
        offset: c, ``(D,)``.
    """

    textures: dict[str, np.ndarray]
    moves: np.ndarray
    own: np.ndarray
    offset: np.ndarray

    def base(self, embedding: np.ndarray) -> np.ndarray:
        """The part that no choice changes, ``(D,)``."""
        return embedding @ self.own + self.offset

    def region(self, name: str, texture: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """The part of one region, ``(N, D)``, for texture differences ``(N, K)`` and moves ``(N, 68, 2)``."""
        return texture @ self.textures[name] + moves.reshape(len(moves), -1) @ self.moves

    @classmethod
    def silent(cls, components: dict[str, int], size: int) -> EmbeddingJacobian:
        """A forecast of nothing, for a model whose response is still to be learned."""
        zero = np.zeros
        return cls(
            {n: zero((k, size)) for n, k in components.items()}, zero((136, size)), zero((size, size)), zero(size)
        )

    def tensors(self) -> dict[str, Tensor]:
        """For a file: int8 rows with a scale each."""
        matrices = {
            **{f"{n}.response": m for n, m in self.textures.items()},
            "response.moves": self.moves,
            "response.own": self.own,
        }
        packed = {"response.offset": torch.from_numpy(self.offset).float()}
        for name, matrix in matrices.items():
            scale = np.maximum(np.abs(matrix).max(1) / 127, 1e-9)
            packed[name] = torch.from_numpy(np.round(matrix / scale[:, None])).to(torch.int8)
            packed[f"{name}_scale"] = torch.from_numpy(scale).float()
        return packed

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> EmbeddingJacobian:
        """The inverse of ``tensors``; KeyError where one is missing."""

        def matrix(name: str) -> np.ndarray:
            return (tensors[name].float() * tensors[f"{name}_scale"][:, None]).numpy()

        textures = {n: matrix(f"{n}.response") for n in REGIONS}
        return cls(textures, matrix("response.moves"), matrix("response.own"), tensors["response.offset"].numpy())
