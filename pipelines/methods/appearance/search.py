"""Draw an identity and search it against a recogniser.

Drawing: per region, residual codes ``z`` of which those far from the original are kept (texture, shape and the predicted
embedding all count, so that no single recogniser is tuned to). Searching: a few combinations are rendered small, then one
region at a time is exchanged, keeping what the recogniser finds less alike in the worst of the given photos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...identity.recognise import Recogniser
from .frame import REGIONS
from .network import LABELS, AppearanceModel
from .render import Look, Subject, render

DRAWS, KEPT = 400, 14
SPREAD, LIMIT = 1.3, 1.8
"""``z`` is SPREAD times normal, clipped at LIMIT: beyond 2 faces fall apart."""
COMBINATIONS = 400
STARTS, TRIALS = 4, 20
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings: what a recogniser's 150 px chip shows."""
_ORDER = ("eyes", "nose", "base", "mouth")


@dataclass(frozen=True)
class Persona:
    """An identity of this model: residual codes a region, storable and re-usable on another photo.

    Attributes:
        codes: region name to ``z`` ``(Z,)``.
        labels: standardised sex look and groups, ``(5,)``, so that one person looks alike in all photos.
        seed: of the noise that drew it.
    """

    codes: dict[str, np.ndarray]
    labels: np.ndarray
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
    attributes = np.concatenate([persona.labels, subject.attributes[len(LABELS) :]])
    for name in REGIONS:
        joint = model.expected(name, attributes) + model.person(name, persona.codes[name])
        k = model.regions[name].components
        textures[name], shapes[name] = joint[:k], joint[k:].astype(np.float64)
    return Look(textures, shapes)


def search(
    model: AppearanceModel, subjects: list[Subject], seed: int, recogniser: Recogniser,
    strength: float = 1.0, trials: int = TRIALS, enough: float = np.inf,
) -> Found:
    """Find a persona for one person seen in one or more photos.

    Args:
        subjects: photos of the same person.
        seed: fixes the persona; the same photos and seed repeat it.
        trials: renderings of each photo; 1 takes the first draw.
        enough: stop when the worst photo's distance exceeds this.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = np.mean([s.attributes[: len(LABELS)] for s in subjects], axis=0)
    pools = {name: _pool(model, subjects, name, generator) for name in REGIONS}
    small = [subject.scaled(TRIAL_IOD) for subject in subjects]

    def judge(choice: dict[str, int]) -> tuple[float, ...]:
        persona = Persona({n: pools[n][choice[n]] for n in REGIONS}, labels, seed)
        distances = []
        for subject in small:
            window, _, points = render(model, subject, look_of(model, persona, subject), strength)
            distances.append(recogniser.distance(recogniser.embed(window, points), subject.embedding))
        return tuple(distances)

    tried = 0
    best: dict[str, int] | None = None
    distances: tuple[float, ...] = ()
    for choice in _promising(model, subjects, pools, generator)[: min(STARTS, trials)]:
        got = judge(choice)
        tried += 1
        if best is None or min(got) > min(distances):
            best, distances = choice, got
    assert best is not None
    while tried < trials and min(distances) < enough:
        name = _ORDER[tried % len(_ORDER)]
        choice = best | {name: _integer(generator, len(pools[name]))}
        tried += 1
        if choice == best:
            continue
        got = judge(choice)
        if min(got) > min(distances):
            best, distances = choice, got
    return Found(Persona({n: pools[n][best[n]] for n in REGIONS}, labels, seed), distances, tried)


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


def _promising(
    model: AppearanceModel, subjects: list[Subject], pools: dict[str, np.ndarray], generator: torch.Generator
) -> list[dict[str, int]]:
    """Random combinations, the predicted farthest first."""
    choices = [{n: _integer(generator, len(pools[n])) for n in REGIONS} for _ in range(COMBINATIONS)]
    scores = np.zeros(COMBINATIONS)
    for subject in subjects:
        # Prediction is linear, so each pool entry is predicted once.
        parts = {}
        for name in REGIONS:
            k = model.regions[name].components
            joint = model.expected(name, subject.attributes) + model.person(name, pools[name])
            shift = (joint[:, :k] - subject.codes[name]) @ model.regions[name].to_identity
            parts[name] = shift + 0.25 * (joint[:, k:] - subject.fit.coefficients) @ model.shape_to_identity
        scores += [float(np.linalg.norm(sum(parts[n][c[n]] for n in REGIONS))) for c in choices]
    return [choices[i] for i in np.argsort(-scores, kind="stable")]


def _integer(generator: torch.Generator, below: int) -> int:
    return int(torch.randint(below, (1,), generator=generator))
