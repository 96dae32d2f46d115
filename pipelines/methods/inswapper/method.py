"""The method ``inswapper``: a drawn or mapped identity, shown by the swapper that the user has.

Strength is the share of the way on the great circle from the person's own ArcFace vector to the new one; above 1 it
goes on past it. The swapper works at 128 px: faces that are larger in the picture come out softer than they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ...faces.align import apply
from ...faces.face import Face, inter_ocular
from ...faces.masks import hull_mask
from ...identity.arcface import SPACE, ArcFace
from ...identity.bank import Bank
from ...identity.blend import slerp
from ...identity.identity import Identity
from ...identity.lds import IdentitySampler
from ..base import Change, View, pasted, too_small
from .network import SIDE, InSwapper, swapper_transform

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
    """Swaps faces with people who do not exist.

    Args:
        people: where new identities come from: a bank of synthetic people, or a sampler trained on their vectors.

    Raises:
        InputError: the recogniser is not the one whose vectors the swapper knows, or the people are of another space.
    """

    name = "inswapper"

    def __init__(self, swapper: InSwapper, recogniser: ArcFace, people: Bank | IdentitySampler | None) -> None:
        for what, space in (("recogniser", recogniser.space), *([] if people is None else [("people", people.space)])):
            if space != SPACE:
                raise InputError(
                    f"inswapper knows the vectors of {SPACE}, but the {what} given are of {space}; use w600k_r50.onnx"
                )
        self.swapper, self.recogniser, self.people = swapper, recogniser, people

    def refuse(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        points = view.face.points
        own = Identity(self.recogniser.embed(view.picture, points), SPACE)
        return Prepared(view, swapper_transform(points), own)

    def doubt(self, prepared: Prepared) -> str | None:
        return None

    def identify(self, prepared: Sequence[Prepared], seed: int) -> Identity:
        own = Identity(np.concatenate([p.own.vectors for p in prepared]), SPACE).average()
        if self.people is None:
            raise InputError(
                "inswapper needs somebody to show; give an identity, a bank of synthetic people, or a sampler"
            )
        if isinstance(self.people, Bank):
            free = self.people.strangers(own)
            if not len(free):
                raise InputError("everybody in the bank resembles this person; build a larger bank")
            return self.people.identities[int(np.random.default_rng(seed).choice(free))]
        return Identity(self.people.away_from(own.vector, seed).vectors, SPACE)

    def realise(self, prepared: Sequence[Prepared], identity: Identity, seed: int) -> Identity:
        if identity.space != SPACE:
            raise InputError(
                f"inswapper shows identities of {SPACE}, but this one is of {identity.space}; embed with w600k_r50.onnx"
            )
        return identity

    def veil(self, prepared: Prepared, identity: Identity, strength: float) -> Change:
        points, picture, transform = prepared.view.face.points, prepared.view.picture, prepared.transform
        inside = apply(transform, points)
        mask = hull_mask(inside, SIDE, SIDE, grow=GROW, feather=FEATHER * inter_ocular(inside)) * float(strength > 0)
        shown = self.swapper.show(picture, transform, slerp(prepared.own, identity, strength).vector)
        return pasted(picture, transform, shown, mask, points)
