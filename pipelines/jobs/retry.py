"""Generate faces again with other seeds, until no recognizer takes them for the originals; then the policy acts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..core.errors import FaceVeilError, InputError, PolicyStop
from ..core.progress import Progress, part_of, silent
from ..faces.align import apply
from ..faces.crops import Place, face_mask
from ..faces.detect import detect_faces
from ..faces.face import Face
from ..faces.redact import redact
from ..imaging.resample import resize
from ..methods.base import Change
from ..recognition.base import FaceRecognizer
from .policy import Action
from .replace import POLICY_STYLE
from .report import FaceReport, Report
from .verify import Verification, verify

log = logging.getLogger(__name__)

SEEDS = 1 << 64
"""Seeds of samplers: from 0 to one less."""
Generator = Callable[[int, Progress], Tensor]
"""Takes a seed and a progress; returns a new square ``(N, 3, S, S)`` in [0, 1] for each face."""


@dataclass(frozen=True)
class Retried:
    """What the last tries gave.

    Attributes:
        squares: ``(N, 3, S, S)``: of each face the one that the recognizers find least like the original; redacted
            where one of them still matches and the policy says so.
        masks: what to paste of each, ``(N, 1, S, S)``: the face with a soft edge; of a redacted one all of that.
        report: of all faces.
    """

    squares: Tensor
    masks: Tensor
    report: Report


@dataclass(frozen=True)
class _Original:
    """One face in its square.

    Attributes:
        square: ``(1, 3, S, S)``, at the size of the new squares.
        mask: what Paste Faces takes of a new square, ``(1, 1, S, S)``.
        face: with landmarks in pixels of the new squares.
        embeddings: ``(D,)``, by each recognizer.
    """

    square: Tensor
    mask: Tensor
    face: Face
    embeddings: tuple[np.ndarray, ...]


@dataclass
class _Best:
    """The best square of one face so far."""

    square: Tensor
    verification: Verification
    seed: int
    tries: int


def until_different(
    squares: Tensor,
    places: Sequence[Place],
    generate: Generator,
    recognizers: Sequence[FaceRecognizer],
    seed: int,
    tries: int,
    unsafe: Action,
    progress: Progress = silent,
) -> Retried:
    """Generate until every recognizer says of every face that it is another person.

    Args:
        squares: the original faces ``(N, 3, S, S)``, as ``crop_faces`` cut them.
        places: of the squares.
        generate: called with ``seed``, ``seed + 1``, ...; a face keeps its first square that no recognizer matches.
        tries: at most.
        unsafe: what happens to a face that a recognizer still matches, or that cannot be compared.

    Raises:
        InputError: the numbers of squares and places differ, or of what was generated.
        PolicyStop: the policy is ``stop`` and a face would not be protected.
    """
    if len(squares) != len(places) or not places:
        raise InputError(f"{len(squares)} crops do not match {len(places)} places; connect both outputs of Crop Faces")
    # A recognizer without a threshold is refused before the first sampling.
    for recognizer in recognizers:
        recognizer.threshold_at()
    best: dict[int, _Best] = {}
    originals: list[_Original | None] = []
    made = squares
    for number in range(tries):
        tried = (seed + number) % SEEDS
        made = generate(tried, part_of(progress, number, tries))
        _check(made, squares)
        if not originals:
            originals = [
                _original(square[None], p, made.shape[-1], recognizers)
                for square, p in zip(squares, places, strict=True)
            ]
        for i, original in enumerate(originals):
            if original is not None and not _is_different(best.get(i)):
                best[i] = _better(best.get(i), made[i : i + 1], original, recognizers, tried, number + 1)
        if all(original is None or _is_different(best.get(i)) for i, original in enumerate(originals)):
            break
    concluded = [
        _concluded(made[i : i + 1], best.get(i), place, i, made.shape[-1], unsafe) for i, place in enumerate(places)
    ]
    results, masks, rows = zip(*concluded, strict=True)
    return Retried(torch.cat(results), torch.cat(masks), Report(rows))


def _check(made: Tensor, squares: Tensor) -> None:
    height, width = made.shape[-2:]
    if len(made) != len(squares) or height != width:
        raise InputError(
            f"{len(made)} pictures of {width} x {height} pixels were generated for {len(squares)} square crops; connect"
            " the latent of the crops"
        )


def _in_square(place: Place, side: int) -> Face:
    """The face in pixels of its square, at this side."""
    transform = place.transform * (side / place.size)
    x1, y1, x2, y2 = place.face.box
    corners = apply(transform, np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]))
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    landmarks = tuple((float(x), float(y)) for x, y in apply(transform, np.array(place.face.landmarks).reshape(-1, 2)))
    return Face(box=(left, top, right, bottom), landmarks=landmarks, score=place.face.score)


def _original(square: Tensor, place: Place, side: int, recognizers: Sequence[FaceRecognizer]) -> _Original | None:
    """None for a face without landmarks, or that a recognizer cannot embed: nothing can be compared with it."""
    if not place.face.landmarks:
        return None
    points = _in_square(place, square.shape[-1]).points
    try:
        embeddings = tuple(recognizer.embed(square, points) for recognizer in recognizers)
    except (FaceVeilError, RuntimeError, ValueError) as error:
        log.warning("a face could not be embedded: %s", error)
        return None
    mask = face_mask(place.face, place.transform * (side / place.size), side)
    return _Original(resize(square, side, side), mask, _in_square(place, side), embeddings)


def _is_different(found: _Best | None) -> bool:
    return found is not None and not found.verification.matched_by and not found.verification.failed


def _better(
    best: _Best | None,
    square: Tensor,
    original: _Original,
    recognizers: Sequence[FaceRecognizer],
    seed: int,
    tries: int,
) -> _Best:
    # What will be seen: at the edge of the face the photo shows through.
    shown = torch.lerp(original.square, square, original.mask)
    change = Change(shown, (0, 0), original.mask, original.face.points)
    verification = verify(change, original.embeddings, recognizers)
    # A sampler may also have put the person somewhere else in the square.
    for face in detect_faces(shown):
        if face.landmarks:
            elsewhere = replace(change, points=face.points)
            verification = min(
                verification, verify(elsewhere, original.embeddings, recognizers), key=lambda found: found.margin
            )
    if best is None or verification.margin > best.verification.margin:
        return _Best(square, verification, seed, tries)
    best.tries = tries
    return best


def _concluded(
    made: Tensor, best: _Best | None, place: Place, number: int, side: int, unsafe: Action
) -> tuple[Tensor, Tensor, FaceReport]:
    """The square of one face, what to paste of it, and its report, after the policy."""
    face, mask = place.face, face_mask(place.face, place.transform * (side / place.size), side)
    row = FaceReport(
        image=face.image,
        number=number,
        box=face.box,
        origin=face.origin,
        outcome="replaced",
        selected=True,
        method="retry",
        strength=1.0,
        seed=0 if best is None else best.seed,
        tries=0 if best is None else best.tries,
        checks=() if best is None else best.verification.checks,
    )
    square = made if best is None else best.square
    if _is_different(best):
        return square, mask, row
    row = replace(row, reason=_reason(best))
    if unsafe == "stop":
        raise PolicyStop(f"face {number} was not protected because {row.reason}; nothing was handed on (policy stop)")
    if unsafe == "pass":
        return square, mask, replace(row, outcome="passed")
    redacted, area = redact(square, _in_square(place, side), POLICY_STYLE, "ellipse")
    return redacted, torch.maximum(mask, area), replace(row, outcome="redacted", method=POLICY_STYLE)


def _reason(best: _Best | None) -> str:
    """Why a face is not safe, in a clause."""
    if best is None:
        return "no recognizer could compare it"
    matched, failed = best.verification.matched_by, best.verification.failed
    if matched:
        return f"{' and '.join(matched)} still match{'es' * (len(matched) == 1)} it after {best.tries} tries"
    return f"{' and '.join(failed)} could not compare it"
