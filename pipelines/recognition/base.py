"""The one interface of all face recognizers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..faces.face import Face
from .thresholds import MAX_DISTANCE, Threshold, threshold_of

EMBEDDED_AT_ONCE = 8
"""Faces between two calls of the progress callback."""


class FaceRecognizer(ABC):
    """Turns a face into an embedding; a smaller distance of two embeddings means more alike.

    Attributes:
        name: of the recognizer and of its embedding space; embeddings of different ones cannot be compared.
        dimension: D, the length of an embedding.
        alignment: how the face is cut out, such as ``arcface-112``.
        mean_length: mean length of an embedding; 1 where the network's embeddings are normalized.
    """

    name: str
    dimension: int
    alignment: str
    mean_length: ClassVar[float] = 1.0
    _measured: float | None = None

    @abstractmethod
    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        """Embed one face of each image.

        Args:
            images: N images ``(1, 3, H, W)``, RGB in [0, 1], of any sizes.
            landmarks: of one face in each, ``(68, 2)`` in pixels.

        Returns:
            ``(N, D)``, float64, of mean length ``mean_length``.
        """

    def embed(self, image: Tensor, landmarks: np.ndarray) -> np.ndarray:
        """The embedding ``(D,)`` of the face with ``landmarks`` ``(68, 2)`` in ``image`` ``(1, 3, H, W)``."""
        return np.asarray(self.embed_many([image], [landmarks])[0])

    def embed_faces(self, images: Tensor, faces: Sequence[Face], progress: Progress = silent) -> np.ndarray:
        """Embeddings ``(N, D)`` of at least one face with landmarks in a batch ``(B, 3, H, W)``.

        Args:
            progress: called before each group of ``EMBEDDED_AT_ONCE`` faces.
        """
        rows = []
        for first in range(0, len(faces), EMBEDDED_AT_ONCE):
            progress(first, len(faces), "embedding faces")
            some = faces[first : first + EMBEDDED_AT_ONCE]
            rows.append(self.embed_many([images[f.image : f.image + 1] for f in some], [f.points for f in some]))
        return np.concatenate(rows)

    def threshold_at(self, false_match_rate: float | None = None) -> Threshold:
        """The L2 distance of two unit vectors below which they show one person.

        Args:
            false_match_rate: the nearest known rate is taken; the recognizer's recommended threshold when omitted.

        Raises:
            InputError: no threshold is known for this recognizer.
        """
        if self._measured is not None:
            return Threshold(self._measured, None, "given by the user")
        return self._known_threshold(false_match_rate)

    def with_threshold(self, distance: float) -> Self:
        """A copy with a threshold that the user measured, as ``faceveil calibrate`` prints it.

        Args:
            distance: of two embeddings, as ``distance`` gives it, between 0 and 2 mean lengths.

        Raises:
            InputError: the distance is out of range.
        """
        limit = MAX_DISTANCE * self.mean_length
        if not 0 < distance < limit:
            raise InputError(f"the threshold of {self.name} must be between 0 and {limit:g}, got {distance:g}")
        changed = copy.copy(self)
        changed._measured = distance / self.mean_length
        return changed

    def _known_threshold(self, false_match_rate: float | None) -> Threshold:
        return threshold_of(self.name, false_match_rate)

    @property
    def threshold(self) -> float:
        """Distance of two embeddings, as ``distance`` gives it, below which they show one person.

        Raises:
            InputError: no threshold is known for this recognizer.
        """
        return self.threshold_at().distance * self.mean_length

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """L2 distance of two embeddings ``(D,)``."""
        return float(np.linalg.norm(a - b))


class TorchRecognizer(FaceRecognizer):
    """A recognizer whose network runs in torch; subclasses set ``_network`` and cut out the faces."""

    _network: torch.nn.Module

    @abstractmethod
    def crop(self, image: Tensor, landmarks: np.ndarray) -> Tensor:
        """The aligned square ``(1, 3, S, S)`` in [0, 1]."""

    @abstractmethod
    def embed_crops(self, crops: Tensor) -> Tensor:
        """Unit vectors ``(N, D)`` of aligned squares ``(N, 3, S, S)`` in [0, 1]."""

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        if not images:
            return np.zeros((0, self.dimension))
        crops = torch.cat([self.crop(image, points) for image, points in zip(images, landmarks, strict=True)])
        device = next(self._network.parameters()).device
        with torch.no_grad():
            return self.embed_crops(crops.to(device)).double().cpu().numpy()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors ``(..., D)`` scaled to unit length, as float64."""
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)
