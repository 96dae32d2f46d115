"""Treat the faces of one frame: in the window around them, so that a large frame costs no more than a small one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ...faces.names import RedactionStyle
from ...faces.redact import redaction_window
from ...imaging.uint8 import to_tensor, to_uint8, to_uint16
from ...imaging.video import VideoFrame
from ...methods.base import AnyMethod
from ...methods.registry import open_method
from ...recognition.base import FaceRecognizer
from ...recognition.catalog import built_in_recognizers
from ..render import Canvas
from ..replace import FaceTreatment
from ..report import FaceReport
from ..settings import Settings
from .plan import PlannedFace
from .roles import Cast, Tried, try_identity

REACH = 1.5
"""Around the faces of a frame, as a share of the largest one's size: more than any method cuts out."""
REDACTION_REACH = 0.8
"""The same where faces are only redacted: more than any redaction reaches."""


@dataclass(frozen=True)
class Work:
    """The faces of one frame and the pixels around them.

    Attributes:
        pixels: ``(h, w, 3)``, uint8 or uint16.
        faces: in pixels of the window.
        cast: the roles of these people.
    """

    pixels: np.ndarray
    faces: tuple[PlannedFace, ...]
    cast: Cast


@dataclass(frozen=True)
class Done:
    """The treated window, whose face changed a pixel ``(h, w)`` (its place among the faces; -1: none), and a row for
    each face."""

    pixels: np.ndarray
    owners: np.ndarray
    rows: tuple[tuple[int | None, FaceReport], ...]


@dataclass(frozen=True)
class Studio:
    """What the treatment of frames needs; it can be sent to another process.

    Attributes:
        settings: how faces are treated.
        options: of the method.
        verifiers: further recognizers as ``KIND:FILE``.
    """

    settings: Settings
    options: object | None
    verifiers: tuple[str, ...] = ()


class FrameTreatment:
    """Treats the faces of frames.

    Args:
        method: None where faces are only redacted.
        recognizers: all that are asked, in the order of the roles' embeddings.
    """

    def __init__(self, settings: Settings, method: AnyMethod | None, recognizers: Sequence[FaceRecognizer]) -> None:
        self._settings, self._method, self._recognizers = settings, method, recognizers

    @classmethod
    def opened(cls, studio: Studio) -> FrameTreatment:
        """Open the method and the recognizers that a studio names."""
        from ...identity.compare import recognizer_named

        settings = studio.settings
        method = None if settings.redacts_only else open_method(settings.method, studio.options)
        recognizers = () if method is None else built_in_recognizers()
        return cls(settings, method, (*recognizers, *map(recognizer_named, studio.verifiers)))

    def try_identity(self, prepared: Sequence[Any], embeddings: tuple[np.ndarray, ...], seed: int) -> Tried:
        """See ``roles.try_identity``."""
        assert self._method is not None
        strength = self._settings.strength
        return try_identity(self._method, self._recognizers, prepared, embeddings, seed, strength)

    def treat(self, work: Work) -> Done:
        """Treat all faces of one frame.

        Raises:
            PolicyStop: the policy is ``stop`` and a face would not be protected.
        """
        if self._method is None:
            return self._redacted(work)
        canvas = Canvas(to_tensor(work.pixels), in_place=True, watched=True)
        owners = np.full(work.pixels.shape[:2], -1, np.int16)
        treatment = FaceTreatment(canvas, self._settings, self._method, self._recognizers, frames=True)
        rows = []
        for number, planned in enumerate(work.faces):
            role = None if planned.person is None else work.cast.get(planned.person)
            face = planned.face
            # Without a role nobody knows what to show, or from whom it must differ.
            embeddings = None if role is None or not face.landmarks else role.embeddings
            wanted = None if role is None else role.identity
            treated = treatment.treat(face, number, embeddings, wanted, seen=bool(face.landmarks))
            rows.append((planned.person, treated.report))
            owners[canvas.recent[0, 0].numpy()] = number
            canvas.forget()
        return Done(_restored(canvas, work.pixels, owners >= 0), owners, tuple(rows))

    def _redacted(self, work: Work) -> Done:
        """Redact each face in a window of its own: the faces of a frame can lie far apart."""
        height, width = work.pixels.shape[:2]
        pixels, owners = work.pixels.copy(), np.full((height, width), -1, np.int16)
        rows = []
        for number, planned in enumerate(work.faces):
            style: RedactionStyle = self._settings.method  # type: ignore[assignment]  # Settings checked it
            place = redaction_window(planned.face, height, width, style, self._settings.shape)
            canvas = Canvas(to_tensor(pixels[place]), in_place=True)
            moved = planned.face.moved(-place[1].start, -place[0].start)
            treated = FaceTreatment(canvas, self._settings, None, (), frames=True).treat(moved, number, None, None)
            rows.append((planned.person, treated.report))
            changed = canvas.changed[0, 0].numpy()
            pixels[place] = _restored(canvas, pixels[place], changed)
            owners[place][changed] = number
        return Done(pixels, owners, tuple(rows))


def cut_out(
    frame: VideoFrame, faces: Sequence[PlannedFace], cast: Cast, reach: float = REACH
) -> tuple[Work, tuple[slice, slice]]:
    """The window around the faces of a frame, and its place."""
    height, width = frame.pixels.shape[:2]
    pad = reach * max(p.face.size for p in faces)
    boxes = np.array([p.face.box for p in faces])
    x1, y1 = (int(np.clip(v, 0, n - 1)) for v, n in zip(boxes[:, :2].min(0) - pad, (width, height), strict=True))
    x2, y2 = (int(np.clip(np.ceil(v), 1, n)) for v, n in zip(boxes[:, 2:].max(0) + pad, (width, height), strict=True))
    place = slice(y1, max(y2, y1 + 1)), slice(x1, max(x2, x1 + 1))
    moved = tuple(replace(p, face=p.face.moved(-x1, -y1)) for p in faces)
    roles = {p.person: cast[p.person] for p in faces if p.person is not None and p.person in cast}
    return Work(np.ascontiguousarray(frame.pixels[place]), moved, roles), place


def treat_elsewhere(studio_bytes: bytes, work: Work) -> Done:
    """``FrameTreatment.treat`` in a process of its own."""
    return _opened(studio_bytes).treat(work)


def try_elsewhere(studio_bytes: bytes, prepared: Sequence[Any], embeddings: tuple[np.ndarray, ...], seed: int) -> Tried:
    """``FrameTreatment.try_identity`` in a process of its own."""
    return _opened(studio_bytes).try_identity(prepared, embeddings, seed)


@lru_cache(maxsize=1)
def _opened(studio_bytes: bytes) -> FrameTreatment:
    """What the studio names, opened once in a process; the bytes come from the process that started it."""
    import pickle

    studio: Studio = pickle.loads(studio_bytes)
    return FrameTreatment.opened(studio)


def _restored(canvas: Canvas, before: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """The canvas in the frame's own type; unchanged pixels are the frame's."""
    if not changed.any():
        return before
    rows, columns = np.nonzero(changed.any(1))[0], np.nonzero(changed.any(0))[0]
    place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pixels = canvas.pixels[(..., *place)]
    after = to_uint16(pixels) if before.dtype == np.uint16 else to_uint8(pixels)
    result = before.copy()
    result[place] = np.where(changed[place][..., None], after, before[place])
    return result
