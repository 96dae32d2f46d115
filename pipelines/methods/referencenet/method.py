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

from ...errors import InputError
from ...faces.align import apply, crop, ffhq_transform
from ...faces.face import Face, inter_ocular
from ...faces.masks import hull_mask
from ...identity.identity import Identity
from ..base import Change, View, pasted, too_small
from .pipeline import DEGREE, GUIDANCE, STEPS, ReferenceNetPipeline

SIDE = 512
"""The pipeline was trained on squares of this many pixels."""
GROW, FEATHER = 0.10, 0.07
"""The pasted face reaches this far beyond the landmarks' outline, and fades over this, in inter-ocular distances."""


@dataclass(frozen=True)
class Prepared:
    """A face's aligned square ``(1, 3, 512, 512)``, how it was cut, and the picture it belongs to."""

    square: Tensor
    transform: np.ndarray
    view: View


class ReferenceNetMethod:
    """See ``Method``.

    Args:
        steps, guidance: as for ``ReferenceNetPipeline.anonymize``.
    """

    name = "referencenet"

    def __init__(self, pipeline: ReferenceNetPipeline, steps: int = STEPS, guidance: float = GUIDANCE) -> None:
        self.pipeline, self.steps, self.guidance = pipeline, steps, guidance

    def refuse(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        transform = ffhq_transform(view.face.points, SIDE)
        return Prepared(crop(view.picture, transform, SIDE), transform, view)

    def doubt(self, prepared: Prepared) -> str | None:
        return None

    def identify(self, prepared: Sequence[Prepared], seed: int) -> int:
        return seed

    def realise(self, prepared: Sequence[Prepared], identity: Identity, seed: int) -> int:
        raise InputError("referencenet takes no identity vector; show a source picture with swap instead")

    def veil(self, prepared: Prepared, identity: int, strength: float) -> Change:
        points, picture = prepared.view.face.points, prepared.view.picture
        inside = apply(prepared.transform, points)
        mask = hull_mask(inside, SIDE, SIDE, grow=GROW, feather=FEATHER * inter_ocular(inside))
        if strength == 0:
            return pasted(picture, prepared.transform, prepared.square, torch.zeros_like(mask), points)
        shown = self.pipeline.anonymize(
            prepared.square, DEGREE * strength, self.guidance, self.steps, [torch.Generator().manual_seed(identity)]
        ).cpu()
        return pasted(picture, prepared.transform, shown, mask, points)
