"""Training of the ensemble identity: the triplet loss, generalization to new people, reproducibility, bad inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.training.ensemble import Recipe, train_ensemble, triplet_loss

SPACES, SIZES = ("arcface-w600k", "farl-ep64", "facenet-vggface2"), (512, 512, 512)


def simulated_embeddings(people: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Simulate the embeddings of three recognizers for several photos of each person.

    The identity varies in 24 directions. Light and pose vary in 24 other directions, twice as much.

    Returns:
        Concatenated unit vectors ``(people * photos, 1536)``, and the label of the person in each row.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for part in range(3):
        identity_basis, photo_basis = np.random.default_rng(100 + part).normal(size=(2, 24, 512))
        identities = rng.normal(size=(people, 24)) @ identity_basis
        vectors = np.repeat(identities, photos, 0) + 2 * rng.normal(size=(people * photos, 24)) @ photo_basis
        parts.append(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return np.concatenate(parts, 1), np.repeat(np.arange(people), photos)


def separation(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Compute the difference of the mean cosines of matching and other pairs, in standard deviations."""
    cosines = vectors @ vectors.T
    same = (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
    other = labels[:, None] != labels[None]
    return float(
        (cosines[same].mean() - cosines[other].mean()) / np.sqrt((cosines[same].var() + cosines[other].var()) / 2)
    )


def test_triplet_loss_equals_its_definition() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    labels, costs = [0, 0, 0, 1, 1, 2, 2], []
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if a != p and labels[a] == labels[p] != labels[n]:
                    positive = float((vectors[a] - vectors[p]).square().sum())
                    negative = float((vectors[a] - vectors[n]).square().sum())
                    costs.append(max(positive - negative + 0.2, 0))
    active = [c for c in costs if c > 0]
    assert float(triplet_loss(vectors, torch.tensor(labels), 0.2)) == pytest.approx(sum(active) / len(active), rel=1e-5)


def test_training_separates_new_people_better() -> None:
    joined, labels = simulated_embeddings(300, 5)
    mapper = train_ensemble(joined, labels, SPACES, SIZES, Recipe(epochs=6))
    test_joined, test_labels = simulated_embeddings(40, 4, seed=1)
    with torch.no_grad():
        mapped = mapper(torch.from_numpy(test_joined).float()).numpy()
    assert separation(mapped, test_labels) > 1.5 * separation(test_joined / np.sqrt(3), test_labels)
    assert mapper.spaces == SPACES and 0 < mapper.threshold < 2


def test_training_is_deterministic_and_bad_inputs_raise() -> None:
    joined, labels = simulated_embeddings(14, 3)
    a, b = (train_ensemble(joined, labels, SPACES, SIZES, Recipe(epochs=1)).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(InputError, match="at least 12 people"):
        train_ensemble(joined[:9], labels[:9], SPACES, SIZES, Recipe())
    with pytest.raises(InputError, match="finite vectors of that size"):
        train_ensemble(joined[:, :100], labels, SPACES, SIZES, Recipe())
