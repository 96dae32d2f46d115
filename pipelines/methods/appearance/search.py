"""Search latent codes whose rendering has a target embedding: a given identity, or one far from the original.

The embedding Jacobian makes the embedding linear in the codes, so one ridge regression gives the codes closest to the
start that reach a target. Each round renders these codes and adds the remaining error to the target of the next round.
A new identity starts from random codes whose texture and shape differ strongly from the original, independent of any
recognizer. Its target direction points from the original to an embedding that the identity sampler generates, without
the components that predict sex and group, so these stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ...core.errors import InputError
from ...core.progress import Progress, part_of, silent
from ...identity.identity import Identity
from ...identity.lds import builtin_sampler
from ...recognition.base import FaceRecognizer
from ...recognition.thresholds import DLIB_MEAN_LENGTH
from .canonical import REGIONS
from .latent import MAX_CODE, AppearanceLatent, appearance_of, attributes_of, random_codes
from .network import LABELS, TRAITS, AppearanceModel
from .render import Subject, render
from .shape import region_moves

DIRECTIONS, SAMPLED_IDENTITIES = 3, 12
"""Number of target directions, and of the sampled identities that they are selected from."""
START_SAMPLES, SPREAD = 48, 0.9
"""Number of random codes per region, of which the farthest from the original is selected, and their deviation."""
TRIALS = 15
"""Default number of renderings per photo."""
TARGET_DISTANCE = 1.3
"""Distance from the original to the target in embedding space. Renderings reach about two thirds of it."""
TARGET_RIDGE, SEARCH_RIDGE = 2e-4, 5e-4
"""Ridge weights of squared codes relative to squared embedding distances: for a given identity, and for a new one."""
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings in pixels, as in the recognizer's aligned 150 px input."""
CONSISTENCY_WEIGHT = 0.5
"""Weight of the mean distance between the new faces of one person, which is subtracted from the score."""
FEEDBACK = 0.7
"""Share of the error of a rendering that is added to the next target."""
ROUNDS = 5
"""Renderings of the search for a given identity."""
_STEP = 0.5
"""Step of the finite differences in ``z``."""


@dataclass(frozen=True)
class SearchResult:
    """A latent and its evaluation by the recognizer.

    Attributes:
        latent: the codes.
        target_distances: embedding distance of the trial rendering of each photo to the target; empty without
            rendering.
        score: smallest distance to an original, minus ``CONSISTENCY_WEIGHT`` times the mean distance between photos.
    """

    latent: AppearanceLatent
    target_distances: tuple[float, ...] = ()
    score: float = 0.0


def search(
    model: AppearanceModel,
    subjects: list[Subject],
    seed: int,
    recognizer: FaceRecognizer,
    trials: int = TRIALS,
    progress: Progress = silent,
) -> SearchResult:
    """Search a new identity for one person in one or more photos.

    Args:
        subjects: faces of the same person.
        seed: the same photos and seed give the same latent.
        trials: renderings per photo; 1 uses the linear forecast without rendering.
        progress: called before each rendering.
    """
    solver = _Solver(model, subjects, recognizer, seed, SEARCH_RIDGE)
    embedding = np.mean([s.embedding for s in subjects], axis=0)
    directions = _search_directions(model, embedding, seed)
    generator = torch.Generator().manual_seed(seed)
    count = min(DIRECTIONS, trials)
    starts = [solver.random_start(generator) for _ in range(count)]
    if trials == 1:
        return SearchResult(solver.latent(embedding + TARGET_DISTANCE * directions[0], starts[0]))
    rounds = max(1, trials // count)
    found = [
        solver.refine(embedding + TARGET_DISTANCE * d, rounds, z, part_of(progress, done, count))
        for done, (d, z) in enumerate(zip(directions, starts, strict=False))
    ]
    return max((f for results in found for f in results), key=lambda f: f.score)


def search_target(
    model: AppearanceModel,
    subjects: list[Subject],
    identity: Identity,
    recognizer: FaceRecognizer,
    seed: int = 0,
    progress: Progress = silent,
) -> SearchResult:
    """Search a latent for one person in one or more photos whose embedding is close to ``identity``.

    Raises:
        InputError: the identity belongs to the space of another recognizer, or has another size.
    """
    if identity.space != recognizer.name:
        raise InputError(
            f"the appearance method needs an identity of the space {recognizer.name}, but this one is of"
            f" {identity.space}; embed the face with {recognizer.name}"
        )
    if identity.vector.shape != (recognizer.dimension,):
        raise InputError(
            f"an identity of {recognizer.name} has {recognizer.dimension} numbers, but this one has"
            f" {identity.vector.size}; save it again"
        )
    solver = _Solver(model, subjects, recognizer, seed, TARGET_RIDGE)
    results = solver.refine(identity.vector * DLIB_MEAN_LENGTH, ROUNDS, np.zeros(solver.size), progress)
    return min(results, key=lambda f: max(f.target_distances))


def _search_directions(model: AppearanceModel, embedding: np.ndarray, seed: int) -> list[np.ndarray]:
    """Compute unit directions ``(D,)`` from an embedding to the farthest sampled identities, without the components of
    apparent sex and group."""
    samples = builtin_sampler("dlib").sample(SAMPLED_IDENTITIES, seed).vectors * DLIB_MEAN_LENGTH
    # The labels are linear in this subspace; directions orthogonal to it do not change them.
    label_basis, _ = np.linalg.qr(model.attributes.labels[: len(embedding), : len(LABELS)])
    directions = samples - embedding
    directions = directions - directions @ label_basis @ label_basis.T
    lengths = np.linalg.norm(directions, axis=1)
    return [directions[i] / lengths[i] for i in np.argsort(-lengths)[:DIRECTIONS]]


class _Solver:
    """Solves for the codes of target embeddings, for one person in one or more photos."""

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
        self._boundaries = np.cumsum([model.regions[n].residual.shape[1] for n in REGIONS])[:-1]

    @property
    def size(self) -> int:
        """Number of codes of all regions."""
        return self._jacobian.shape[1]

    def random_start(self, generator: torch.Generator) -> np.ndarray:
        """Sample codes ``(Z,)`` whose texture and shape are far from the original in all photos."""
        chosen = []
        for name in REGIONS:
            k, z = (
                self._model.regions[name].components,
                random_codes(self._model, name, START_SAMPLES, SPREAD, generator),
            )
            distances = np.zeros(START_SAMPLES)
            for subject in self._subjects:
                joint = self._model.expected(name, attributes_of(subject, self._traits)) + self._model.deviation(
                    name, z
                )
                for part in (joint[:, :k] - subject.codes[name], joint[:, k:] - subject.fit.coefficients):
                    length = np.linalg.norm(part, axis=1)
                    distances += length / (length.std() + 1e-9)
            chosen.append(z[int(distances.argmax())])
        return np.concatenate(chosen)

    def latent(self, targets: np.ndarray, start: np.ndarray) -> AppearanceLatent:
        """Solve for codes close to ``start`` whose forecast is close to ``targets``, ``(D,)`` or ``(photos, D)``."""
        from scipy.linalg import cho_solve

        rest = (targets - self._starts).reshape(-1) - self._jacobian @ start
        z = np.clip(start + cho_solve(self._factor, self._jacobian.T @ rest), -MAX_CODE, MAX_CODE).astype(np.float32)
        return AppearanceLatent(
            dict(zip(REGIONS, np.split(z, self._boundaries), strict=True)), self._traits, self._seed
        )

    def refine(self, target: np.ndarray, rounds: int, start: np.ndarray, progress: Progress) -> list[SearchResult]:
        """Alternate between solving and rendering, and add the error of each rendering to the targets."""
        targets = np.stack([target] * len(self._small))
        found = []
        for done in range(rounds):
            progress(done, rounds, "searching an identity")
            latent = self.latent(targets, start)
            embeddings = np.stack([self._render_and_embed(latent, subject) for subject in self._small])
            targets = targets + FEEDBACK * (target - embeddings)
            found.append(self._score(latent, embeddings, target))
        return found

    def _render_and_embed(self, latent: AppearanceLatent, subject: Subject) -> np.ndarray:
        patch, _, points = render(self._model, subject, appearance_of(self._model, latent, subject), 1.0)
        return self._recognizer.embed(patch, points)

    def _score(self, latent: AppearanceLatent, embeddings: np.ndarray, target: np.ndarray) -> SearchResult:
        distance = self._recognizer.distance
        to_originals = [distance(s, o) for s, o in zip(embeddings, self._originals, strict=True)]
        between = [distance(a, b) for a, b in combinations(embeddings, 2)]
        score = min(to_originals) - CONSISTENCY_WEIGHT * (float(np.mean(between)) if between else 0.0)
        return SearchResult(latent, tuple(distance(s, target) for s in embeddings), score)


def _linearize(model: AppearanceModel, subject: Subject, traits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the linear forecast ``jacobian z + start``: ``(D, Z)`` and ``(D,)``, for the concatenated codes of all
    regions."""
    attributes = attributes_of(subject, traits)
    start = subject.embedding + model.jacobian.base(subject.embedding)
    columns = []
    for name in REGIONS:
        k, size = model.regions[name].components, model.regions[name].residual.shape[1]
        steps = model.deviation(name, np.concatenate([np.zeros((1, size)), _STEP * np.eye(size)]))
        joint = model.expected(name, attributes) + steps
        moves = region_moves(model.shapes, subject.fit, subject.shape, name, joint[:, k:])
        shifts = model.jacobian.region(name, joint[:, :k] - subject.codes[name], moves)
        start = start + shifts[0]
        columns.append((shifts[1:] - shifts[0]).T / _STEP)
    return np.concatenate(columns, 1), start
