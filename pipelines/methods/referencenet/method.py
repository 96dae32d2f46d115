"""Face Anonymization Made Simple as a method: an aligned square goes through the pipeline and comes back over the face.

``strength`` 1 is the recommended degree d = 1.25, 1.5 is d = 1.875; 0 is the photo. An identity is the seed of the
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import apply, crop, ffhq_transform
from ...faces.face import Face, inter_ocular
from ...faces.masks import hull_mask
from ...identity.identity import Identity
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .pipeline import DEGREE, GUIDANCE, STEPS, ReferenceNetPipeline

NAME = "referencenet"
SIDE = 512
"""The pipeline was trained on squares of this many pixels."""
GROW, FEATHER = 0.10, 0.07
"""The pasted face reaches this far beyond the landmarks' outline, and fades over this, in inter-ocular distances."""


@dataclass(frozen=True)
class Prepared:
    """A face's aligned square ``(1, 3, 512, 512)``, how it was cut, and the image it belongs to."""

    square: Tensor
    transform: np.ndarray
    view: View


class ReferenceNetMethod:
    """See ``Method``.

    Args:
        steps, guidance: as for ``ReferenceNetPipeline.anonymize``.
    """

    name = NAME

    def __init__(self, pipeline: ReferenceNetPipeline, steps: int = STEPS, guidance: float = GUIDANCE) -> None:
        self.pipeline, self.steps, self.guidance = pipeline, steps, guidance

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        transform = ffhq_transform(view.face.points, SIDE)
        return Prepared(crop(view.image, transform, SIDE), transform, view)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        # The noise alone decides who appears.
        return MethodIdentity(NAME, seed)

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        raise InputError("referencenet takes no identity vector; use the graph with a source image instead")

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        seed = identity.of(NAME).seed
        points, image = prepared.view.face.points, prepared.view.image
        inside = apply(prepared.transform, points)
        mask = hull_mask(inside, SIDE, SIDE, grow=GROW, feather=FEATHER * inter_ocular(inside))
        if strength == 0:
            return pasted(image, prepared.transform, prepared.square, torch.zeros_like(mask), points)
        generator = torch.Generator().manual_seed(seed)
        square = self.pipeline.anonymize(
            prepared.square, DEGREE * strength, self.guidance, self.steps, [generator], progress=progress
        ).cpu()
        return pasted(image, prepared.transform, square, mask, points)
