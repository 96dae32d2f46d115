"""The method ``inswapper``: renders a sampled or given identity with the user's copy of inswapper_128.

``strength`` is the position on the great circle from the person's own ArcFace embedding (0) to the new identity (1);
values above 1 extrapolate. The swapper works at 128 px, so larger faces become less sharp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import CannotReplace, InputError
from ...core.progress import Progress, silent
from ...faces.align import apply
from ...faces.face import Face, inter_ocular
from ...faces.masks import hull_mask
from ...identity.bank import Bank
from ...identity.blend import slerp
from ...identity.identity import Identity
from ...identity.sources import IdentitySource
from ...recognition.arcface import SPACE, ArcFace
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .network import SIDE, InSwapper, swapper_transform

NAME = "inswapper"
GROW, FEATHER = 0.25, 0.12
"""Growth and feather of the mask in IOD. The mask includes the forehead, but not the border of the aligned square."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face.

    Attributes:
        view: the face in its image.
        transform: from the image to the swapper's aligned square, ``(2, 3)``.
        own: ArcFace embedding of the original face.
    """

    view: View
    transform: np.ndarray
    own: Identity


class InSwapperMethod:
    """Implements ``Method`` with inswapper_128.

    Args:
        swapper: the network.
        recognizer: the ArcFace network whose embeddings the swapper takes.
        source: bank or sampler of new identities in the recognizer's space; None if all identities are given.

    Raises:
        InputError: the recognizer or the source belongs to another space.
    """

    name = NAME

    def __init__(self, swapper: InSwapper, recognizer: ArcFace, source: IdentitySource | None) -> None:
        for what, space in (("recognizer", recognizer.name), *([] if source is None else [("source", source.space)])):
            if space != SPACE:
                raise InputError(
                    f"inswapper needs identities of the space {SPACE}, but the {what} is of {space}; use w600k_r50.onnx"
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

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        own = Identity(np.concatenate([p.own.vectors for p in prepared]), SPACE).average()
        return MethodIdentity(NAME, seed, self._sampled(own, seed))

    def _sampled(self, own: Identity, seed: int) -> Identity:
        """Sample an identity that differs from ``own``."""
        if self.source is None:
            raise InputError("inswapper has no source of new identities; give it an identity, a bank or a sampler")
        if not isinstance(self.source, Bank):
            return Identity(self.source.away_from(own.vector, seed).vectors, SPACE)
        different = self.source.different_from(own)
        if not len(different):
            raise CannotReplace("all identities in the bank are too similar to this person; use a larger bank")
        return self.source.identities[int(np.random.default_rng(seed).choice(different))]

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        if identity.space != SPACE:
            raise InputError(
                f"inswapper needs an identity of the space {SPACE}, but this one is of {identity.space}; embed the face"
                " with w600k_r50.onnx"
            )
        return MethodIdentity(NAME, seed, identity)

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        target = identity.of(NAME).identity
        if target is None:
            raise InputError("this inswapper identity contains no embedding; save it again")
        points, image, transform = prepared.view.face.points, prepared.view.image, prepared.transform
        inside = apply(transform, points)
        mask = hull_mask(inside, SIDE, SIDE, grow=GROW, feather=FEATHER * inter_ocular(inside)) * float(strength > 0)
        square = self.swapper.swap_aligned(image, transform, slerp(prepared.own, target, strength).vector)
        return pasted(image, transform, square, mask, points)
