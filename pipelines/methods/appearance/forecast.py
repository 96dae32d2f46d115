"""Forecasts, without rendering, of how guides and measures of naturalness judge the codes of a new person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...training.labels import LABELS
from .canonical import REGIONS
from .jacobian import GUIDES
from .latent import MAX_CODE, AppearanceLatent, appearance_of, attributes_of
from .natural import Naturalness, Parts, label_excess
from .network import TRAITS, AppearanceModel
from .render import Subject
from .shape import region_moves

GOALS = {"dlib": 0.86, "faceveil": 1.41}
"""Distance of the embeddings of two strangers: about dlib's mean, and a cosine of 0."""
_KEPT_LABELS = (LABELS.index("male"), LABELS.index("age"))
_STEP = 0.5
"""Step of the finite differences in ``z``."""

Embeddings = Sequence[np.ndarray]
"""Each guide's embedding of one face, ``(D,)``."""


@dataclass(frozen=True)
class Derivatives:
    """Derivatives in one photo with respect to the codes of all regions.

    Attributes:
        guides: of each guide's embedding, ``(D, Z)``.
        natural: of the measures of naturalness, ``(7, Z)``.
    """

    guides: list[np.ndarray]
    natural: np.ndarray


class Forecaster:
    """Forecasts for one person in one or more photos.

    Args:
        subjects: the person's face in each photo.
        seed: stored in latents.

    Attributes:
        traits: the person's mean traits, ``(12,)``.
        limits: of the measures of naturalness in each photo, ``(7, 2)``.
        labels: directions of apparent sex and age in the first guide's space, ``(2, D)``.
    """

    def __init__(self, model: AppearanceModel, subjects: Sequence[Subject], seed: int) -> None:
        self.model, self.subjects, self._seed = model, subjects, seed
        self.natural = Naturalness(model)
        self.traits: np.ndarray = np.mean([s.attributes[TRAITS] for s in subjects], axis=0)
        self.limits = [self.natural.limits(subject) for subject in subjects]
        self.labels = model.attributes.labels[:-1, list(_KEPT_LABELS)].T
        self._boundaries = np.cumsum([model.regions[n].residual.shape[1] for n in REGIONS])[:-1]

    def split(self, codes: np.ndarray) -> list[np.ndarray]:
        """Split codes ``(Z,)`` into those of each region."""
        return np.split(codes, self._boundaries)

    def latent(self, codes: np.ndarray) -> AppearanceLatent:
        """The latent of codes ``(Z,)``."""
        z = np.clip(codes, -MAX_CODE, MAX_CODE).astype(np.float32)
        return AppearanceLatent(dict(zip(REGIONS, self.split(z), strict=True)), self.traits, self._seed)

    def parts(self, codes: np.ndarray) -> list[Parts]:
        """Texture codes and displacements of codes ``(Z,)`` in each photo."""
        return [self._parts(subject, codes) for subject in self.subjects]

    def embeddings(self, parts: Sequence[Parts]) -> list[list[np.ndarray]]:
        """Forecast each guide's embedding in each photo."""
        return [self._embeddings(subject, part) for subject, part in zip(self.subjects, parts, strict=True)]

    def derivatives(self, codes: np.ndarray) -> list[Derivatives]:
        """Derivatives in each photo at codes ``(Z,)``."""
        return [self._derivatives(subject, codes) for subject in self.subjects]

    def margin(self, embeddings: Sequence[Embeddings]) -> float:
        """Smallest distance to an original, in goals, over photos and guides."""
        return min(
            float(np.linalg.norm(vector - original)) / GOALS[guide]
            for subject, vectors in zip(self.subjects, embeddings, strict=True)
            for guide, vector, original in zip(GUIDES, vectors, subject.embeddings, strict=True)
        )

    def excess(self, parts: Sequence[Parts], embeddings: Sequence[Embeddings]) -> float:
        """How far measures of naturalness, apparent sex and age are beyond their limits; the worst photo counts."""
        worst = 0.0
        for subject, limits, part, vectors in zip(self.subjects, self.limits, parts, embeddings, strict=True):
            unnatural = self.natural.excess(self.natural.measure(part), limits)
            labels = label_excess(self.labels @ (vectors[0] - subject.embeddings[0]))
            worst = max(worst, float(unnatural + labels))
        return worst

    def _parts(self, subject: Subject, codes: np.ndarray) -> Parts:
        appearance = appearance_of(self.model, self.latent(codes), subject)
        moves = [
            region_moves(self.model.shapes, subject.fit, subject.shape, name, shape[None])[0]
            for name, shape in appearance.shapes.items()
        ]
        return Parts(list(appearance.textures.values()), moves)

    def _embeddings(self, subject: Subject, parts: Parts) -> list[np.ndarray]:
        result = []
        for jacobian, original in zip(self.model.jacobians.values(), subject.embeddings, strict=True):
            vector = original + jacobian.base(original)
            for name, texture, moves in zip(REGIONS, parts.textures, parts.moves, strict=True):
                vector = vector + jacobian.region(name, (texture - subject.codes[name])[None], moves[None])[0]
            result.append(vector)
        return result

    def _derivatives(self, subject: Subject, codes: np.ndarray) -> Derivatives:
        attributes = attributes_of(subject, self.traits)
        moves = []
        for name, z in zip(REGIONS, self.split(codes), strict=True):
            k, size = self.model.regions[name].components, len(z)
            steps = np.concatenate([np.zeros((1, size)), _STEP * np.eye(size)]) + z
            shapes = (self.model.expected(name, attributes) + self.model.deviation(name, steps))[:, k:]
            moved = region_moves(self.model.shapes, subject.fit, subject.shape, name, shapes).reshape(size + 1, -1)
            moves.append((moved[1:] - moved[0]) / _STEP)
        natural = [self.natural.response(self.model, name, m) for name, m in zip(REGIONS, moves, strict=True)]
        guides = [
            np.concatenate(
                [t.T + (m @ j.moves).T for t, m in zip(self.model.texture_responses(g), moves, strict=True)], 1
            )
            for g, j in self.model.jacobians.items()
        ]
        return Derivatives(guides, np.concatenate(natural, 1))
