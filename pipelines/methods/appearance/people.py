"""The people of the training set as codes: strangers whose faces are natural because somebody has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canonical import REGIONS

_LIMIT = 3.5
"""Limit of the absolute value of stored codes."""


@dataclass(frozen=True)
class People:
    """Residual codes and traits of synthetic people, one row each.

    Attributes:
        codes: region name to residual codes ``z``, ``(N, Z)``.
        traits: the standardized attributes that belong to a person, ``(N, T)``.
    """

    codes: dict[str, np.ndarray]
    traits: np.ndarray

    def __len__(self) -> int:
        return len(self.traits)

    @classmethod
    def of(cls, codes: dict[str, np.ndarray], traits: np.ndarray) -> People:
        """Clamp the codes to their limit."""
        return cls({name: np.clip(z, -_LIMIT, _LIMIT) for name, z in codes.items()}, traits)

    def tensors(self) -> dict[str, Tensor]:
        """Convert to tensors for a file: int8 codes and half-precision traits."""
        codes = {
            f"people.{name}": torch.from_numpy(np.round(z * (127 / _LIMIT))).to(torch.int8)
            for name, z in self.codes.items()
        }
        return codes | {"people.traits": torch.from_numpy(self.traits).half()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> People:
        """Invert ``tensors``.

        Raises:
            KeyError: a tensor is missing.
        """
        codes = {name: (tensors[f"people.{name}"].float() * (_LIMIT / 127)).numpy() for name in REGIONS}
        return cls(codes, tensors["people.traits"].float().numpy())
