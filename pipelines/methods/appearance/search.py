"""Draw an identity and search it against a recogniser.

Drawing: per region, residual codes ``z`` of which those far from the original are kept (texture, shape and the predicted
embedding all count, so that no single recogniser is tuned to). Searching: a few combinations are rendered small, then one
region at a time is exchanged, keeping what the recogniser finds less alike in the worst of the given photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from ...identity.recognise import Recogniser
from .frame import REGIONS
from .network import TRAITS, AppearanceModel
from .render import Look, Subject, render

DRAWS, KEPT = 600, 12
SPREAD, LIMIT = 1.3, 1.8
"""``z`` is SPREAD times normal, clipped at LIMIT: beyond 2 faces fall apart."""
COMBINATIONS = 400
STARTS, TRIALS = 4, 20
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings: what a recogniser's 150 px chip shows."""
SWAPS = 16
"""Exchanges that are predicted before the most promising one is rendered."""
ONENESS = 0.5
"""How much the distance between the new faces of one person counts against their distance from the originals."""
_ORDER = ("eyes", "nose", "base", "mouth")

Choice = dict[str, int]
"""Region name to a place in that region's pool."""


@dataclass(frozen=True)
class Persona:
    """An identity of this model: residual codes a region, storable and re-usable on another photo.

    Attributes:
        codes: region name to ``z`` ``(Z,)``.
        traits: attributes that belong to a person and not to a photo, ``(11,)``, so that one looks alike in all photos.
        seed: of the noise that drew it.
    """

    codes: dict[str, np.ndarray]
    traits: np.ndarray
    seed: int


@dataclass(frozen=True)
class Found:
    """A searched persona with the recogniser's distance to the original in each photo, measured on trial renderings."""

    persona: Persona
    distances: tuple[float, ...]
    trials: int


def look_of(model: AppearanceModel, persona: Persona, subject: Subject) -> Look:
    """What a persona looks like with this photo's light, head turn and mouth: ``v = W a + E z``."""
    textures, shapes = {}, {}
    attributes = subject.attributes.copy()
    attributes[TRAITS] = persona.traits
    for name in REGIONS:
        joint = model.expected(name, attributes) + model.person(name, persona.codes[name])
        k = model.regions[name].components
        textures[name], shapes[name] = joint[:k], joint[k:].astype(np.float64)
    return Look(textures, shapes)


def search(
    model: AppearanceModel, subjects: list[Subject], seed: int, recogniser: Recogniser,
    trials: int = TRIALS,
) -> Found:
    """Find a persona for one person seen in one or more photos.

    Args:
        subjects: photos of the same person.
        seed: fixes the persona; the same photos and seed repeat it.
        trials: renderings of each photo; 1 takes the draw with the best prediction and renders nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    traits = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
    pools = {name: _pool(model, subjects, name, generator) for name in REGIONS}
    predict = _Predictor(model, subjects, pools)
    starts = sorted((_random(pools, generator) for _ in range(COMBINATIONS)), key=predict, reverse=True)[:STARTS]

    def persona(choice: Choice) -> Persona:
        return Persona({n: pools[n][choice[n]] for n in REGIONS}, traits, seed)

    if trials == 1:
        return Found(persona(starts[0]), (), 0)
    small = [subject.scaled(TRIAL_IOD) for subject in subjects]

    def judge(choice: Choice) -> _Trial:
        shown = []
        for subject in small:
            window, _, points = render(model, subject, look_of(model, persona(choice), subject), 1.0)
            shown.append(recogniser.embed(window, points))
        distances = tuple(recogniser.distance(e, s.embedding) for e, s in zip(shown, subjects, strict=True))
        apart = [recogniser.distance(a, b) for a, b in combinations(shown, 2)]
        return _Trial(choice, shown, distances, float(np.mean(apart)) if apart else 0.0)

    tried = [judge(choice) for choice in starts[:trials]]
    best = max(tried, key=lambda t: t.worth)
    seen = {tuple(t.choice.values()) for t in tried}
    for number in range(len(tried), trials):
        swaps = [best.choice | {_ORDER[number % 4]: _integer(generator, KEPT)} for _ in range(SWAPS)]
        fresh = [choice for choice in swaps if tuple(choice.values()) not in seen]
        if not fresh:
            continue
        # What was seen of the best one corrects the prediction of its neighbours.
        tried.append(judge(max(fresh, key=lambda choice: predict.near(best, choice))))
        seen.add(tuple(tried[-1].choice.values()))
        best = max(best, tried[-1], key=lambda t: t.worth)
    return Found(persona(best.choice), best.distances, len(tried))


@dataclass(frozen=True)
class _Trial:
    choice: Choice
    shown: list[np.ndarray]
    distances: tuple[float, ...]
    apart: float

    @property
    def worth(self) -> float:
        """Far from the original in the worst photo, and one person in all of them."""
        return min(self.distances) - ONENESS * self.apart


def _pool(model: AppearanceModel, subjects: list[Subject], name: str, generator: torch.Generator) -> np.ndarray:
    """The draws of one region that lie farthest from the original, ``(KEPT, Z)``."""
    region = model.regions[name]
    size = region.residual.shape[1]
    z = (torch.randn(DRAWS, size, generator=generator) * SPREAD).clamp(-LIMIT, LIMIT).numpy()
    k = region.components
    score = np.zeros(DRAWS)
    for subject in subjects:
        joint = model.expected(name, subject.attributes) + model.person(name, z)
        texture = joint[:, :k] - subject.codes[name]
        shape = joint[:, k:] - subject.fit.coefficients
        predicted = texture @ region.to_identity + 0.25 * shape @ model.shape_to_identity
        parts = [np.linalg.norm(texture, axis=1), np.linalg.norm(predicted, axis=1) * 1.5]
        if name != "mouth":
            parts.append(np.linalg.norm(shape, axis=1))
        score += sum(part / (part.std() + 1e-9) for part in parts)
    far = np.argsort(-score, kind="stable")[:KEPT]
    return z[far[torch.randperm(len(far), generator=generator).numpy()]]


class _Predictor:
    """Predicts, without rendering, how far a combination moves the embedding; linear, so each pool entry is predicted once."""

    def __init__(self, model: AppearanceModel, subjects: list[Subject], pools: dict[str, np.ndarray]) -> None:
        self._originals = [subject.embedding for subject in subjects]
        self._shifts = []
        for subject in subjects:
            shifts = {}
            for name in REGIONS:
                k = model.regions[name].components
                joint = model.expected(name, subject.attributes) + model.person(name, pools[name])
                texture = (joint[:, :k] - subject.codes[name]) @ model.regions[name].to_identity
                shifts[name] = texture + 0.25 * (joint[:, k:] - subject.fit.coefficients) @ model.shape_to_identity
            self._shifts.append(shifts)

    def __call__(self, choice: Choice) -> float:
        return min(float(np.linalg.norm(self._shift(shifts, choice))) for shifts in self._shifts)

    def near(self, trial: _Trial, choice: Choice) -> float:
        """The same for a neighbour of a rendered combination."""
        moved = (
            shown + self._shift(shifts, choice) - self._shift(shifts, trial.choice) - original
            for shown, shifts, original in zip(trial.shown, self._shifts, self._originals, strict=True)
        )
        return min(float(np.linalg.norm(m)) for m in moved)

    @staticmethod
    def _shift(shifts: dict[str, np.ndarray], choice: Choice) -> np.ndarray:
        return np.sum([shifts[n][choice[n]] for n in REGIONS], axis=0)


def _random(pools: dict[str, np.ndarray], generator: torch.Generator) -> Choice:
    return {n: _integer(generator, len(pools[n])) for n in REGIONS}


def _integer(generator: torch.Generator, below: int) -> int:
    return int(torch.randint(below, (1,), generator=generator))
