"""New people from parts: the eyes, the nose, the mouth and the rest of the face are those of four strangers.

Each part is natural because somebody has it, and there are far more combinations than strangers. So faces that no guide
takes for the original are found without large changes of the codes, which look strained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .canonical import REGIONS
from .forecast import GOALS
from .jacobian import GUIDES
from .natural import Naturalness, Parts, label_excess
from .network import AppearanceModel
from .render import Subject

EXCESS_WEIGHT = 0.2
"""Penalty on the margin per unit of excess."""
POOL = 40
"""Number of strangers, drawn at random, that each part is chosen from."""
SWEEPS = 3
"""How often each part is chosen anew while the others stay."""


@dataclass(frozen=True)
class Contributions:
    """What the parts of P strangers contribute to the forecasts of one photo, which are sums over R regions.

    Attributes:
        base: for each guide, change of the embedding that no part causes, ``(D,)``.
        shifts: for each guide, changes of the embedding by the parts, ``(R, P, D)``.
        measures: of naturalness, ``(R, P, M)``.
        limits: of the sums of the measures, ``(M, 2)``.
    """

    base: list[np.ndarray]
    shifts: list[np.ndarray]
    measures: np.ndarray
    limits: np.ndarray

    @classmethod
    def of(
        cls, model: AppearanceModel, natural: Naturalness, subject: Subject, limits: np.ndarray, people: Sequence[Parts]
    ) -> Contributions:
        """Compute the contributions of ``people`` in the photo of ``subject``."""
        textures = {name: np.stack([p.textures[r] for p in people]) for r, name in enumerate(REGIONS)}
        moves = {name: np.stack([p.moves[r] for p in people]) for r, name in enumerate(REGIONS)}
        jacobians = [model.jacobians[guide] for guide in GUIDES]
        return cls(
            base=[j.base(original) for j, original in zip(jacobians, subject.embeddings, strict=True)],
            shifts=[
                np.stack([j.region(n, textures[n] - subject.codes[n], moves[n]) for n in REGIONS]) for j in jacobians
            ],
            measures=np.stack([natural.part(n, textures[n], moves[n]) for n in REGIONS]),
            limits=limits - natural.offset[:, None],
        )


class Mixer:
    """Combines the parts of strangers to people whom the guides are forecast to find least like the original.

    Args:
        photos: contributions of the same strangers in photos of one person.
        labels: directions of apparent sex and age in the first guide's space, ``(2, D)``.
        natural: the measures of naturalness.
    """

    def __init__(self, photos: Sequence[Contributions], labels: np.ndarray, natural: Naturalness) -> None:
        self._photos, self._labels, self._natural = photos, labels, natural
        self._count = photos[0].measures.shape[1]

    def combinations(self, count: int, generator: torch.Generator) -> list[np.ndarray]:
        """Rows ``(R,)`` of the strangers whose parts are combined, the best combination first."""
        found = [self._combination(generator) for _ in range(count)]
        return [rows for _, rows in sorted(found, key=lambda pair: -pair[0])]

    def merits(self, rows: np.ndarray) -> np.ndarray:
        """How far from the original and how natural combinations ``(N, R)`` are forecast to be, ``(N,)``."""
        regions = np.arange(len(REGIONS))
        margins, excesses = [], []
        for photo in self._photos:
            changes = [
                base + shifts[regions, rows].sum(1) for base, shifts in zip(photo.base, photo.shifts, strict=True)
            ]
            margins += [np.linalg.norm(c, axis=1) / GOALS[g] for g, c in zip(GUIDES, changes, strict=True)]
            unnatural = self._natural.excess(photo.measures[regions, rows].sum(1), photo.limits)
            excesses.append(unnatural + label_excess(changes[0] @ self._labels.T))
        return np.asarray(np.min(margins, axis=0) - EXCESS_WEIGHT * np.max(excesses, axis=0))

    def _combination(self, generator: torch.Generator) -> tuple[float, np.ndarray]:
        """Choose one part after the other, from a random start and random strangers."""
        pools = [torch.randperm(self._count, generator=generator).numpy()[:POOL] for _ in REGIONS]
        rows = np.array([pool[0] for pool in pools])
        merit = -np.inf
        for _ in range(SWEEPS):
            for region in torch.randperm(len(REGIONS), generator=generator).tolist():
                tried = np.repeat(rows[None], len(pools[region]), 0)
                tried[:, region] = pools[region]
                merits = self.merits(tried)
                rows, merit = tried[merits.argmax()], float(merits.max())
        return merit, rows
