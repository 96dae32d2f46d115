"""The embedded default as a method: no download, CPU.

``strength`` scales texture change and landmark moves alike: 0 is the photo, 1 the searched identity, 1.5 half as far
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from ...faces.align import five_points
from ...faces.face import Face, eye_opening, inter_ocular, mouth_gap
from ...faces.landmarks import fit_landmarks
from ...identity.identity import Identity
from ...recognition.dlib_resnet import default_recognizer
from ..base import Change, View, too_small
from ..identities import MethodIdentity
from .canonical import Pose2D
from .latent import NAME, appearance_of, latent_of
from .network import AppearanceModel, load_model
from .occlusion import is_child, is_occluded
from .render import REACH, Subject, prepare, render
from .search import TRIALS, aim, search
from .shape import NO_CORRECTION, Correction

MAX_YAW = 45.0
"""Beyond this many degrees of head turn the far half of the face is not seen well enough."""
MAX_PITCH = 35.0
CLOSED = 0.02
"""Lip gap of a closed mouth, in inter-ocular distances."""
JUDGED_IOD = 160.0
"""Inter-ocular distance in pixels at which expression is judged."""
CORRECTIONS, SEEN = 1, 0.015
"""Rounds of bringing eyelids and lips back to the original's opening, and the error that is left alone."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face and where its window lies in the picture."""

    subject: Subject
    origin: tuple[int, int]


class AppearanceMethod:
    """See ``Method``.

    Args:
        trials: renderings that the search may spend on one face; 1 is a single shot.
        model: a trained model; the built-in one when omitted.
    """

    name = NAME

    def __init__(self, trials: int = TRIALS, model: AppearanceModel | None = None) -> None:
        self.trials = trials
        self.model = model or _builtin_model()
        # The model's response was learned from this one.
        self.recognizer = default_recognizer()

    def unsupported_reason(self, face: Face) -> str | None:
        reason = too_small(face)
        if reason is not None:
            return reason
        points = face.points
        shape = Pose2D.of(points).to_frame(points)
        if is_child(shape):
            return "it has a small child's proportions, and the model was taught by adults"
        fit = self.model.shapes.fit(shape)
        if abs(fit.yaw) > MAX_YAW:
            return f"it is turned too far ({abs(fit.yaw):.0f} degrees, at most {MAX_YAW:.0f} are handled)"
        if abs(fit.pitch) > MAX_PITCH:
            return f"it is tilted too far ({abs(fit.pitch):.0f} degrees, at most {MAX_PITCH:.0f} are handled)"
        return None

    def prepare(self, view: View) -> Prepared:
        points = view.face.points
        reach = 1.1 * REACH * inter_ocular(points)
        center = points[27:36].mean(0)
        height, width = view.image.shape[-2:]
        x0, y0 = (int(np.clip(v, 0, n - 1)) for v, n in zip(center - reach, (width, height), strict=True))
        x1, y1 = (int(np.clip(np.ceil(v), 1, n)) for v, n in zip(center + reach, (width, height), strict=True))
        window = view.image[..., y0:y1, x0:x1]
        return Prepared(prepare(self.model, window, points - [x0, y0], view.embedding), (x0, y0))

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return "something covers a part of it" if is_occluded(self.model, prepared.subject) else None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int) -> MethodIdentity:
        # Searched at full strength, so that the strength does not change which person it is.
        found = search(self.model, [p.subject for p in prepared], seed, self.recognizer, trials=self.trials)
        return found.latent.method_identity()

    def from_identity(self, prepared: Sequence[Prepared], identity: Identity, seed: int) -> MethodIdentity:
        found = aim(self.model, [p.subject for p in prepared], identity, self.recognizer, seed)
        return found.latent.method_identity()

    def render(self, prepared: Prepared, identity: MethodIdentity, strength: float) -> Change:
        subject = prepared.subject
        appearance = appearance_of(self.model, latent_of(self.model, identity), subject)
        # Expression is judged on a small picture; a large face is shown in full only once.
        small = subject.scaled(JUDGED_IOD)
        correction = NO_CORRECTION
        window, mask, points = render(self.model, small, appearance, strength)
        for _ in range(CORRECTIONS):
            error = _expression_error(small, window, points)
            if strength == 0 or error is None or max(abs(error.eyes), abs(error.lips)) < SEEN:
                break
            correction = correction.plus(error)
            window, mask, points = render(self.model, small, appearance, strength, correction)
        if small is not subject:
            window, mask, points = render(self.model, subject, appearance, strength, correction)
        return Change(window, prepared.origin, mask, points + np.asarray(prepared.origin))


def _expression_error(subject: Subject, window: Tensor, points: np.ndarray) -> Correction | None:
    """How much wider or narrower than the original a landmark model sees eyes and lips in ``window``, to be taken
    back."""
    box = np.concatenate([points.min(0), points.max(0)])
    seen = fit_landmarks(window, box, five_points(points))
    if seen is None:
        return None
    # Closed lips have no gap to correct: pulling at them would open the mouth.
    lips = mouth_gap(subject.points) - mouth_gap(seen) if mouth_gap(subject.points) > CLOSED else 0.0
    return Correction(eye_opening(subject.points) - eye_opening(seen), lips)


@lru_cache(maxsize=1)
def _builtin_model() -> AppearanceModel:
    return load_model()
