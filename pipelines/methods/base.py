"""The interface of all methods, so that jobs and nodes need not know which one they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ..core.progress import Progress, silent
from ..faces.align import footprint
from ..faces.face import Face, inter_ocular
from ..faces.paste import paste
from ..identity.identity import Identity
from ..recognition.base import FaceRecognizer
from .identities import MethodIdentity

MIN_IOD = 12.0
"""Below this many pixels between the eyes landmarks are guesses."""
MAX_STRENGTH = 1.5


@dataclass(frozen=True)
class View:
    """One face of one image, as a method gets it.

    Attributes:
        image: ``(1, 3, H, W)``, RGB in [0, 1]; faces that were rendered before this one are already replaced.
        face: with landmarks.
        embedding: of the untouched face by the default recognizer, ``(D,)``.
        frame: whether it is a frame of a video, whose identity is given: no search follows, and the analysis may be
            quicker.
    """

    image: Tensor
    face: Face
    embedding: np.ndarray
    frame: bool = False


@dataclass(frozen=True)
class Change:
    """A changed patch of an image, at the image's own resolution.

    Attributes:
        patch: ``(1, 3, h, w)``, RGB in [0, 1].
        origin: ``(x, y)`` of its corner in the image.
        mask: ``(1, 1, h, w)``, 0 where the image stays bit for bit.
        points: the new landmarks in pixels of the image, ``(68, 2)``.
    """

    patch: Tensor
    origin: tuple[int, int]
    mask: Tensor
    points: np.ndarray

    def behind(self, image: Tensor, occlusion: Tensor) -> Change:
        """The same change with what is in front of the face left as it is.

        Args:
            image: ``(1, 3, H, W)`` before the change.
            occlusion: ``(1, 1, H, W)`` in [0, 1], 1 where something is in front of the face.
        """
        x, y = self.origin
        height, width = self.patch.shape[-2:]
        here = (..., slice(y, y + height), slice(x, x + width))
        occluded = occlusion[here]
        return replace(self, patch=torch.lerp(self.patch, image[here], occluded), mask=self.mask * (occluded < 1))


P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class Method(Protocol[P]):
    """Replaces faces. ``P`` is the type of an analyzed face.

    Calls that take long report their progress, which may raise to interrupt them.

    ``strength`` runs from 0 (the photo) over 1 (recommended) to 1.5; each method documents its mapping.
    """

    name: str

    def unsupported_reason(self, face: Face) -> str | None:
        """Why the method cannot replace this face, in a clause; None where it can."""

    def prepare(self, view: View) -> P:
        """Analyze one face; the other calls take the result."""

    def occlusion_reason(self, prepared: P) -> str | None:
        """What in front of the analyzed face would be painted over, in a clause; None where nothing is."""

    def sample_identity(self, prepared: Sequence[P], seed: int, progress: Progress = silent) -> MethodIdentity:
        """A new identity for one person seen in one or more images; the same images and seed repeat it."""

    def from_identity(
        self, prepared: Sequence[P], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        """What this method renders for a given identity of one person seen in one or more images.

        Raises:
            InputError: the method takes no identities, or not of this space.
        """

    def render(self, prepared: P, identity: MethodIdentity, strength: float, progress: Progress = silent) -> Change:
        """Render an identity on an analyzed face.

        Raises:
            InputError: the identity belongs to another method.
        """


@runtime_checkable
class SettlingMethod(Protocol[P_contra]):
    """A method that can measure once what is the same in all frames of a video, so that each frame costs less."""

    def settled(self, prepared: Sequence[P_contra], identity: MethodIdentity, strength: float) -> MethodIdentity:
        """The identity with what was measured on some frames of its person at this strength; ``render`` takes it like
        any other."""


@dataclass(frozen=True)
class StreamedFrame:
    """One frame of a stream: the image ``(1, 3, H, W)``, and how many of its faces were replaced and redacted."""

    image: Tensor
    replaced: int
    redacted: int


@runtime_checkable
class StreamingMethod(Protocol):
    """A method that can draw the frames of a video in order, each by those around it.

    It compares the results with the originals itself, and redacts what it cannot replace.
    """

    @property
    def streams(self) -> bool:
        """Whether it was opened for that; else the frames are rendered one by one, as by any other method."""

    def stream(
        self,
        frames: Iterable[tuple[Tensor, Sequence[Face]]],
        recognizers: Sequence[FaceRecognizer],
        seed: int,
        strength: float,
        progress: Progress = silent,
    ) -> Iterator[StreamedFrame]:
        """The frames with their faces replaced; each may come some frames later than it was read.

        Args:
            frames: images ``(1, 3, H, W)`` and the faces to replace; those without landmarks are redacted.
            recognizers: a face that one of them still finds is redacted.
        """


AnyMethod = Method[Any]
"""A method whose analyzed faces only the method itself looks into."""


def too_small(face: Face) -> str | None:
    """Why no method can replace this face, in a clause: it has no landmarks, or too few pixels."""
    if not face.landmarks:
        return "no landmarks were found on it"
    iod = inter_ocular(face.points)
    if iod < MIN_IOD:
        return f"it is too small ({iod:.0f} px between the eyes, at least {MIN_IOD:.0f} are needed)"
    return None


def pasted(image: Tensor, transform: np.ndarray, square: Tensor, mask: Tensor, points: np.ndarray) -> Change:
    """The change that pastes a new aligned square back.

    Args:
        image: ``(1, 3, H, W)``.
        transform: from the image to the square ``(2, 3)``.
        square: the new square ``(1, 3, S, S)``.
        mask: ``(1, 1, S, S)``, 0 where the image stays bit for bit.
        points: the new landmarks in pixels of the image, ``(68, 2)``.
    """
    x0, y0, x1, y1 = footprint(transform, square.shape[-1], image.shape[-2], image.shape[-1])
    patch = image[..., y0:y1, x0:x1]
    shift = np.array([[1.0, 0.0, x0], [0.0, 1.0, y0], [0.0, 0.0, 1.0]])
    changed = paste(patch, square, transform @ shift, mask)
    return Change(changed, (x0, y0), (changed != patch).any(1, keepdim=True).float(), points)
