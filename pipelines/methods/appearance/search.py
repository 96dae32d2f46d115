"""Find residual codes that a recognizer sees where they are wanted: at a given identity, or far from the original.

The response model makes the recognizer's answer linear in the codes, so the nearest codes that reach a target follow
from one ridge regression; what a rendering shows instead of the forecast is added to the target of the next round. A
new person starts
from a random stranger, whose texture and shape lie far from the original whatever a recognizer makes of them, and is
then sought in
the direction
of people whom the identity sampler draws, beyond them, and without what a recognizer tells of sex and group: those
    stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ...core.errors import InputError
from ...identity.identity import Identity
from ...identity.lds import builtin_sampler
from ...recognition.base import FaceRecognizer
from ...recognition.thresholds import DLIB_MEAN_LENGTH
from .canonical import REGIONS
from .latent import MAX_CODE, AppearanceLatent, appearance_of, attributes_of, random_codes
from .network import LABELS, TRAITS, AppearanceModel
from .render import Subject, render
from .shape import region_moves

STRANGERS, DRAWN = 3, 12
"""Directions that are tried, and people drawn to choose them from."""
DRAWS, SPREAD = 48, 0.9
"""Random codes of a region of which those farthest from the original are taken, and their standard deviation."""
TRIALS = 15
REACH = 1.3
"""How far from the original a new face is sought, in the recognizer's distance; about two thirds of it are reached."""
GIVEN_RIDGE, FAR_RIDGE = 2e-4, 5e-4
"""Cost of a code's square against a squared distance of embeddings, for a given identity and for a far one."""
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings: what a recognizer's 150 px chip shows."""
ONENESS = 0.5
"""How much the distance between the new faces of one person counts against their distance from the originals."""


CATCH_UP = 0.7
"""Share of what a rendering missed that is added to the next target."""
ROUNDS = 5
_STEP = 0.5


@dataclass(frozen=True)
class Found:
    """A latent, and what the recognizer makes of it.

    Attributes:
        missed: distance to the target in each photo, on trial renderings; empty where nothing was rendered.
        worth: far from the original in the worst photo, and one person in all of them.
    """

    latent: AppearanceLatent
    missed: tuple[float, ...] = ()
    worth: float = 0.0


def search(
    model: AppearanceModel, subjects: list[Subject], seed: int, recognizer: FaceRecognizer, trials: int = TRIALS
) -> Found:
    """Find a new latent for one person seen in one or more photos.

    Args:
        subjects: photos of the same person.
        seed: fixes the latent; the same photos and seed repeat it.
        trials: renderings of each photo; 1 takes the forecast and renders nothing.
    """
    solver = _Solver(model, subjects, recognizer, seed, FAR_RIDGE)
    here = np.mean([s.embedding for s in subjects], axis=0)
    directions = _strangers(model, here, seed)
    generator = torch.Generator().manual_seed(seed)
    count = min(STRANGERS, trials)
    starts = [solver.stranger(generator) for _ in range(count)]
    if trials == 1:
        return Found(solver.latent(here + REACH * directions[0], starts[0]))
    found = [
        solver.approach(here + REACH * d, max(1, trials // count), z) for d, z in zip(directions, starts, strict=False)
    ]
    return max((f for tried in found for f in tried), key=lambda f: f.worth)


def aim(
    model: AppearanceModel, subjects: list[Subject], wanted: Identity, recognizer: FaceRecognizer, seed: int = 0
) -> Found:
    """A latent for one person seen in one or more photos that looks like ``wanted`` to the recognizer.

    Raises:
        InputError: the identity belongs to another recognizer's space.
    """
    if wanted.space != recognizer.name:
        raise InputError(
            f"the appearance method shows identities of {recognizer.name}, but this one is of {wanted.space}; embed it"
            f" with {recognizer.name}"
        )
    solver = _Solver(model, subjects, recognizer, seed, GIVEN_RIDGE)
    tried = solver.approach(wanted.vector * DLIB_MEAN_LENGTH, ROUNDS, np.zeros(solver.size))
    return min(tried, key=lambda f: max(f.missed))


def _strangers(model: AppearanceModel, here: np.ndarray, seed: int) -> list[np.ndarray]:
    """Unit directions ``(D,)`` from an embedding towards drawn people who are least alike, without sex look and
    group."""
    people = builtin_sampler("dlib").sample(DRAWN, seed).vectors * DLIB_MEAN_LENGTH
    # What the labels are read from: moving across it leaves them as they are.
    across, _ = np.linalg.qr(model.attributes.labels[: len(here), : len(LABELS)])
    ways = people - here
    ways = ways - ways @ across @ across.T
    lengths = np.linalg.norm(ways, axis=1)
    return [ways[i] / lengths[i] for i in np.argsort(-lengths)[:STRANGERS]]


class _Solver:
    """Codes for targets, for one person in one or more photos."""

    def __init__(
        self, model: AppearanceModel, subjects: list[Subject], recognizer: FaceRecognizer, seed: int, ridge: float
    ) -> None:
        from scipy.linalg import cho_factor

        self._model, self._recognizer, self._seed = model, recognizer, seed
        self._subjects = subjects
        self._originals = [s.embedding for s in subjects]
        self._traits = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
        systems = [_linearize(model, subject, self._traits) for subject in subjects]
        self._jacobian = np.concatenate([jacobian for jacobian, _ in systems])
        self._starts = np.stack([start for _, start in systems])
        self._factor = cho_factor(
            self._jacobian.T @ self._jacobian + ridge * len(subjects) * np.eye(self._jacobian.shape[1])
        )
        self._small = [subject.scaled(TRIAL_IOD) for subject in subjects]
        self._places = np.cumsum([model.regions[n].residual.shape[1] for n in REGIONS])[:-1]

    @property
    def size(self) -> int:
        """Codes of all regions together."""
        return self._jacobian.shape[1]

    def stranger(self, generator: torch.Generator) -> np.ndarray:
        """Random codes ``(Z,)`` whose texture and shape lie far from the original in all photos."""
        chosen = []
        for name in REGIONS:
            k, z = self._model.regions[name].components, random_codes(self._model, name, DRAWS, SPREAD, generator)
            far = np.zeros(DRAWS)
            for subject in self._subjects:
                joint = self._model.expected(name, attributes_of(subject, self._traits)) + self._model.person(name, z)
                for part in (joint[:, :k] - subject.codes[name], joint[:, k:] - subject.fit.coefficients):
                    length = np.linalg.norm(part, axis=1)
                    far += length / (length.std() + 1e-9)
            chosen.append(z[int(far.argmax())])
        return np.concatenate(chosen)

    def latent(self, targets: np.ndarray, start: np.ndarray) -> AppearanceLatent:
        """The codes nearest to ``start`` whose forecast comes near ``targets``, ``(D,)`` or ``(photos, D)``."""
        from scipy.linalg import cho_solve

        rest = (targets - self._starts).reshape(-1) - self._jacobian @ start
        z = np.clip(start + cho_solve(self._factor, self._jacobian.T @ rest), -MAX_CODE, MAX_CODE).astype(np.float32)
        return AppearanceLatent(dict(zip(REGIONS, np.split(z, self._places), strict=True)), self._traits, self._seed)

    def approach(self, target: np.ndarray, rounds: int, start: np.ndarray) -> list[Found]:
        """Render, see what was missed, and aim beyond."""
        targets = np.stack([target] * len(self._small))
        found = []
        for _ in range(rounds):
            latent = self.latent(targets, start)
            shown = np.stack([self._show(latent, subject) for subject in self._small])
            targets = targets + CATCH_UP * (target - shown)
            found.append(self._judge(latent, shown, target))
        return found

    def _show(self, latent: AppearanceLatent, subject: Subject) -> np.ndarray:
        window, _, points = render(self._model, subject, appearance_of(self._model, latent, subject), 1.0)
        return self._recognizer.embed(window, points)

    def _judge(self, latent: AppearanceLatent, shown: np.ndarray, target: np.ndarray) -> Found:
        distance = self._recognizer.distance
        own = [distance(s, o) for s, o in zip(shown, self._originals, strict=True)]
        apart = [distance(a, b) for a, b in combinations(shown, 2)]
        worth = min(own) - ONENESS * (float(np.mean(apart)) if apart else 0.0)
        return Found(latent, tuple(distance(s, target) for s in shown), worth)


def _linearize(model: AppearanceModel, subject: Subject, traits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Embedding as ``jacobian z + start``, ``(D, Z)`` and ``(D,)``, for the codes of all regions in a row."""
    attributes = attributes_of(subject, traits)
    start = subject.embedding + model.jacobian.base(subject.embedding)
    columns = []
    for name in REGIONS:
        k, size = model.regions[name].components, model.regions[name].residual.shape[1]
        steps = model.person(name, np.concatenate([np.zeros((1, size)), _STEP * np.eye(size)]))
        joint = model.expected(name, attributes) + steps
        moves = region_moves(model.shapes, subject.fit, subject.shape, name, joint[:, k:])
        answers = model.jacobian.region(name, joint[:, :k] - subject.codes[name], moves)
        start = start + answers[0]
        columns.append((answers[1:] - answers[0]).T / _STEP)
    return np.concatenate(columns, 1), start
