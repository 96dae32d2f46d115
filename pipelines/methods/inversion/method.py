"""Anonymization by inversion as a method: an aligned square goes through the pipeline and comes back over the face.

``strength`` maps to guidance and skip as ``dials`` says: 1 is the authors' setting. An identity is the seed of the
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import CannotReplace, InputError
from ...core.progress import Progress, silent
from ...faces.align import apply, crop, ffhq_transform
from ...faces.face import Face, inter_ocular
from ...faces.masks import hull_mask
from ...faces.regions import region_masks
from ...identity.identity import Identity
from ...recognition.arcface import SPACE
from ...recognition.base import FaceRecognizer
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .embedding import within_angle
from .pipeline import InversionPipeline

NAME = "inversion"
GROW, FEATHER = 0.10, 0.07
"""The pasted face reaches this far beyond the landmarks' outline, and fades over this, in inter-ocular distances."""
KEEPABLE = ("eyes", "nose", "mouth", "skin")
"""Regions that can be kept."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face.

    Attributes:
        square: the aligned face ``(1, 3, S, S)``.
        transform: from the image to the square, ``(2, 3)``.
        view: the face in its image.
        embedding: of the face by the adapter's recognizer, a unit vector ``(D,)``.
    """

    square: Tensor
    transform: np.ndarray
    view: View
    embedding: np.ndarray


class InversionMethod:
    """See ``Method``.

    Args:
        pipeline: with the networks of the checkpoint.
        recognizer: whose embeddings the adapter takes.
        size: S, side of the aligned square in pixels; a multiple of 8.
        keep: regions that do not change, of ``KEEPABLE``.
        angle: the embedding is turned by up to this many degrees, by the seed.

    Raises:
        InputError: the recognizer belongs to another space, or a region is unknown.
    """

    name = NAME

    def __init__(
        self,
        pipeline: InversionPipeline,
        recognizer: FaceRecognizer,
        size: int,
        keep: Sequence[str] = (),
        angle: float = 0.0,
    ) -> None:
        if recognizer.name != SPACE:
            raise InputError(f"inversion needs embeddings of {SPACE}, got {recognizer.name}; use w600k_r50.onnx")
        if unknown := [region for region in keep if region not in KEEPABLE]:
            raise InputError(f"the region {unknown[0]} is not one of {', '.join(KEEPABLE)}")
        self.pipeline, self.recognizer, self.size = pipeline, recognizer, size
        self.keep, self.angle = tuple(keep), angle

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        points = view.face.points
        transform = ffhq_transform(points, self.size)
        embedding = self.recognizer.embed(view.image, points)
        # Without it there is nothing to move away from.
        if not np.isfinite(embedding).all() or not np.linalg.norm(embedding) > 0:
            raise CannotReplace(f"{self.recognizer.name} found no embedding of it")
        return Prepared(crop(view.image, transform, self.size), transform, view, embedding)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        # The noise decides which of the people unlike this one appears.
        return MethodIdentity(NAME, seed)

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        raise InputError("inversion moves away from a person and shows no given identity; use another method for that")

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        seed = identity.of(NAME).seed
        points, image = prepared.view.face.points, prepared.view.image
        inside = apply(prepared.transform, points)
        mask = hull_mask(inside, self.size, self.size, grow=GROW, feather=FEATHER * inter_ocular(inside))
        if strength == 0:
            return pasted(image, prepared.transform, prepared.square, torch.zeros_like(mask), points)
        away = torch.from_numpy(within_angle(prepared.embedding, self.angle, seed)).float()[None]
        changing = self._changing(prepared.square, inside)
        square = self.pipeline.anonymize(prepared.square, away, strength, [seed], changing, progress)
        return pasted(image, prepared.transform, square, mask, points)

    def _changing(self, square: Tensor, points: np.ndarray) -> Tensor | None:
        """1 where the face may change, ``(1, 1, S, S)``; None where it may everywhere."""
        if not self.keep:
            return None
        return 1 - torch.stack(list(region_masks(square, points, self.keep).values())).amax(0)
