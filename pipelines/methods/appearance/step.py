"""One step of the search: the least change of the codes that reaches its goals, by the forecasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .canonical import REGIONS
from .forecast import GOALS, Derivatives, Embeddings, Forecaster
from .jacobian import GUIDES
from .latent import MAX_CODE
from .natural import Parts
from .network import AppearanceModel
from .render import Subject

EASE = {"eyes": 1.2, "nose": 0.6, "mouth": 1.0, "base": 1.0}
"""How easily the codes of each region change. Large changes of the nose look like caricatures."""
SOFT_CODE = 1.5
"""A code of this size changes half as easily as one of 0, so that faces stay natural."""
DISTANCE_RIDGE, LABEL_RIDGE = 0.002, 0.003
"""How much the forecast may miss a goal in order to change the codes less; large values mean more."""
MAX_LABEL_STEP = 1.5
"""Limit of the change of a label in one step."""


@dataclass(frozen=True)
class Weights:
    """How much each kind of goal counts.

    Attributes:
        target: ridge of the target embedding: large values let the forecast miss it, to change the codes less.
        natural: ridge of the measures of naturalness.
        overshoot: factor of the changes of distance: forecasts are regularized, and limits of the rendering stop a part
            of each change.
    """

    target: float
    natural: float
    overshoot: float


@dataclass(frozen=True)
class _Rows:
    """Linear equations: ``derivatives @ change = needs``, each of which may be missed by as much as its ridge allows.

    Attributes:
        derivatives: ``(N, Z)``.
        needs: ``(N,)``.
        ridge: of all of them.
    """

    derivatives: np.ndarray
    needs: np.ndarray
    ridge: float


class Stepper:
    """Changes codes towards a target embedding and away from the original.

    Args:
        target: ``(D,)`` in the first guide's space.
    """

    def __init__(self, forecaster: Forecaster, weights: Weights, target: np.ndarray) -> None:
        self._forecaster, self._weights, self._target = forecaster, weights, target
        self._ease = _ease(forecaster.model)

    def step(
        self,
        codes: np.ndarray,
        parts: Sequence[Parts],
        embeddings: Sequence[Embeddings],
        derivatives: Sequence[Derivatives],
    ) -> np.ndarray:
        """Change codes ``(Z,)``; returns ``(Z,)`` within ``MAX_CODE``.

        Args:
            parts: of the codes in each photo.
            embeddings: of the codes in each photo, rendered or forecast.
            derivatives: in each photo.
        """
        rows = []
        photos = zip(self._forecaster.subjects, self._forecaster.limits, derivatives, parts, embeddings, strict=True)
        for subject, limits, derivative, part, vectors in photos:
            rows += self._distances(subject, derivative, vectors)
            rows.append(self._labels(subject, derivative, vectors))
            rows.append(_Rows(derivative.guides[0], self._target - vectors[0], self._weights.target))
            measures = self._forecaster.natural.measure(part)
            needs = np.clip(measures, *limits.T) - measures
            rows.append(_Rows(derivative.natural, needs, self._weights.natural))
        change = _solve(rows, self._ease / (1 + (codes / SOFT_CODE) ** 2), len(derivatives))
        return np.clip(codes + change, -MAX_CODE, MAX_CODE)

    def _distances(self, subject: Subject, derivative: Derivatives, vectors: Embeddings) -> list[_Rows]:
        """For each guide: as far from the original as strangers are."""
        rows = []
        for guide, jacobian, vector, original in zip(
            GUIDES, derivative.guides, vectors, subject.embeddings, strict=True
        ):
            away = vector - original
            distance = float(np.linalg.norm(away))
            need = self._weights.overshoot * max(0.0, GOALS[guide] - distance)
            direction = away / max(distance, 1e-6)
            rows.append(_Rows(direction @ jacobian[None], np.array([need]), DISTANCE_RIDGE))
        return rows

    def _labels(self, subject: Subject, derivative: Derivatives, vectors: Embeddings) -> _Rows:
        """Apparent sex and age stay."""
        directions = self._forecaster.labels
        needs = directions @ (subject.embeddings[0] - vectors[0])
        return _Rows(directions @ derivative.guides[0], np.clip(needs, -MAX_LABEL_STEP, MAX_LABEL_STEP), LABEL_RIDGE)


def _solve(rows: Sequence[_Rows], ease: np.ndarray, photos: int) -> np.ndarray:
    """Solve for the least change ``(Z,)``, where ``ease`` ``(Z,)`` tells how easily each code changes."""
    g = np.concatenate([r.derivatives for r in rows])
    needs = np.concatenate([r.needs for r in rows])
    ridges = np.concatenate([np.full(len(r.needs), r.ridge) for r in rows])
    scaled = g * ease
    system = scaled @ g.T + photos * np.diag(ridges)
    # torch's solver uses one thread here; numpy's would use all, and wait for them.
    solved = torch.linalg.solve(torch.from_numpy(system), torch.from_numpy(needs))
    return np.asarray(scaled.T @ solved.numpy())


def _ease(model: AppearanceModel) -> np.ndarray:
    return np.concatenate([np.full(model.regions[n].residual.shape[1], EASE[n]) for n in REGIONS])
