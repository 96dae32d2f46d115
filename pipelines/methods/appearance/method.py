"""The method ``appearance``: the built-in model. It needs no download and runs on the CPU.

``strength`` scales the texture change and the landmark displacements: 0 is the photo, 1 the searched identity, and 1.5
extrapolates by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from ...core.progress import Progress, silent
from ...core.threads import one_thread
from ...faces.align import five_points
from ...faces.face import Face, brow_height, eye_opening, inter_ocular, mouth_gap, yaw_proxy
from ...faces.landmarks import fit_landmarks
from ...identity.identity import Identity
from ...recognition.catalog import open_recognizer
from ..base import Change, View, too_small
from ..identities import MethodIdentity
from .canonical import Pose2D
from .jacobian import GUIDES
from .latent import NAME, appearance_of, correction_of, latent_of, with_correction
from .network import AppearanceModel, load_model
from .occlusion import is_child, is_occluded
from .render import REACH, Appearance, Subject, canonical_change, prepare, render
from .search import search, search_target
from .shape import NO_CORRECTION, Correction
from .spec import SEARCH

MAX_YAW = 45.0
"""Maximum yaw in degrees. Beyond it, too little of the far half of the face is visible."""
MAX_PITCH = 35.0
"""Maximum pitch in degrees."""
CLOSED_LIP_GAP = 0.02
"""Maximum lip gap of a closed mouth, in inter-ocular distances."""
EXPRESSION_IOD = 160.0
"""Inter-ocular distance in pixels at which the expression is measured."""
ROUNDS, FRAME_ROUNDS = 4, 2
"""Rounds of expectation-maximization that fit the texture of a photo, and of a video's frame: the results differ by .03
levels of 255 on average."""
CORRECTIONS, TOLERANCE = 5, 0.010
"""Rounds that correct what must stay, and the error that needs no correction."""
BROW_CHANGE = 0.031
"""Change of the brows' height, in inter-ocular distances, that needs no correction: the new person's brows differ."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face, and the ``(x, y)`` of its patch's top left corner in the image."""

    subject: Subject
    origin: tuple[int, int]


class AppearanceMethod:
    """Implements ``Method`` with the built-in model.

    Args:
        trials: maximum renderings of one search, and 4 more where a face is hard; 1 uses the linear forecast without
            any rendering.
        model: a trained model; the built-in one when omitted.
    """

    name = NAME

    def __init__(self, trials: int = SEARCH, model: AppearanceModel | None = None) -> None:
        self.trials = trials
        self.model = model or _builtin_model()
        self.guides = tuple(open_recognizer(name) for name in GUIDES)

    def unsupported_reason(self, face: Face) -> str | None:
        reason = too_small(face)
        if reason is not None:
            return reason
        points = face.points
        fit = self.model.shapes.fit(Pose2D.of(points).to_canonical(points))
        if abs(fit.yaw) > MAX_YAW:
            return f"its yaw is too large ({abs(fit.yaw):.0f} degrees, the limit is {MAX_YAW:.0f})"
        if abs(fit.pitch) > MAX_PITCH:
            return f"its pitch is too large ({abs(fit.pitch):.0f} degrees, the limit is {MAX_PITCH:.0f})"
        if is_child(self.model.shapes, fit):
            return "it has a small child's proportions, and the model is for adults"
        return None

    @one_thread()
    def prepare(self, view: View) -> Prepared:
        points = view.face.points
        reach = 1.1 * REACH * inter_ocular(points)
        center = points[27:36].mean(0)
        height, width = view.image.shape[-2:]
        x0, y0 = (int(np.clip(v, 0, n - 1)) for v, n in zip(center - reach, (width, height), strict=True))
        x1, y1 = (int(np.clip(np.ceil(v), 1, n)) for v, n in zip(center + reach, (width, height), strict=True))
        patch = view.image[..., y0:y1, x0:x1]
        # Only the search asks the other guides.
        guides = () if view.frame else self.guides[1:]
        embeddings = (view.embedding, *(guide.embed(view.image, points) for guide in guides))
        rounds = FRAME_ROUNDS if view.frame else ROUNDS
        return Prepared(prepare(self.model, patch, points - [x0, y0], *embeddings, rounds=rounds), (x0, y0))

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return "something is in front of it" if is_occluded(self.model, prepared.subject) else None

    @one_thread()
    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        # The search uses strength 1, so that the strength does not change the identity.
        result = search(self.model, [p.subject for p in prepared], seed, self.guides, self.trials, progress)
        return result.latent.method_identity()

    @one_thread()
    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        subjects = [p.subject for p in prepared]
        result = search_target(self.model, subjects, identity, self.guides, seed, self.trials, progress)
        return result.latent.method_identity()

    @one_thread()
    def settled(self, prepared: Sequence[Prepared], identity: MethodIdentity, strength: float) -> MethodIdentity:
        """Measure the correction of the expression once, so that a video's frames need one rendering each."""
        found = []
        for one in prepared:
            small = one.subject.scaled(EXPRESSION_IOD)
            appearance = self._appearance(identity, small)
            change = canonical_change(self.model, small, appearance, strength)
            found.append(_corrected(self.model, small, appearance, strength, change)[0].values)
        return with_correction(identity, np.median(found, axis=0))

    @one_thread()
    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        subject = prepared.subject
        appearance = self._appearance(identity, subject)
        change = canonical_change(self.model, subject, appearance, strength)
        correction, rendered = correction_of(identity), None
        if correction is None and strength > 0:
            # Correct the expression on a small image, and render a large face at full size only once.
            small = subject.scaled(EXPRESSION_IOD)
            correction, last = _corrected(self.model, small, appearance, strength, change)
            rendered = last if small is subject else None
        if rendered is None:
            rendered = render(self.model, subject, appearance, strength, correction or NO_CORRECTION, change)
        patch, mask, points = rendered
        return Change(patch, prepared.origin, mask, points + np.asarray(prepared.origin))

    def _appearance(self, identity: MethodIdentity, subject: Subject) -> Appearance:
        return appearance_of(self.model, latent_of(self.model, identity), subject)


def _corrected(
    model: AppearanceModel, subject: Subject, appearance: Appearance, strength: float, change: Tensor
) -> tuple[Correction, tuple[Tensor, Tensor, np.ndarray] | None]:
    """The correction that keeps the expression best, and the rendering with it where that was the last one."""
    correction, tried = NO_CORRECTION, list[tuple[float, Correction]]()
    gains, previous = np.ones(len(NO_CORRECTION.values)), NO_CORRECTION.values
    for _ in range(CORRECTIONS + 1):
        patch, mask, points = render(model, subject, appearance, strength, correction, change)
        error = _expression_error(subject, patch, points)
        # Landmarks are noisy, so a further correction can be worse: the best one is kept.
        tried.append((np.inf if error is None else error.largest, correction))
        if error is None or error.largest < TOLERANCE:
            break
        # Where the landmarks jump, whole steps would go back and forth.
        gains[-error.values * np.sign(previous) > np.abs(previous) / 2] /= 2
        previous = error.values
        correction = correction.plus(Correction(*(float(v) for v in gains * error.values)))
    best = min(tried, key=lambda t: t[0])[1]
    return best, (patch, mask, points) if best is tried[-1][1] else None


def _expression_error(subject: Subject, patch: Tensor, points: np.ndarray) -> Correction | None:
    """Compare eye opening, lip gap, brow height and yaw of the original with those that a landmark model detects in
    ``patch``.

    Returns:
        The original's values minus the detected ones; None where no landmarks are found.
    """
    box = np.concatenate([points.min(0), points.max(0)])
    detected = fit_landmarks(patch, box, five_points(points))
    if detected is None:
        return None
    # Do not correct closed lips: a correction would open the mouth.
    lips = mouth_gap(subject.points) - mouth_gap(detected) if mouth_gap(subject.points) > CLOSED_LIP_GAP else 0.0
    rise = brow_height(detected) - brow_height(subject.points)
    return Correction(
        eyes=eye_opening(subject.points) - eye_opening(detected),
        lips=lips,
        brows=float(np.clip(rise, -BROW_CHANGE, BROW_CHANGE)) - rise,
        yaw=yaw_proxy(subject.points) - yaw_proxy(detected),
    )


@lru_cache(maxsize=1)
def _builtin_model() -> AppearanceModel:
    return load_model()
