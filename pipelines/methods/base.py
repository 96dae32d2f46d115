"""What every method offers, so that jobs and nodes need not know which one they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..faces.align import footprint
from ..faces.blend import paste
from ..faces.face import Face, inter_ocular
from ..identity.identity import Identity

SMALLEST_IOD = 12.0
"""Below this many pixels between the eyes landmarks are guesses."""


@dataclass(frozen=True)
class View:
    """One face of one picture, as a method sees it.

    Attributes:
        picture: ``(1, 3, H, W)``, RGB in [0, 1], with the faces changed before this one.
        face: with landmarks.
        embedding: the default recogniser's view of the untouched face.
    """

    picture: Tensor
    face: Face
    embedding: np.ndarray


@dataclass(frozen=True)
class Change:
    """A changed part of a picture, at the picture's own resolution.

    Attributes:
        window: ``(1, 3, h, w)``.
        origin: ``(x, y)`` of its corner in the picture.
        mask: ``(1, 1, h, w)``, 0 where the picture stays bit for bit.
        points: the new landmarks in pixels of the picture, ``(68, 2)``.
    """

    window: Tensor
    origin: tuple[int, int]
    mask: Tensor
    points: np.ndarray

    def behind(self, picture: Tensor, covered: Tensor) -> Change:
        """The same change without what lies over the face.

        Args:
            picture: ``(1, 3, H, W)`` before the change.
            covered: ``(1, 1, H, W)`` in [0, 1].
        """
        x, y = self.origin
        height, width = self.window.shape[-2:]
        here = (..., slice(y, y + height), slice(x, x + width))
        cover = covered[here]
        return replace(self, window=torch.lerp(self.window, picture[here], cover), mask=self.mask * (cover < 1))


def pasted(picture: Tensor, transform: np.ndarray, shown: Tensor, mask: Tensor, points: np.ndarray) -> Change:
    """The change that pastes an aligned square back.

    Args:
        picture: ``(1, 3, H, W)``.
        transform: from the picture to the square ``(2, 3)``.
        shown: the new square ``(1, 3, S, S)``.
        mask: ``(1, 1, S, S)``, 0 where the picture stays bit for bit.
        points: the new landmarks in pixels of the picture.
    """
    x0, y0, x1, y1 = footprint(transform, shown.shape[-1], picture.shape[-2], picture.shape[-1])
    window = picture[..., y0:y1, x0:x1]
    shift = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0], [0.0, 0.0, 1.0]])
    changed = paste(window, shown, transform @ shift, mask)
    return Change(changed, (x0, y0), (changed != window).any(1, keepdim=True).float(), points)


class Method(Protocol):
    """Replaces faces.

    ``strength`` runs from 0 (the photo) over 1 (recommended) to 1.5; each method says what that means for it.
    """

    name: str

    def refuse(self, face: Face) -> str | None:
        """Why this face is beyond the method's range, in a clause; None when it is not."""

    def prepare(self, view: View) -> Any:
        """Analyse one face; the other calls take what this returns."""

    def doubt(self, prepared: Any) -> str | None:
        """Why the analysed face is beyond the method's range, in a clause; None when it is not."""

    def identify(self, prepared: Sequence[Any], seed: int) -> Any:
        """A new identity for one person seen in one or more pictures; the same pictures and seed repeat it."""

    def realise(self, prepared: Sequence[Any], identity: Identity, seed: int) -> Any:
        """What this method shows for a given identity of one person seen in one or more pictures.

        Raises:
            InputError: it cannot show identities, or not of this space.
        """

    def veil(self, prepared: Any, identity: Any, strength: float) -> Change:
        """Show an identity."""


def too_small(face: Face) -> str | None:
    """Why no method could replace this face, in a clause: no landmarks, or too few pixels."""
    if not face.landmarks:
        return "no landmarks were found on it"
    iod = inter_ocular(face.points)
    return (
        f"it is too small ({iod:.0f} px between the eyes, at least {SMALLEST_IOD:.0f} are needed)"
        if iod < SMALLEST_IOD
        else None
    )
