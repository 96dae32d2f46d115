"""Search latent codes whose rendering no recognizer takes for the original.

A new identity is drawn by the identity sampler, independent of the original; a given one is taken as it is. The search
starts from strangers: people of the training set who are of similar sex, age, skin, apparent ethnic group and beard.
For a drawn identity, parts of them are combined; for a given one, those near it are taken. Guides are recognizers with
a linear forecast of their answer. The least change of the codes is solved for that moves each guide's embedding away
from the original up to the distance of strangers, which leaves an attacker little to undo, keeps apparent sex and age,
and pulls towards the identity. It is rendered, measured and corrected.
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
from .forecast import Embeddings, Forecaster
from .latent import AppearanceLatent, appearance_of
from .mixing import EXCESS_WEIGHT, Contributions, Mixer
from .natural import Parts
from .network import AppearanceModel
from .render import Subject, render
from .spec import SEARCH
from .step import Stepper, Weights
from .strangers import NEAREST_PEOPLE, codes_of, strain, strangers

FORECASTS = 3
"""Forecasts of a search without renderings; the codes change between them."""
MORE_TRIALS, SURE_MARGIN = 4, 0.91
"""Further renderings of a drawn identity, where the margin of the best one is below ``SURE_MARGIN``."""


@dataclass(frozen=True)
class Pull:
    """How strongly the search pulls towards the target.

    Attributes:
        rounds: renderings from one start.
        accepted: share of the goals that is enough; more of it does not make a result better.
        strangers: number of people, drawn at random.
        mixed: whether starts combine parts of people, far from the original; else they are people near to the target.
        weights: of the goals of a step.
    """

    rounds: int
    accepted: float
    strangers: int
    mixed: bool
    weights: Weights


DRAWN = Pull(rounds=2, accepted=0.95, strangers=100, mixed=True, weights=Weights(0.15, 0.0005, 1.5))
GIVEN = Pull(rounds=3, accepted=0.88, strangers=NEAREST_PEOPLE, mixed=False, weights=Weights(0.0006, 0.01, 2.1))
"""A drawn identity only chooses a direction, and each seed other strangers. A given one is to be recognized again, so
that the seed changes nothing."""
STRAIN_WEIGHT = 0.3
"""Penalty on the margin per unit of strain."""
MIN_MARGIN, LACK_WEIGHT = 0.78, 3.0
"""Margin below which naturalness hardly counts, because recognizers could still match the face; penalty per unit of
what is lacking."""
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings in pixels, as in the recognizer's aligned 150 px input."""
SEARCHING = "searching an identity"


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
    trials: int = SEARCH,
    progress: Progress = silent,
) -> SearchResult:
    """Search a new identity for one person in one or more photos.

    Args:
        subjects: faces of the same person.
        seed: the same photos and seed give the same latent.
        guides: the recognizers of the model's forecasts, in the order of ``GUIDES``.
        trials: maximum renderings per photo, and ``MORE_TRIALS`` for a hard face; 1 forecasts without rendering.
        progress: called before each rendering.
    """
    drawn = builtin_sampler(guides[0].name).sample(1, seed)
    target = drawn.vectors[0] * DLIB_MEAN_LENGTH
    return _Search(model, subjects, guides, seed, DRAWN, target).run(trials, progress)


def search_target(
    model: AppearanceModel,
    subjects: Sequence[Subject],
    identity: Identity,
    guides: Sequence[FaceRecognizer],
    seed: int = 0,
    trials: int = SEARCH,
    progress: Progress = silent,
) -> SearchResult:
    """Search a latent for one person in one or more photos that is similar to ``identity`` and unlike the original.

    Args:
        subjects, guides, trials, progress: as in ``search``; a hard face gets no further renderings.
        seed: stored in the latent; it does not change the codes.

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
    return _Search(model, subjects, guides, seed, GIVEN, target).run(trials, progress)


@dataclass(frozen=True)
class _Trial:
    """Codes ``(Z,)`` with what they give in each photo, rendered or forecast."""

    codes: np.ndarray
    parts: list[Parts]
    embeddings: Sequence[Embeddings]
    result: SearchResult


class _Search:
    """Changes the codes of strangers, for one person in one or more photos.

    Args:
        target: embedding to come close to, ``(D,)`` in dlib's space.

    Attributes:
        strangers: codes ``(Z,)`` of people with traits similar to the person's, the most similar first.
    """

    def __init__(
        self,
        model: AppearanceModel,
        subjects: Sequence[Subject],
        guides: Sequence[FaceRecognizer],
        seed: int,
        pull: Pull,
        target: np.ndarray,
    ) -> None:
        self._model, self._guides, self._seed, self._pull, self._target = model, guides, seed, pull, target
        self._forecaster = Forecaster(model, [subject.scaled(TRIAL_IOD) for subject in subjects], seed)
        self._stepper = Stepper(self._forecaster, pull.weights, target)
        people = strangers(model, self._forecaster.traits, pull.strangers, seed)
        self.strangers = [codes_of(model, person) for person in people]

    def run(self, trials: int, progress: Progress) -> SearchResult:
        """Search from several strangers, with ``trials`` as in the function ``search``."""
        rounds = min(self._pull.rounds, trials)
        count = trials // rounds
        starts = self.mixtures(count, progress) if self._pull.mixed else self.near_people(count, progress)
        if trials == 1:
            return self.forecast(starts[0]).result
        chains, total = list[list[_Trial]](), count + self._pull.mixed
        for done, start in enumerate(starts):
            step = part_of(progress, done, total)
            step(0, rounds, SEARCHING)
            first = self.rendered(start)
            chains.append([first, *self.refined(first, rounds - 1, step)])
        if self._pull.mixed:
            best = max(chains, key=lambda chain: max(map(self._merit, chain)))
            if max(best, key=self._merit).result.margin < SURE_MARGIN:
                best += self.refined(best[-1], MORE_TRIALS, part_of(progress, count, total))
            return max(best, key=self._merit).result
        # Among results that are as far from the original as strangers are, the one nearest to the target.
        return min((trial.result for chain in chains for trial in chain), key=self._miss)

    def _merit(self, trial: _Trial) -> float:
        """How far from the original and how natural a trial is."""
        result = trial.result
        lacking = max(0.0, MIN_MARGIN - result.margin)
        unnatural = STRAIN_WEIGHT * strain(result.codes) + EXCESS_WEIGHT * result.excess
        return min(result.margin, self._pull.accepted) - unnatural - LACK_WEIGHT * lacking

    def _miss(self, result: SearchResult) -> tuple[float, float]:
        return max(0.0, self._pull.accepted - result.margin), result.target_distance

    def mixtures(self, count: int, progress: Progress = silent) -> list[np.ndarray]:
        """Codes ``(Z,)`` of new people from parts of strangers, the one that is forecast to be best first."""
        forecaster = self._forecaster
        given = []
        for codes in self.strangers:
            progress(0, count, SEARCHING)
            given.append(forecaster.parts(codes))
        photos = [
            Contributions.of(self._model, forecaster.natural, subject, limits, parts)
            for subject, limits, parts in zip(
                forecaster.subjects, forecaster.limits, zip(*given, strict=True), strict=True
            )
        ]
        mixer = Mixer(photos, forecaster.labels, forecaster.natural)
        split = [forecaster.split(codes) for codes in self.strangers]
        generator = torch.Generator().manual_seed(self._seed)
        return [
            np.concatenate([split[row][region] for region, row in enumerate(rows)])
            for rows in mixer.combinations(count, generator)
        ]

    def near_people(self, count: int, progress: Progress = silent) -> list[np.ndarray]:
        """Codes ``(Z,)`` of the strangers whose dlib embedding is forecast to be nearest to the target."""
        distances = []
        for codes in self.strangers:
            progress(0, count, SEARCHING)
            embeddings = self._forecaster.embeddings(self._forecaster.parts(codes))
            distances.append(max(float(np.linalg.norm(e[0] - self._target)) for e in embeddings))
        return [self.strangers[i] for i in np.argsort(distances, kind="stable")[:count]]

    def forecast(self, codes: np.ndarray) -> _Trial:
        """Change a stranger's codes ``(Z,)`` without rendering."""
        derivatives = self._forecaster.derivatives(codes)
        trial = self._forecast(codes)
        for _ in range(FORECASTS - 1):
            trial = self._forecast(self._stepper.step(trial.codes, trial.parts, trial.embeddings, derivatives))
        return trial

    def rendered(self, codes: np.ndarray) -> _Trial:
        """Render codes ``(Z,)`` in each photo, and embed them by each guide."""
        latent = self._forecaster.latent(codes)
        embeddings = []
        for subject in self._forecaster.subjects:
            patch, _, points = render(self._model, subject, appearance_of(self._model, latent, subject), 1.0)
            embeddings.append([guide.embed(patch, points) for guide in self._guides])
        return self._trial(codes, self._forecaster.parts(codes), embeddings)

    def refined(self, trial: _Trial, count: int, progress: Progress = silent) -> list[_Trial]:
        """Further renderings after ``trial``, each with codes that are changed by what the one before it lacks."""
        derivatives = self._forecaster.derivatives(trial.codes)
        found = []
        for done in range(count):
            progress(done, count, SEARCHING)
            trial = self.rendered(self._stepper.step(trial.codes, trial.parts, trial.embeddings, derivatives))
            found.append(trial)
        return found

    def _forecast(self, codes: np.ndarray) -> _Trial:
        parts = self._forecaster.parts(codes)
        return self._trial(codes, parts, self._forecaster.embeddings(parts))

    def _trial(self, codes: np.ndarray, parts: list[Parts], embeddings: Sequence[Embeddings]) -> _Trial:
        result = SearchResult(
            latent=self._forecaster.latent(codes),
            margin=self._forecaster.margin(embeddings),
            target_distance=max(float(np.linalg.norm(e[0] - self._target)) for e in embeddings),
            excess=self._forecaster.excess(parts, embeddings),
        )
        return _Trial(codes, parts, embeddings, result)
