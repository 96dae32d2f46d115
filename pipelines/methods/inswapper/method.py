"""The method ``inswapper``: a drawn or mapped identity, shown by the swapper that the user has.

Strength is the share of the way on the great circle from the person's own ArcFace vector to the new one; above 1 it
goes on past it. The swapper works at 128 px: faces that are larger in the picture come out softer than they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import InputError
from ...faces.align import apply
from ...faces.face import Face, inter_ocular
from ...identity.bank import Bank
from ...identity.blend import slerp
from ...identity.identity import Identity
from ...identity.sources import IdentitySource
from ...imaging.masks import hull_mask
from ...recognition.arcface import SPACE, ArcFace
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .network import SIDE, InSwapper, swapper_transform

NAME = "inswapper"
GROW, FEATHER = 0.25, 0.12
"""Of the mask, in distances between the eyes: the forehead belongs to it, the border of the swapper's square does
not."""


@dataclass(frozen=True)
class Prepared:
    """A face, where the swapper's square lies on it, and whose it is."""

    view: View
    transform: np.ndarray
    own: Identity


class InSwapperMethod:
    """Swaps synthetic identities in.

    Args:
        swapper: the user's inswapper_128.
        recognizer: the one whose embeddings the swapper takes.
        source: of new identities, in the recognizer's space; None where all identities are given.

    Raises:
        InputError: the recognizer or the source belongs to another space.
    """

    name = NAME

    def __init__(self, swapper: InSwapper, recognizer: ArcFace, source: IdentitySource | None) -> None:
        for what, space in (("recognizer", recognizer.name), *([] if source is None else [("source", source.space)])):
            if space != SPACE:
                raise InputError(
                    f"inswapper takes identities of {SPACE}, but the {what} given is of {space}; use w600k_r50.onnx"
                )
        self.swapper, self.recognizer, self.source = swapper, recognizer, source

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        points = view.face.points
        own = Identity(self.recognizer.embed(view.image, points), SPACE)
        return Prepared(view, swapper_transform(points), own)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int) -> MethodIdentity:
        own = Identity(np.concatenate([p.own.vectors for p in prepared]), SPACE).average()
        return MethodIdentity(NAME, seed, self._sampled(own, seed))

    def _sampled(self, own: Identity, seed: int) -> Identity:
        if self.source is None:
            raise InputError("inswapper needs an identity to show; give one, or a bank or sampler as its source")
        if not isinstance(self.source, Bank):
            return Identity(self.source.away_from(own.vector, seed).vectors, SPACE)
        different = self.source.strangers(own)
        if not len(different):
            raise InputError("every person in the bank resembles this one; build a larger bank")
        return self.source.identities[int(np.random.default_rng(seed).choice(different))]

    def from_identity(self, prepared: Sequence[Prepared], identity: Identity, seed: int) -> MethodIdentity:
        if identity.space != SPACE:
            raise InputError(
                f"inswapper shows identities of {SPACE}, but this one is of {identity.space}; embed with w600k_r50.onnx"
            )
        return MethodIdentity(NAME, seed, identity)

    def render(self, prepared: Prepared, identity: MethodIdentity, strength: float) -> Change:
        shown = identity.of(NAME).identity
        if shown is None:
            raise InputError("this identity of inswapper holds no vector; save it again")
        points, image, transform = prepared.view.face.points, prepared.view.image, prepared.transform
        inside = apply(transform, points)
        mask = hull_mask(inside, SIDE, SIDE, grow=GROW, feather=FEATHER * inter_ocular(inside)) * float(strength > 0)
        square = self.swapper.show(image, transform, slerp(prepared.own, shown, strength).vector)
        return pasted(image, transform, square, mask, points)
