"""What a user asks for, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from ..core.errors import InputError
from ..faces.face import Faces
from ..faces.names import REDACTION_SHAPES, REDACTION_STYLES, SENSITIVITY_NAMES, RedactionShape, SensitivityName
from ..faces.parse import FaceParser
from ..faces.select import Selection
from ..identity.identity import Identity
from ..identity.pseudonym import Pseudonyms
from ..imaging.image import LoadedImage
from ..imaging.uint8 import to_pillow
from ..methods.base import MAX_STRENGTH
from ..methods.identities import MethodIdentity
from ..methods.registry import DEFAULT, method_specs
from .policy import Policy
from .report import Report

TRIES = 3
GivenIdentity = Identity | MethodIdentity | Sequence[MethodIdentity | None] | Pseudonyms
"""What a job can be told to show: see ``anonymize_batch``."""


def treatments() -> tuple[str, ...]:
    """All values of ``Settings.method``: the methods, then the styles of redaction."""
    return (*method_specs(), *REDACTION_STYLES)


@dataclass(frozen=True)
class Settings:
    """How faces are treated.

    Attributes:
        method: a method's name (a new face), or a redaction style: ``solid``, ``pixelate``, ``blur``, ``sticker``.
        strength: 0 keeps the person, 1 is recommended, 1.5 is the maximum.
        seed: the same seed on the same image gives the same result.
        selection: which faces.
        include: embeddings ``(D,)`` of people by the default recognizer; only their faces are treated. Empty: all.
        exclude: embeddings of people whose faces are kept.
        policy: what happens to faces that cannot be replaced safely.
        shape: of a redaction.
        tries: identities tried on a face that a recognizer still matches.
        same_person: the selected faces of all images are one person and get one identity.
        sticker: ``(1, 4, h, w)``, RGBA in [0, 1], for the style ``sticker``.
        parser: finds what is in front of a face, so that it stays.
        sensitivity: of the search for faces, see ``detect_faces``.
    """

    method: str = DEFAULT
    strength: float = 1.0
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    include: tuple[np.ndarray, ...] = ()
    exclude: tuple[np.ndarray, ...] = ()
    policy: Policy = field(default_factory=Policy)
    shape: RedactionShape = "ellipse"
    tries: int = TRIES
    same_person: bool = False
    sticker: Tensor | None = None
    parser: FaceParser | None = None
    sensitivity: SensitivityName = "normal"

    def __post_init__(self) -> None:
        if self.method not in treatments():
            raise InputError(f"method {self.method!r} is not one of {', '.join(treatments())}")
        if self.shape not in REDACTION_SHAPES:
            raise InputError(f"shape {self.shape!r} is not one of {', '.join(REDACTION_SHAPES)}")
        if self.sensitivity not in SENSITIVITY_NAMES:
            raise InputError(f"sensitivity {self.sensitivity!r} is not one of {', '.join(SENSITIVITY_NAMES)}")
        if not 0.0 <= self.strength <= MAX_STRENGTH:
            raise InputError(f"strength must be between 0 and {MAX_STRENGTH:g}, got {self.strength:g}")
        if self.tries < 1:
            raise InputError(f"tries must be at least 1, got {self.tries}")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")

    @property
    def redacts_only(self) -> bool:
        """Whether no face is replaced."""
        return self.method in REDACTION_STYLES


@dataclass(frozen=True)
class Result:
    """A finished job on one or more images of one size.

    Attributes:
        pixels: ``(B, 3, H, W)``, RGB in [0, 1].
        changed: ``(B, 1, H, W)``, whether a pixel may differ from the input.
        faces: all detected faces, selected or not, in the input's coordinates.
        report: what happened to each.
        identities: what is shown on each of ``faces``; None on a face that was not replaced.
        first: the first image in its file's depth and with its alpha, ready to be saved.
        alpha: ``(B, 1, H, W)``, opaque where pixels changed; None where the input had none.
    """

    pixels: Tensor
    changed: Tensor
    faces: Faces
    report: Report
    identities: tuple[MethodIdentity | None, ...]
    first: LoadedImage
    alpha: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """``(B, 1, H, W)``, 1 where a pixel may differ from the input."""
        return self.changed.float()

    @property
    def image(self) -> Image.Image:
        """The first image as a Pillow image."""
        return to_pillow(self.pixels[:1])
