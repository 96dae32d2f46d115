"""Training of the identity sampler: learned distributions, joint vectors, resuming, bad inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.training.sampler import Recipe, train_sampler


def correlated_vectors(count: int = 600) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)) @ rng.normal(size=(6, 6)) + 3.0


def test_samples_have_the_mean_and_covariance_of_the_data() -> None:
    data = correlated_vectors()
    trained = train_sampler(data, "test", 0, Recipe(width=64, blocks=2, steps=500))
    sampled = trained.sample(2000, 1).vectors
    assert np.abs(sampled.mean(0) - data.mean(0)).max() < 0.35 * data.std(0).max()
    assert np.linalg.norm(np.cov(sampled.T) - np.cov(data.T)) < 0.25 * np.linalg.norm(np.cov(data.T))


def test_a_resumed_training_is_identical(tmp_path) -> None:
    data, recipe = correlated_vectors(), Recipe(width=32, blocks=1, steps=40)
    uninterrupted = train_sampler(data, "test", 0, recipe)
    train_sampler(data, "test", 0, recipe, tmp_path / "state", stop_after=15)
    assert (tmp_path / "state").is_file()
    resumed = train_sampler(data, "test", 0, recipe, tmp_path / "state")
    # The state stays until the caller has saved the result.
    with pytest.raises(InputError, match="state belongs to another training"):
        train_sampler(correlated_vectors() + 1, "test", 0, recipe, tmp_path / "state")
    for key, value in uninterrupted.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[key])


def test_too_few_faces_raise() -> None:
    with pytest.raises(InputError, match="at least 200 faces"):
        train_sampler(correlated_vectors(50), "test", 0, Recipe())


def test_jointly_sampled_embeddings_and_coefficients_are_consistent() -> None:
    """Train on unit vectors of 5 elements and 2 coefficients that depend on them; samples keep both properties."""
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2000, 5)) + 2
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    joint = np.concatenate([embeddings, 3 * embeddings[:, :2] + 0.05 * rng.normal(size=(2000, 2))], 1)
    sampled = train_sampler(joint, "test+shape", 5, Recipe(width=64, blocks=2, steps=600)).sample(500, 1).vectors
    assert np.allclose(np.linalg.norm(sampled[:, :5], axis=1), 1)
    correlations = [np.corrcoef(sampled[:, i], sampled[:, 5 + i])[0, 1] for i in range(2)]
    shuffled = np.corrcoef(sampled[:, 0], np.roll(sampled[:, 5], 1))[0, 1]
    assert min(correlations) > 0.8 > 0.3 > abs(shuffled)
