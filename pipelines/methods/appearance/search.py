"""Draw an identity and search it against a recogniser.

Drawing: per region, residual codes ``z`` of which those far from the original are kept (texture and shape count, so that no
single recogniser is tuned to). Searching: the response model forecasts where each combination moves the embedding; a few
promising ones are rendered small, then one region at a time is exchanged, keeping what the recogniser finds less alike in the
worst of the given photos. Each seed leans its own way in the embedding space, so that seeds are strangers and not sisters.
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
from .shape import region_moves

DRAWS, KEPT = 480, 160
SPREAD, LIMIT = 1.3, 1.7
"""``z`` is SPREAD times normal, clipped at LIMIT: beyond 2 faces fall apart."""
CLIMBS, SWEEPS = 24, 2
"""Random combinations that are improved by the forecast, and how often each of their regions is."""
LEAN = 0.15
"""How much a seed's own direction counts against the forecast distance."""
STARTS, TRIALS = 4, 16
TRIAL_IOD = 44.0
"""Inter-ocular distance of trial renderings: what a recogniser's 150 px chip shows."""
ONENESS = 0.5
"""How much the distance between the new faces of one person counts against their distance from the originals."""

Choice = tuple[int, ...]
"""A place in each region's pool, in the order of ``REGIONS``."""


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


def draw(model: AppearanceModel, name: str, count: int, generator: torch.Generator) -> np.ndarray:
    """Random residual codes of one region, ``(count, Z)``."""
    size = model.regions[name].residual.shape[1]
    return (torch.randn(count, size, generator=generator) * SPREAD).clamp(-LIMIT, LIMIT).numpy()


def search(model: AppearanceModel, subjects: list[Subject], seed: int, recogniser: Recogniser, trials: int = TRIALS) -> Found:
    """Find a persona for one person seen in one or more photos.

    Args:
        subjects: photos of the same person.
        seed: fixes the persona; the same photos and seed repeat it.
        trials: renderings of each photo; 1 takes the best forecast and renders nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    traits = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
    pools = [_pool(model, subjects, name, traits, generator) for name in REGIONS]
    forecast = _Forecast(model, subjects, pools, generator)
    starts = forecast.climb(generator)

    def persona(choice: Choice) -> Persona:
        return Persona({n: pool.codes[i] for n, pool, i in zip(REGIONS, pools, choice, strict=True)}, traits, seed)

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

    tried = [judge(choice) for choice in starts[: min(STARTS, trials)]]
    best = max(tried, key=lambda t: t.worth)
    for number in range(len(tried), trials):
        choice = forecast.neighbour(best, number % len(REGIONS), {t.choice for t in tried})
        tried.append(judge(choice))
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


@dataclass(frozen=True)
class _Pool:
    """Candidates of one region: residual codes ``(N, Z)``, and the forecast shift of each in each photo, ``(photos, N, D)``."""

    codes: np.ndarray
    shifts: np.ndarray


def _pool(model: AppearanceModel, subjects: list[Subject], name: str, traits: np.ndarray, generator: torch.Generator) -> _Pool:
    """The draws of one region that lie farthest from the original."""
    z = draw(model, name, DRAWS, generator)
    k = model.regions[name].components
    person = model.person(name, z)
    far, shifts = np.zeros(DRAWS), []
    for subject in subjects:
        attributes = subject.attributes.copy()
        attributes[TRAITS] = traits
        joint = model.expected(name, attributes) + person
        texture = joint[:, :k] - subject.codes[name]
        moves = region_moves(model.shapes, subject.fit, subject.shape, name, joint[:, k:])
        shifts.append(model.response.region(name, texture, moves))
        for part in (texture, moves.reshape(DRAWS, -1)):
            length = np.linalg.norm(part, axis=1)
            far += length / (length.std() + 1e-9)
    kept = np.argsort(-far, kind="stable")[:KEPT]
    return _Pool(z[kept], np.stack(shifts)[:, kept])


class _Forecast:
    """Ranks combinations without rendering."""

    def __init__(self, model: AppearanceModel, subjects: list[Subject], pools: list[_Pool], generator: torch.Generator) -> None:
        self._shifts = [pool.shifts for pool in pools]
        self._originals = np.stack([s.embedding for s in subjects])
        self._base = np.stack([model.response.base(s.embedding) for s in subjects])
        own_way = torch.randn(self._base.shape[-1], generator=generator).double().numpy()
        self._lean = LEAN * own_way / np.linalg.norm(own_way)

    def climb(self, generator: torch.Generator) -> list[Choice]:
        """Combinations of which no single region can be exchanged for a better one, best first."""
        found: dict[Choice, float] = {}
        for _ in range(CLIMBS):
            choice = [int(torch.randint(shifts.shape[1], (1,), generator=generator)) for shifts in self._shifts]
            worth = np.zeros(1)
            for _ in range(SWEEPS):
                for region in range(len(choice)):
                    worth = self._worth(self._exchanged(self._base, choice, region))
                    choice[region] = int(worth.argmax())
            found[tuple(choice)] = float(worth.max())
        return sorted(found, key=lambda c: -found[c])

    def neighbour(self, trial: _Trial, region: int, seen: set[Choice]) -> Choice:
        """The best untried exchange of one region; what was seen of the trial corrects the forecast."""
        shown = np.stack(trial.shown) - self._originals - sum(s[:, i] for s, i in zip(self._shifts, trial.choice, strict=True))
        order = np.argsort(-self._worth(self._exchanged(shown, list(trial.choice), region)), kind="stable")
        for place in order:
            choice = (*trial.choice[:region], int(place), *trial.choice[region + 1 :])
            if choice not in seen:
                return choice
        return trial.choice

    def _exchanged(self, base: np.ndarray, choice: list[int], region: int) -> np.ndarray:
        """Forecast shifts ``(photos, N, D)`` for every candidate of one region, the others as chosen."""
        others = sum(s[:, i] for r, (s, i) in enumerate(zip(self._shifts, choice, strict=True)) if r != region)
        return (base + others)[:, None] + self._shifts[region]

    def _worth(self, shifts: np.ndarray) -> np.ndarray:
        return np.linalg.norm(shifts, axis=2).min(0) + (shifts @ self._lean).mean(0)
