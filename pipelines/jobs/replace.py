"""Treat one face: replace it, verify the result, and let the policy act where that fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.errors import CannotReplace, FaceVeilError, PolicyStop
from ..core.progress import Progress, part_of, silent
from ..core.seeds import face_seed
from ..faces.face import SURE_SCORE, Face
from ..faces.names import RedactionStyle
from ..identity.identity import Identity
from ..methods.base import AnyMethod, Change, View
from ..methods.identities import MethodIdentity
from ..recognition.base import FaceRecognizer
from .policy import Action
from .render import Canvas
from .report import FaceReport
from .settings import Settings
from .verify import Verification, utility, verify

log = logging.getLogger(__name__)

COMFORTABLE = 1.2
"""Another identity is tried while the worst recognizer's distance is below this many of its thresholds: recognizers
that take no part find the faces more alike."""
FULL_STRENGTH = 1.0
"""Below it the user asks for likeness, so a match is reported instead of redacted."""
POLICY_STYLE: RedactionStyle = "solid"
"""How the policy redacts."""


@dataclass(frozen=True)
class Treated:
    """What became of one face, and the identity that is shown on it."""

    report: FaceReport
    identity: MethodIdentity | None = None


@dataclass(frozen=True)
class _Candidate:
    """One rendered identity."""

    identity: MethodIdentity
    change: Change
    verification: Verification


class FaceTreatment:
    """Treats the faces of one job.

    Args:
        method: None where faces are only redacted.
        recognizers: the first one's embedding goes to the method.
        frames: whether these are frames of a video, whose identities are given.
    """

    def __init__(
        self,
        canvas: Canvas,
        settings: Settings,
        method: AnyMethod | None,
        recognizers: Sequence[FaceRecognizer],
        frames: bool = False,
    ) -> None:
        self._frames = frames
        self._canvas, self._settings, self._method, self._recognizers = canvas, settings, method, recognizers

    def treat(
        self,
        face: Face,
        number: int,
        embeddings: tuple[np.ndarray, ...] | None,
        wanted: Identity | MethodIdentity | None,
        progress: Progress = silent,
        seen: bool = True,
    ) -> Treated:
        """Replace or redact one selected face.

        Args:
            number: its place in its image's list of faces.
            embeddings: one for each recognizer; None for a face without landmarks.
            wanted: shown instead of a searched identity.
            progress: of this face.
            seen: whether a face was found at its place.

        Raises:
            PolicyStop: the policy is ``stop`` and the face is not protected.
            InputError: the wanted identity does not fit the method.
        """
        s = self._settings
        row = FaceReport(
            image=face.image,
            number=number,
            box=face.box,
            origin=face.origin,
            outcome="passed",
            selected=True,
            method="",
            strength=s.strength,
            seed=face_seed(s.seed, face.box, face.track),
        )
        if self._method is None:
            self._canvas.redact(face, s.method, s.shape, s.sticker)  # type: ignore[arg-type]  # Settings checked it
            return Treated(replace(row, outcome="redacted", method=s.method))
        reason = self._method.unsupported_reason(face) if seen else "no face was found at its place"
        if reason is not None or embeddings is None:
            return self._act(s.policy.out_of_range, face, replace(row, reason=reason or _no_landmarks(face)))
        try:
            return self._replace(self._method, face, row, embeddings, wanted, progress)
        except CannotReplace as error:
            return self._act(s.policy.failed, face, replace(row, reason=str(error)))
        except FaceVeilError:
            raise
        except (ArithmeticError, ValueError, IndexError, RuntimeError) as error:
            log.warning("the method failed on a face: %s", error)
            return self._act(s.policy.failed, face, replace(row, reason="the method failed on it"))

    def _replace(
        self,
        method: AnyMethod,
        face: Face,
        row: FaceReport,
        embeddings: tuple[np.ndarray, ...],
        wanted: Identity | MethodIdentity | None,
        progress: Progress,
    ) -> Treated:
        s, image = self._settings, self._canvas.image(face.image)
        prepared = method.prepare(View(image, face, embeddings[0], self._frames))
        # With a parser what is in front of the face is cut out and stays; without one it would be painted over.
        reason = method.occlusion_reason(prepared) if s.parser is None else None
        if reason is not None:
            return self._act(s.policy.out_of_range, face, replace(row, reason=reason))
        if isinstance(wanted, Identity):
            wanted = method.from_identity([prepared], wanted, row.seed, progress)
        occlusion = None if s.parser is None else s.parser.occlusion(image, face)
        best: _Candidate | None = None
        tries = 1 if wanted is not None else s.tries
        tried = 0
        while tried < tries and (best is None or self._still_close(best)):
            search, render = (part_of(progress, 2 * tried + half, 2 * tries) for half in (0, 1))
            identity = wanted or method.sample_identity([prepared], row.seed + tried, search)
            change = method.render(prepared, identity, s.strength, render)
            if occlusion is not None:
                change = change.behind(image, occlusion)
            found = _Candidate(
                identity, change, verify(change, embeddings, self._recognizers, 1 if self._frames else 2)
            )
            if best is None or found.verification.margin > best.verification.margin:
                best = found
            tried += 1
        assert best is not None
        return self._conclude(face, replace(row, tries=tried, checks=best.verification.checks), best, method.name)

    def _still_close(self, best: _Candidate) -> bool:
        # Below full strength other identities would be just as close.
        return self._settings.strength >= FULL_STRENGTH and best.verification.margin < COMFORTABLE

    def _conclude(self, face: Face, row: FaceReport, best: _Candidate, name: str) -> Treated:
        s, matched = self._settings, best.verification.matched_by
        if s.strength == 0:
            return Treated(replace(row, outcome="kept", reason="strength 0 keeps the person"))
        failed = best.verification.failed
        if failed and not matched:
            # A missing comparison is not a passed one.
            reason = f"{' and '.join(failed)} could not compare it"
            if s.policy.still_similar != "pass":
                return self._act(s.policy.still_similar, face, replace(row, reason=reason))
            row = replace(row, outcome="unverified", reason=reason)
        elif matched and s.strength < FULL_STRENGTH:
            reason = f"{' and '.join(matched)} still match{'es' * (len(matched) == 1)} it at strength {s.strength:g}"
            row = replace(row, outcome="passed", reason=reason)
        elif matched:
            reason = f"{' and '.join(matched)} still match{'es' * (len(matched) == 1)} it"
            if s.policy.still_similar != "pass":
                return self._act(s.policy.still_similar, face, replace(row, reason=reason))
            row = replace(row, outcome="passed", reason=reason)
        else:
            row = replace(row, outcome="replaced")
        if not self._canvas.apply(face.image, best.change):
            return self._act(s.policy.failed, face, replace(row, reason="the method changed none of its pixels"))
        kept = utility(face.points, best.verification.points)
        return Treated(replace(row, method=name, seed=best.identity.seed, utility=kept), best.identity)

    def _act(self, action: Action, face: Face, row: FaceReport) -> Treated:
        if action == "stop":
            raise PolicyStop(
                f"face {row.number} was not protected because {row.reason}; nothing was handed on (policy stop)"
            )
        if action == "pass":
            return Treated(replace(row, outcome="passed"))
        self._canvas.redact(face, POLICY_STYLE, self._settings.shape, None)
        return Treated(replace(row, outcome="redacted", method=POLICY_STYLE))


def _no_landmarks(face: Face) -> str:
    if face.score < SURE_SCORE:
        return f"it may or may not be a face (score {face.score:.2f})"
    return "no landmarks were found on it"
