"""What recognizers and attackers find in anonymized faces, from embeddings alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLDS = 5
SHRINKAGE = (0.1, 0.3, 1.0)
"""Weights of the identity matrix in the attacker's covariance; the best one is reported, as he would tune it."""
RESAMPLES = 500


@dataclass(frozen=True)
class Outputs:
    """Anonymized faces as a judge sees them.

    Attributes:
        people: index into the gallery of each output's person, ``(N,)``.
        vectors: unit vectors ``(N, D)``.
    """

    people: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean with a bootstrap interval over people (2.5 to 97.5 %)."""

    mean: float
    low: float
    high: float


def estimate(values: np.ndarray, people: np.ndarray) -> Estimate:
    """Average values ``(N,)``, and resample people for the interval."""
    generator = np.random.default_rng(0)
    known = np.unique(people)
    sums = np.array([[values[people == p].sum(), (people == p).sum()] for p in known], dtype=float)
    picks = generator.integers(0, len(known), (RESAMPLES, len(known)))
    means = sums[picks, 0].sum(1) / sums[picks, 1].sum(1)
    return Estimate(float(values.mean()), *(float(v) for v in np.quantile(means, [0.025, 0.975])))


def cosines(gallery: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Cosine ``(N,)`` of each output with its original."""
    return np.asarray((gallery[outputs.people] * outputs.vectors).sum(1))


def found(gallery: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Whether each output's nearest face of the gallery is its original, ``(N,)``."""
    return (outputs.vectors @ gallery.T).argmax(1) == outputs.people


def found_by_learning(gallery: np.ndarray, outputs: Outputs) -> np.ndarray:
    """Whether an attacker finds the original who ran the tool on people of his own and learned from the results.

    He subtracts the mean change and whitens by what the tool changes within a person (LDA). It is cross-validated over
    people.
    """
    best = np.zeros(len(outputs.people), dtype=bool)
    for shrinkage in SHRINKAGE:
        hits = _found_by_lda(gallery, outputs, shrinkage)
        if hits.mean() > best.mean():
            best = hits
    return best


def _found_by_lda(gallery: np.ndarray, outputs: Outputs, shrinkage: float) -> np.ndarray:
    people = np.random.default_rng(0).permutation(np.unique(outputs.people))
    hits = np.zeros(len(outputs.people), dtype=bool)
    center = gallery.mean(0)
    for fold in range(FOLDS):
        tested = np.isin(outputs.people, people[fold::FOLDS])
        change = outputs.vectors[~tested] - gallery[outputs.people[~tested]]
        shift = change.mean(0)
        covariance = np.cov(change.T)
        covariance += shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        whiten = vectors / np.sqrt(values) @ vectors.T
        own, theirs = _unit((gallery - center) @ whiten), _unit((outputs.vectors[tested] - shift - center) @ whiten)
        hits[tested] = (theirs @ own.T).argmax(1) == outputs.people[tested]
    return hits


def linked(outputs: Outputs) -> np.ndarray:
    """Whether the nearest other output of each output shows the same person, ``(N,)``."""
    similarity = outputs.vectors @ outputs.vectors.T
    np.fill_diagonal(similarity, -2)
    return np.asarray(outputs.people[similarity.argmax(1)] == outputs.people)


def found_by_averaging(gallery: np.ndarray, outputs: Outputs) -> tuple[np.ndarray, np.ndarray]:
    """Average all outputs of each person; returns whether the original is found, and the people."""
    people = np.unique(outputs.people)
    means = np.stack([outputs.vectors[outputs.people == p].mean(0) for p in people])
    return (means @ gallery.T).argmax(1) == people, people


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
