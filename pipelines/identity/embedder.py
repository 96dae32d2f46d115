"""What every embedder is: it turns a face into a unit vector of its space."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from .calibration import calibration_of


class Embedder(ABC):
    """Turns a face into a unit vector; one at a time, on the CPU.

    Attributes:
        space: name of the space; vectors of different ones cannot be compared.
    """

    space: str

    @property
    def threshold(self) -> float:
        """L2 distance of unit vectors below which two faces are of one person.

        Raises:
            InputError: none is known for the space.
        """
        return calibration_of(self.space).threshold

    def embed(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        """Unit vector ``(D,)`` of the face with 68 landmarks ``(68, 2)`` in ``picture`` ``(1, 3, H, W)``."""
        vector = np.asarray(self._look(picture, points), dtype=np.float64)
        return vector / np.linalg.norm(vector)

    @abstractmethod
    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        """The network's answer ``(D,)``, of any length."""
