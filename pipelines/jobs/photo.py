"""Anonymize photos: plan (find and select faces), then render (replace, verify, or cover)."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import FaceVeilError, InputError, PolicyStop
from ..faces.align import five_points
from ..faces.detect import Detector, detect_faces
from ..faces.face import Face, Faces, eye_opening, mouth_gap, yaw_proxy
from ..faces.landmarks import fit_landmarks
from ..faces.parse import FaceParser
from ..faces.redact import COVERS, Cover, Shape, redact
from ..faces.select import Selection
from ..identity.identity import Identity
from ..identity.pseudonym import Pseudonyms
from ..identity.recognise import Recogniser, default_recogniser
from ..images import Picture, picture_from
from ..methods.base import Change, Method, View
from ..progress import Progress, silent
from .people import is_wanted
from .policy import Action, Policy
from .report import Check, FaceReport, Outcome, Report, Utility

log = logging.getLogger(__name__)

METHODS = ("appearance", "referencenet", "inswapper", *COVERS)
MOST_STRENGTH = 1.5
TRIES = 3
COMFORTABLE = 1.2
"""Another identity is tried while the distance is below this many thresholds: other recognisers see the face
differently."""


@dataclass(frozen=True)
class Settings:
    """How faces are treated.

    Attributes:
        method: ``appearance``; ``referencenet`` or ``inswapper``, whose networks are opened first and given beside the
            settings; or a cover: ``solid``, ``pixelate``, ``blur``, ``sticker``.
        strength: 0 keeps the person, 1 is recommended, 1.5 the most.
        seed: the same seed on the same picture gives the same result.
        selection: which faces.
        include: embeddings of people to take, all others are kept; empty = everybody.
        exclude: embeddings of people to keep.
        policy: what happens to faces that cannot be replaced.
        shape: of a cover.
        tries: identities tried on a face that stays too similar.
        trials: renderings of the search for one identity; 1 is a single shot.
        same_person: the selected faces of all pictures are one person and get one identity.
        sticker: ``(1, 4, h, w)`` for the sticker cover.
        parser: finds what lies over a face, so that it stays.
    """

    method: str = "appearance"
    strength: float = 1.0
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    include: tuple[np.ndarray, ...] = ()
    exclude: tuple[np.ndarray, ...] = ()
    policy: Policy = field(default_factory=Policy)
    shape: Shape = "ellipse"
    tries: int = TRIES
    trials: int = 15
    same_person: bool = False
    sticker: Tensor | None = None
    parser: FaceParser | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} is not one of {', '.join(METHODS)}")
        if not 0.0 <= self.strength <= MOST_STRENGTH:
            raise InputError(f"strength must be between 0 and {MOST_STRENGTH:g}, got {self.strength:g}")
        if self.tries < 1 or self.trials < 1:
            raise InputError("tries and trials must be at least 1")
        if self.seed < 0:
            raise InputError(f"seed must be 0 or more, got {self.seed}")


@dataclass(frozen=True)
class Result:
    """A finished job on one or more pictures of one size.

    Attributes:
        pixels: ``(B, 3, H, W)``, RGB in [0, 1].
        mask: ``(B, 1, H, W)``, 1 where a pixel may differ from the input.
        faces: all found faces, selected or not, in the input's coordinates.
        report: what happened to each.
        picture: the first picture in its file's depth and with its transparency.
        identity: what was shown on the last replaced person; can be given again.
    """

    pixels: Tensor
    mask: Tensor
    faces: Faces
    report: Report
    picture: Picture
    identity: Any = None

    @property
    def image(self) -> Any:
        """The first picture as a Pillow image."""
        from PIL import Image

        return Image.fromarray((self.pixels[0].movedim(0, -1).clamp(0, 1) * 255 + 0.5).byte().cpu().numpy())


def anonymize(
    image: Any,
    method: str = "appearance",
    strength: float = 1.0,
    seed: int = 0,
    faces: str = "all",
    policy: Action | Policy = "redact",
    **more: Any,
) -> Result:
    """Take the identity out of one picture.

    Args:
        image: a path, a Pillow image, an array ``(H, W[, C])`` or a tensor ``(1, 3, H, W)`` in [0, 1].
        method: ``appearance`` (a new face), or ``solid``, ``pixelate``, ``blur`` (covers).
        strength: 0 to 1.5.
        seed: the same seed repeats the result.
        faces: ``all``, ``largest``, ``smallest``, ``left``, ``right`` or numbers such as ``0,2``.
        policy: ``redact``, ``stop`` or ``pass`` for faces that cannot be replaced safely.
        more: further fields of ``Settings``.

    Raises:
        InputError: the picture or a setting cannot be used.
        PolicyStop: the policy is ``stop`` and a face would not be protected.
    """
    picture = picture_from(image)
    chosen = policy if isinstance(policy, Policy) else Policy.always(policy)
    settings = Settings(method=method, strength=strength, seed=seed, selection=Selection(faces), policy=chosen, **more)
    result = anonymize_batch(picture.pixels, settings)
    return Result(
        result.pixels, result.mask, result.faces, result.report, picture.with_pixels(result.pixels), result.identity
    )


def anonymize_batch(
    pixels: Tensor,
    settings: Settings,
    faces: Faces | None = None,
    detector: Detector | None = None,
    method: Method | None = None,
    identity: Any = None,
    progress: Progress = silent,
) -> Result:
    """Take the identity out of a batch ``(B, 3, H, W)`` of pictures.

    Args:
        faces: a plan from an earlier detection or drawn by hand; all of its faces are worked on. Detected when omitted.
        method: replaces the one that ``settings`` names.
        identity: shown instead of a searched one: from an earlier result or an ``Identity`` of the method's space, for
            all selected faces or one for each; or ``Pseudonyms``, which know people again.
        progress: called after each face.
    """
    job = _Job(pixels, settings, method or _open_method(settings), identity, progress)
    return job.run(faces, detector)


def search_identity(
    pictures: Sequence[Picture], settings: Settings, method: Method | None = None, detector: Detector | None = None
) -> Any:
    """One new identity for the person whose face is the largest selected one in each picture, searched over all of them
    together.

    Raises:
        InputError: the method only covers faces, or none of the pictures shows a face that it can replace.
    """
    method = method or _open_method(settings)
    if method is None:
        raise InputError(
            f"method {settings.method} only covers faces, so there is no identity to share; use appearance"
        )
    prepared = []
    for picture in pictures:
        chosen = sorted(settings.selection.of(detect_faces(picture.pixels, detector)), key=lambda f: -f.area)
        face = next((f for f in chosen if f.landmarks and method.refuse(f) is None), None)
        if face is not None:
            embedding = default_recogniser().embed(picture.pixels, face.points)
            prepared.append(method.prepare(View(picture.pixels, face, embedding)))
    if not prepared:
        raise InputError(
            "none of the pictures shows a face that can be replaced, so no shared identity can be searched"
        )
    return method.identify(prepared, settings.seed)


def face_seed(seed: int, face: Face) -> int:
    """The seed of one face: from the user's seed and the person or place, so that removing a face changes no other."""
    place = f"{(face.box[0] + face.box[2]) / 2:.0f}/{(face.box[1] + face.box[3]) / 2:.0f}"
    key = place if face.track is None else f"track/{face.track}"
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:6], "big")


def _open_method(settings: Settings) -> Method | None:
    if settings.method in COVERS:
        return None
    if settings.method in ("referencenet", "inswapper"):
        raise InputError(
            f"the method {settings.method} needs its networks; open them and give the method object as method"
        )
    from ..methods.appearance.method import AppearanceMethod

    return AppearanceMethod(trials=settings.trials)


class _Job:
    """State of one run over a batch."""

    def __init__(
        self, pixels: Tensor, settings: Settings, method: Method | None, identity: Any, progress: Progress
    ) -> None:
        self.original = pixels.detach().to("cpu", torch.float32).clamp(0, 1)
        self.pixels = self.original.clone()
        self.mask = torch.zeros(len(pixels), 1, *pixels.shape[-2:])
        self.settings = settings
        self.method = method
        self.identity = identity
        self.progress = progress
        self.recogniser: Recogniser = default_recogniser()
        self.notes: list[str] = []
        self.rows: dict[int, FaceReport] = {}

    def run(self, plan: Faces | None, detector: Detector | None) -> Result:
        found = detect_faces(self.original, detector) if plan is None else plan
        numbers = _numbers(found)
        chosen = (
            list(range(len(found)))
            if plan is not None and self.settings.selection == Selection()
            else self._selected(found)
        )
        chosen = self._by_person(found, chosen)
        for i in set(range(len(found))) - set(chosen):
            self.rows[i] = self._row(found[i], numbers[i], "kept", reason="not selected")
        self._cover_empty(found, plan is not None, detector)
        embeddings = {i: self._embed(found[i]) for i in chosen}
        shared = self._shared_identity(found, chosen, embeddings)
        given = self._given(shared, chosen, embeddings)
        # Small faces stand behind large ones: whoever comes later is cropped from what is already changed.
        for done, i in enumerate(sorted(chosen, key=lambda i: (found[i].image, found[i].area, i))):
            self.progress(done, len(chosen), "veiling faces")
            self.rows[i] = self._treat(found[i], numbers[i], embeddings[i], given[i])
        self.progress(len(chosen), max(len(chosen), 1), "veiling faces")
        report = Report(tuple(self.rows[i] for i in sorted(self.rows)), tuple(self.notes))
        picture = Picture(self.pixels[:1])
        return Result(self.pixels, self.mask, found, report, picture, self.identity)

    def _selected(self, found: Faces) -> list[int]:
        wanted = set(map(id, self.settings.selection.of(found)))
        return [i for i, face in enumerate(found) if id(face) in wanted]

    def _by_person(self, found: Faces, chosen: list[int]) -> list[int]:
        s = self.settings
        if not s.include and not s.exclude:
            return chosen
        return [i for i in chosen if is_wanted(self.recogniser, self._embed(found[i]), s.include, s.exclude)]

    def _embed(self, face: Face) -> np.ndarray | None:
        if not face.landmarks:
            return None
        return self.recogniser.embed(self.original[face.image : face.image + 1], face.points)

    def _cover_empty(self, found: Faces, planned: bool, detector: Detector | None) -> None:
        for image in sorted(set(range(len(self.pixels))) - {face.image for face in found}):
            # A plan without faces for a picture that shows some leaves them out on purpose.
            if planned and detect_faces(self.original[image : image + 1], detector):
                continue
            action = self.settings.policy.no_face
            which = f" in picture {image}" if len(self.pixels) > 1 else ""
            if action == "stop":
                raise PolicyStop(f"no face was found{which}, so nothing was handed on (policy stop)")
            if action == "redact":
                self.pixels[image] = 0.5
                self.mask[image] = 1.0
                self.notes.append(f"no face was found{which}, so the whole picture was covered (policy redact)")
            else:
                self.notes.append(f"no face was found{which}; the picture was passed unchanged (policy pass)")

    def _shared_identity(self, found: Faces, chosen: list[int], embeddings: dict[int, np.ndarray | None]) -> Any:
        """One identity for all selected faces, searched over their pictures together."""
        if self.identity is not None or not self.settings.same_person or self.method is None:
            return self.identity
        views = [
            View(self.original[found[i].image : found[i].image + 1], found[i], e)
            for i in chosen
            if (e := embeddings[i]) is not None and self.method.refuse(found[i]) is None
        ]
        if not views:
            return None
        self.identity = self.method.identify([self.method.prepare(v) for v in views], self.settings.seed)
        return self.identity

    def _given(self, shared: Any, chosen: list[int], embeddings: dict[int, np.ndarray | None]) -> dict[int, Any]:
        """What each selected face is to show; None where an identity is to be searched."""
        if isinstance(shared, Pseudonyms):
            return {
                i: None if (e := embeddings[i]) is None else shared.of(Identity(e, self.recogniser.name))[1]
                for i in chosen
            }
        if isinstance(shared, Identity) and len(shared) > 1:
            if len(shared) != len(chosen):
                raise InputError(
                    f"{len(shared)} identities were given for {len(chosen)} faces; give one for all, or one for each"
                )
            return {i: shared[place] for place, i in enumerate(chosen)}
        return dict.fromkeys(chosen, shared)

    def _treat(self, face: Face, number: int, embedding: np.ndarray | None, shared: Any) -> FaceReport:
        seed = face_seed(self.settings.seed, face)
        if self.method is None:
            self._cover(face, self.settings.method)  # type: ignore[arg-type]  # Settings checked it
            return self._row(face, number, "redacted", seed=seed)
        reason = self.method.refuse(face) or (None if embedding is not None else "no landmarks were found on it")
        if reason is not None:
            return self._act(self.settings.policy.out_of_range, face, number, seed, reason)
        assert embedding is not None
        try:
            return self._replace(face, number, embedding, seed, shared)
        except FaceVeilError:
            raise
        except (ArithmeticError, ValueError, IndexError, RuntimeError) as error:
            log.warning("the method failed on a face: %s", error)
            return self._act(self.settings.policy.failed, face, number, seed, "the method failed on it")

    def _replace(self, face: Face, number: int, embedding: np.ndarray, seed: int, shared: Any) -> FaceReport:
        assert self.method is not None
        s = self.settings
        here = self.pixels[face.image : face.image + 1]
        prepared = self.method.prepare(View(here, face, embedding))
        parser = s.parser
        # With a parser what covers the face is cut out and stays; without one the model would paint over it.
        doubt = self.method.doubt(prepared) if parser is None else None
        if doubt is not None:
            return self._act(s.policy.out_of_range, face, number, seed, doubt)
        if isinstance(shared, Identity):
            shared = self.method.realise([prepared], shared, seed)
        covered = None if parser is None else parser.covered(self.original[face.image : face.image + 1], face)
        # At a strength below 1 the user asks for likeness, so verification would fight the setting.
        verify = s.strength >= 1.0
        best: tuple[float, Change, np.ndarray] | None = None
        tries = 0
        while tries < (1 if shared is not None else s.tries):
            identity = shared if shared is not None else self.method.identify([prepared], seed + tries)
            change = self.method.veil(prepared, identity, s.strength)
            if covered is not None:
                change = change.behind(here, covered)
            tries += 1
            distance, seen = self._distance(change, embedding)
            if best is None or distance > best[0]:
                best = distance, change, seen
                self.identity = identity
            if not verify or distance >= COMFORTABLE * self.recogniser.threshold:
                break
        assert best is not None
        distance, change, seen = best
        check = Check(self.recogniser.name, self.recogniser.threshold, distance, distance < self.recogniser.threshold)
        if verify and check.same_person and s.policy.still_similar != "pass":
            return self._act(
                s.policy.still_similar, face, number, seed, "the recogniser still knows it", tries, (check,)
            )
        self._apply(face.image, change)
        utility = Utility(*(abs(f(seen) - f(face.points)) for f in (yaw_proxy, mouth_gap, eye_opening)))
        outcome: Outcome = "passed" if verify and check.same_person else "replaced"
        reason = "the recogniser still knows it" if outcome == "passed" else ""
        return self._row(face, number, outcome, seed=seed, tries=tries, checks=(check,), utility=utility, reason=reason)

    def _distance(self, change: Change, embedding: np.ndarray) -> tuple[float, np.ndarray]:
        """Distance of the shown face from the original, and its landmarks as measured anew in the picture's
        coordinates."""
        points = change.points - np.asarray(change.origin)
        box = np.concatenate([points.min(0), points.max(0)])
        seen = fit_landmarks(change.window, box, five_points(points))
        seen = points if seen is None else seen
        distance = self.recogniser.distance(self.recogniser.embed(change.window, seen), embedding)
        return distance, seen + np.asarray(change.origin)

    def _apply(self, image: int, change: Change) -> None:
        x, y = change.origin
        height, width = change.window.shape[-2:]
        where = (slice(image, image + 1), slice(None), slice(y, y + height), slice(x, x + width))
        self.pixels[where] = torch.where(change.mask > 0, change.window, self.pixels[where])
        self.mask[where] = torch.maximum(self.mask[where], (change.mask > 0).float())

    def _act(
        self,
        action: Action,
        face: Face,
        number: int,
        seed: int,
        reason: str,
        tries: int = 0,
        checks: tuple[Check, ...] = (),
    ) -> FaceReport:
        if action == "stop":
            raise PolicyStop(f"face {number} was not protected because {reason}; nothing was handed on (policy stop)")
        if action == "redact":
            self._cover(face, "solid")
        outcome: Outcome = "redacted" if action == "redact" else "passed"
        return self._row(face, number, outcome, seed=seed, reason=reason, tries=tries, checks=checks)

    def _cover(self, face: Face, cover: Cover) -> None:
        here = self.pixels[face.image : face.image + 1]
        covered, mask = redact(here, face, cover, self.settings.shape, sticker=self.settings.sticker)
        self.pixels[face.image : face.image + 1] = covered
        self.mask[face.image : face.image + 1] = torch.maximum(
            self.mask[face.image : face.image + 1], (mask > 0).float()
        )

    def _row(
        self,
        face: Face,
        number: int,
        outcome: Outcome,
        seed: int = 0,
        tries: int = 0,
        reason: str = "",
        checks: tuple[Check, ...] = (),
        utility: Utility | None = None,
    ) -> FaceReport:
        return FaceReport(
            image=face.image,
            number=number,
            box=face.box,
            origin=face.origin,
            outcome=outcome,
            method=self.settings.method,
            strength=self.settings.strength,
            seed=self.settings.seed,
            tries=tries,
            reason=reason,
            checks=checks,
            utility=utility,
        )


def _numbers(found: Sequence[Face]) -> list[int]:
    counts: dict[int, int] = {}
    numbers = []
    for face in found:
        numbers.append(counts.get(face.image, 0))
        counts[face.image] = numbers[-1] + 1
    return numbers
