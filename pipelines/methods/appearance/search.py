"""Search latent codes whose rendering no recognizer takes for the original.

A new identity is drawn by the identity sampler, independent of the original; a given one is taken as it is. The search
starts from strangers: people of the training set who are of similar sex, age, skin and beard. For a drawn identity,
parts of them are combined; for a given one, those near it are taken. Guides are recognizers with a linear forecast of
their answer. The least change of the codes is solved for that moves each guide's embedding away from the original up to
the distance of strangers, which leaves an attacker little to undo, keeps apparent sex and age, and pulls towards the
identity. It is rendered, measured and corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...core.errors import InputError
from ...core.progress import Progress, part_of, silent
from ...identity.identity import Identity
from ...identity.lds import builtin_sampler
from ...recognition.base import FaceRecognizer
from ...recognition.thresholds import DLIB_MEAN_LENGTH
from ...training.labels import LABELS
from .canonical import REGIONS
from .jacobian import GUIDES
from .latent import MAX_CODE, AppearanceLatent, appearance_of, attributes_of
from .mixing import EXCESS_WEIGHT, GOALS, LABEL_SLACK, Contributions, Mixer
from .natural import Naturalness, Parts
from .network import TRAITS, AppearanceModel
from .render import Subject, render
from .shape import region_moves

TRIALS = 16
"""Default number of renderings per photo."""
FORECASTS, MORE_ROUNDS, SURE_MARGIN = 3, 4, 0.91
"""Rounds without a rendering, and further ones with it from the best result where its margin is smaller."""


@dataclass(frozen=True)
class Pull:
    """How strongly the search pulls towards the target.

    Attributes:
        rounds: renderings from one start.
        ridge: how much the forecast may miss the target in order to change the codes less.
        accepted: share of the goals that is enough; more of it does not make a result better.
        strangers: number of people, drawn at random.
        mixed: whether starts combine parts of people, far from the original; else they are people near to the target.
        natural: how much naturalness may be missed in order to change the codes less.
        overshoot: factor of the changes: the forecast is regularized, and limits of the rendering stop a part of each.
    """

    rounds: int
    ridge: float
    accepted: float
    strangers: int
    mixed: bool
    natural: float
    overshoot: float


NEAREST_PEOPLE = 140
"""Number of the people with the most similar traits, who are strangers to start from."""
DRAWN = Pull(rounds=2, ridge=0.15, accepted=0.95, strangers=100, mixed=True, natural=0.0005, overshoot=1.5)
GIVEN = Pull(rounds=3, ridge=0.0006, accepted=0.88, strangers=NEAREST_PEOPLE, mixed=False, natural=0.01, overshoot=2.1)
"""A drawn identity only chooses a direction, and each seed another stranger; a given one is to be recognized again."""
TRAIT_WEIGHTS = {"male": 3.0, "age": 3.0}
"""Weights of traits in the similarity of people; 1 for all others."""
MAX_START = 1.1
"""Largest strain of a stranger's codes at the start."""
STRAIN_WEIGHT = 0.3
"""Share of a goal that a result may be nearer to the original if its strain is 1 less."""
MIN_MARGIN, LACK_WEIGHT = 0.78, 3.0
"""Margin below which naturalness hardly counts, because recognizers could still match the face; weight of its lack."""
EASE = {"eyes": 1.2, "nose": 0.6, "mouth": 1.0, "base": 1.0}
"""How easily the codes of each region change. Large changes of the nose look like caricatures."""
SOFT_CODE = 1.5
"""A code of this size changes half as easily as one of 0, so that faces stay natural."""
DISTANCE_RIDGE, LABEL_RIDGE = 0.002, 0.003
"""How much the forecast may miss a goal in order to change the codes less; large values mean more."""
MAX_LABEL_STEP = 1.5
"""Limit of the change of a label in one round."""
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings in pixels, as in the recognizer's aligned 150 px input."""
SEARCHING = "searching an identity"
_KEPT_LABELS = (LABELS.index("male"), LABELS.index("age"))
_STEP = 0.5
"""Step of the finite differences in ``z``."""


def _strain(codes: np.ndarray) -> float:
    """Root mean square of codes ``(Z,)``: 1 for a typical person, more for one who looks strained."""
    return float(np.sqrt((codes**2).mean()))


@dataclass(frozen=True)
class SearchResult:
    """A latent and its evaluation by the guides.

    Attributes:
        latent: the codes.
        margin: smallest distance to an original, in goals, over guides and photos; a forecast without a rendering.
        target_distance: largest distance in dlib's space to the target over all photos.
        excess: how far measures of naturalness, apparent sex and age are beyond their limits.
    """

    latent: AppearanceLatent
    margin: float
    target_distance: float
    excess: float

    @property
    def codes(self) -> np.ndarray:
        """Codes ``(Z,)`` of all regions."""
        return np.concatenate(list(self.latent.codes.values()))


def search(
    model: AppearanceModel,
    subjects: Sequence[Subject],
    seed: int,
    guides: Sequence[FaceRecognizer],
    trials: int = TRIALS,
    progress: Progress = silent,
) -> SearchResult:
    """Search a new identity for one person in one or more photos.

    Args:
        subjects: faces of the same person.
        seed: the same photos and seed give the same latent.
        guides: the recognizers of the model's forecasts, in the order of ``GUIDES``.
        trials: renderings per photo, and ``MORE_ROUNDS`` for a hard face; 1 uses the forecast without rendering.
        progress: called before each rendering.
    """
    drawn = builtin_sampler(guides[0].name).sample(1, seed)
    target = drawn.vectors[0] * DLIB_MEAN_LENGTH
    return _Solver(model, subjects, guides, seed, DRAWN).search(target, trials, progress)


def search_target(
    model: AppearanceModel,
    subjects: Sequence[Subject],
    identity: Identity,
    guides: Sequence[FaceRecognizer],
    seed: int = 0,
    progress: Progress = silent,
) -> SearchResult:
    """Search a latent for one person in one or more photos that is similar to ``identity`` and unlike the original.

    Raises:
        InputError: the identity belongs to the space of another recognizer, or has another size.
    """
    recognizer = guides[0]
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
    target = identity.vector * DLIB_MEAN_LENGTH
    return _Solver(model, subjects, guides, seed, GIVEN).search(target, TRIALS, progress)


class _Solver:
    """Changes the codes of strangers, for one person in one or more photos.

    Attributes:
        people: rows of ``model.people`` with traits similar to the person's, the most similar first: the strangers.
    """

    def __init__(
        self,
        model: AppearanceModel,
        subjects: Sequence[Subject],
        guides: Sequence[FaceRecognizer],
        seed: int,
        pull: Pull,
    ) -> None:
        self._model, self._guides, self._seed, self._pull = model, guides, seed, pull
        self._traits = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
        self._subjects = [subject.scaled(TRIAL_IOD) for subject in subjects]
        self._natural = Naturalness(model)
        self._limits = [self._natural.limits(subject) for subject in subjects]
        self._boundaries = np.cumsum([model.regions[n].residual.shape[1] for n in REGIONS])[:-1]
        self._ease = np.concatenate([np.full(model.regions[n].residual.shape[1], EASE[n]) for n in REGIONS])
        self._labels = model.attributes.labels[:-1, list(_KEPT_LABELS)].T
        weights = np.array([TRAIT_WEIGHTS.get(name, 1.0) for name in LABELS] + [1.0] * (len(TRAITS) - len(LABELS)))
        differences = (model.people.traits - self._traits) * weights
        similar = np.argsort((differences**2).sum(1), kind="stable")[:NEAREST_PEOPLE]
        order = torch.randperm(len(similar), generator=torch.Generator().manual_seed(seed)).numpy()
        self.people = similar[np.sort(order[: pull.strangers])]

    def search(self, target: np.ndarray, trials: int, progress: Progress) -> SearchResult:
        """Search from several strangers.

        Args:
            target: embedding to come close to, ``(D,)`` in dlib's space.
            trials: as in the function ``search``.
        """
        rounds = min(self._pull.rounds, trials)
        count = trials // rounds
        starts = self.mixtures(count, progress) if self._pull.mixed else self.near_people(target, count, progress)
        if trials == 1:
            return self.forecast(starts[0], target)
        found, total = list[SearchResult](), count + self._pull.mixed
        for done, start in enumerate(starts):
            found += self.refine(start, rounds, target, part_of(progress, done, total))
        if self._pull.mixed:
            best = max(found, key=self._merit)
            if best.margin < SURE_MARGIN:
                found += self.refine(best.codes, MORE_ROUNDS, target, part_of(progress, count, total))
            return max(found, key=self._merit)
        # Among results that are as far from the original as strangers are, the one nearest to the target.
        return min(found, key=lambda f: (max(0.0, self._pull.accepted - f.margin), f.target_distance))

    def _merit(self, result: SearchResult) -> float:
        """How far from the original and how natural a result is."""
        lacking = max(0.0, MIN_MARGIN - result.margin)
        unnatural = STRAIN_WEIGHT * _strain(result.codes) + EXCESS_WEIGHT * result.excess
        return min(result.margin, self._pull.accepted) - unnatural - LACK_WEIGHT * lacking

    def codes_of(self, person: int) -> np.ndarray:
        """Codes ``(Z,)`` of all regions of one of the model's people."""
        codes = np.concatenate([self._model.people.codes[name][person] for name in REGIONS])
        return codes * min(1.0, MAX_START / _strain(codes))

    def mixtures(self, count: int, progress: Progress = silent) -> list[np.ndarray]:
        """Codes ``(Z,)`` of new people from parts of ``people``, the one that is forecast to be best first."""
        codes = [self.codes_of(person) for person in self.people]
        photos = []
        for subject, limits in zip(self._subjects, self._limits, strict=True):
            progress(0, count, SEARCHING)
            parts = [self._parts(subject, one) for one in codes]
            photos.append(Contributions.of(self._model, self._natural, subject, limits, parts))
        mixer = Mixer(photos, self._labels, self._natural)
        regions = [np.stack(part) for part in zip(*(np.split(one, self._boundaries) for one in codes), strict=True)]
        generator = torch.Generator().manual_seed(self._seed)
        return [
            np.concatenate([region[row] for region, row in zip(regions, rows, strict=True)])
            for rows in mixer.combinations(count, generator)
        ]

    def near_people(self, target: np.ndarray, count: int, progress: Progress) -> list[np.ndarray]:
        """Codes ``(Z,)`` of those ``people`` whose dlib embedding is forecast to be nearest to ``target`` ``(D,)``."""
        codes, distances = [self.codes_of(person) for person in self.people], []
        for one in codes:
            progress(0, count, SEARCHING)
            embeddings = [self._forecast(s, self._parts(s, one))[0] for s in self._subjects]
            distances.append(max(float(np.linalg.norm(e - target)) for e in embeddings))
        return [codes[i] for i in np.argsort(distances, kind="stable")[:count]]

    def forecast(self, codes: np.ndarray, target: np.ndarray) -> SearchResult:
        """Change a stranger's codes ``(Z,)`` without rendering."""
        columns = [self._columns(subject, codes) for subject in self._subjects]
        for done in range(FORECASTS):
            parts = [self._parts(subject, codes) for subject in self._subjects]
            embeddings = [self._forecast(*pair) for pair in zip(self._subjects, parts, strict=True)]
            if done < FORECASTS - 1:
                change = self._change(codes, columns, parts, embeddings, target)
                codes = np.clip(change, -MAX_CODE, MAX_CODE)
        return self._result(codes, parts, embeddings, target)

    def refine(self, codes: np.ndarray, rounds: int, target: np.ndarray, progress: Progress) -> list[SearchResult]:
        """Alternate between rendering and changing the codes ``(Z,)``."""
        columns: list[list[np.ndarray]] = []
        found = []
        for done in range(rounds):
            progress(done, rounds, SEARCHING)
            latent = self._latent(codes)
            parts = [self._parts(subject, codes) for subject in self._subjects]
            embeddings = [self._render_and_embed(latent, subject) for subject in self._subjects]
            found.append(self._result(codes, parts, embeddings, target))
            columns = columns or [self._columns(subject, codes) for subject in self._subjects]
            codes = self._change(codes, columns, parts, embeddings, target)
        return found

    def _result(
        self,
        codes: np.ndarray,
        parts: Sequence[Parts],
        embeddings: Sequence[Sequence[np.ndarray]],
        target: np.ndarray,
    ) -> SearchResult:
        to_target = max(float(np.linalg.norm(e[0] - target)) for e in embeddings)
        excess = self._excess(parts, embeddings)
        return SearchResult(self._latent(codes), self._margin(embeddings), to_target, excess)

    def _excess(self, parts: Sequence[Parts], embeddings: Sequence[Sequence[np.ndarray]]) -> float:
        """How far the measures of naturalness, apparent sex and age are beyond their limits; the worst photo counts."""
        worst = 0.0
        for subject, limits, part, vectors in zip(self._subjects, self._limits, parts, embeddings, strict=True):
            measures = self._natural.measure(part)
            labels = np.abs(self._labels @ (subject.embeddings[0] - vectors[0]))
            beyond = np.maximum(labels - LABEL_SLACK, 0.0).sum()
            worst = max(worst, float(self._natural.excess(measures, limits) + beyond))
        return worst

    def _latent(self, codes: np.ndarray) -> AppearanceLatent:
        z = np.clip(codes, -MAX_CODE, MAX_CODE).astype(np.float32)
        parts = np.split(z, self._boundaries)
        return AppearanceLatent(dict(zip(REGIONS, parts, strict=True)), self._traits, self._seed)

    def _render_and_embed(self, latent: AppearanceLatent, subject: Subject) -> list[np.ndarray]:
        patch, _, points = render(self._model, subject, appearance_of(self._model, latent, subject), 1.0)
        return [guide.embed(patch, points) for guide in self._guides]

    def _margin(self, embeddings: Sequence[Sequence[np.ndarray]]) -> float:
        """Smallest distance to an original, in goals, of embeddings of each photo and guide."""
        return min(
            float(np.linalg.norm(vector - original)) / GOALS[guide]
            for subject, vectors in zip(self._subjects, embeddings, strict=True)
            for guide, vector, original in zip(GUIDES, vectors, subject.embeddings, strict=True)
        )

    def _change(
        self,
        codes: np.ndarray,
        columns: Sequence[Sequence[np.ndarray]],
        parts: Sequence[Parts],
        embeddings: Sequence[Sequence[np.ndarray]],
        target: np.ndarray,
    ) -> np.ndarray:
        """Solve for the least change of the codes that reaches the goals, by the forecast.

        Args:
            columns: derivatives ``(D, Z)`` of each photo's and guide's embedding, and of the measures of naturalness.
            parts: of the current codes, for each photo.
            embeddings: of the current rendering, for each photo and guide.
        """
        rows, needs, ridges = [], [], []
        photos = zip(self._subjects, self._limits, columns, parts, embeddings, strict=True)
        for subject, limits, (*derivatives, natural), part, vectors in photos:
            for guide, jacobian, vector, original in zip(GUIDES, derivatives, vectors, subject.embeddings, strict=True):
                away = vector - original
                distance = float(np.linalg.norm(away))
                rows.append((away / max(distance, 1e-6)) @ jacobian[None])
                needs.append([self._pull.overshoot * max(0.0, GOALS[guide] - distance)])
                ridges.append([DISTANCE_RIDGE])
            labels = self._labels @ (subject.embeddings[0] - vectors[0])
            rows.append(self._labels @ derivatives[0])
            needs.append(list(np.clip(labels, -MAX_LABEL_STEP, MAX_LABEL_STEP)))
            ridges.append([LABEL_RIDGE] * len(labels))
            rows.append(derivatives[0])
            needs.append(list(target - vectors[0]))
            ridges.append([self._pull.ridge] * len(target))
            measures = self._natural.measure(part)
            rows.append(natural)
            needs.append(list(np.clip(measures, *limits.T) - measures))
            ridges.append([self._pull.natural] * len(measures))
        g = np.concatenate(rows)
        ease = self._ease / (1 + (codes / SOFT_CODE) ** 2)
        scaled = g * ease
        system = scaled @ g.T + len(self._subjects) * np.diag(np.concatenate(ridges))
        # torch's solver uses one thread here; numpy's would use all, and wait for them.
        solved = torch.linalg.solve(torch.from_numpy(system), torch.from_numpy(np.concatenate(needs)))
        return np.asarray(codes + scaled.T @ solved.numpy())

    def _columns(self, subject: Subject, codes: np.ndarray) -> list[np.ndarray]:
        """Derivatives ``(D, Z)`` of each guide's embedding and ``(3, Z)`` of the naturalness, by all codes."""
        attributes = attributes_of(subject, self._traits)
        moves = []
        for name, z in zip(REGIONS, np.split(codes, self._boundaries), strict=True):
            k, size = self._model.regions[name].components, len(z)
            steps = np.concatenate([np.zeros((1, size)), _STEP * np.eye(size)]) + z
            shapes = (self._model.expected(name, attributes) + self._model.deviation(name, steps))[:, k:]
            moved = region_moves(self._model.shapes, subject.fit, subject.shape, name, shapes).reshape(size + 1, -1)
            moves.append((moved[1:] - moved[0]) / _STEP)
        natural = [self._natural.response(self._model, name, m) for name, m in zip(REGIONS, moves, strict=True)]
        return [
            np.concatenate(
                [t.T + (m @ j.moves).T for t, m in zip(self._model.texture_responses(g), moves, strict=True)], 1
            )
            for g, j in self._model.jacobians.items()
        ] + [np.concatenate(natural, 1)]

    def _parts(self, subject: Subject, codes: np.ndarray) -> Parts:
        """Texture codes and displacements of codes ``(Z,)`` in one photo."""
        appearance = appearance_of(self._model, self._latent(codes), subject)
        moves = [
            region_moves(self._model.shapes, subject.fit, subject.shape, name, shape[None])[0]
            for name, shape in appearance.shapes.items()
        ]
        return Parts(list(appearance.textures.values()), moves)

    def _forecast(self, subject: Subject, parts: Parts) -> list[np.ndarray]:
        """Each guide's embedding of a rendering, by the linear forecast."""
        result = []
        for jacobian, original in zip(self._model.jacobians.values(), subject.embeddings, strict=True):
            vector = original + jacobian.base(original)
            for name, texture, moves in zip(REGIONS, parts.textures, parts.moves, strict=True):
                vector = vector + jacobian.region(name, (texture - subject.codes[name])[None], moves[None])[0]
            result.append(vector)
        return result
