"""The identity sampler: what it draws, its levels, and its training."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.lds import alphas, builtin_sampler, load_sampler, save_sampler
from faceveil.pipelines.jobs.portraits import folder_vectors
from faceveil.pipelines.training.sampler import Recipe, train_sampler


@pytest.fixture(scope="module")
def sampler():
    return builtin_sampler("dlib")


def correlated(count: int = 600) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)) @ rng.normal(size=(6, 6)) + 3.0


def test_levels_move_away_step_by_step(sampler) -> None:
    people = sampler.sample(12, 5).vectors
    means = [
        np.mean([sampler.level(p, level, i, 12).cosines[0] for i, p in enumerate(people)]) for level in range(1, 11)
    ]
    assert all(a > b for a, b in pairwise(means)), np.round(means, 3)
    assert means[0] > 0.4 and means[-1] < 0.1


def test_draws_are_unit_vectors_and_repeat(sampler) -> None:
    drawn = sampler.sample(5, 3)
    assert np.allclose(np.linalg.norm(drawn.vectors, axis=1), 1)
    assert np.array_equal(drawn.vectors, sampler.sample(5, 3).vectors)
    assert not np.allclose(drawn.vectors, sampler.sample(5, 4).vectors)
    apart = np.linalg.norm(drawn.vectors[:, None] - drawn.vectors[None], axis=2)[np.triu_indices(5, 1)]
    assert apart.min() > 0.15


def test_the_posterior_filter_returns_no_rejected_draw(sampler) -> None:
    person = sampler.sample(1, 8).vectors[0]
    drawn = sampler.away_from(person, 1, most=0.0, count=20)
    assert len(drawn.vectors) == 20 and (drawn.cosines <= 0.0).all()
    assert np.allclose(sampler.cosine(drawn.vectors, person)[:, 0], drawn.cosines)
    assert drawn.drawn >= 20 + 1 and 0 < drawn.rejected <= drawn.drawn - 20
    with pytest.raises(InputError, match=r"no 1 identities with a cosine of at most -0\.99"):
        sampler.away_from(person, 1, most=-0.99, tries=1)


def test_shapes_are_drawn_too() -> None:
    drawn = builtin_sampler("appearance-shape").sample(200, 0).vectors
    assert drawn.shape == (200, 40)
    assert 0.05 < drawn.std() < 1.5


def test_bad_levels_and_vectors_are_refused(sampler) -> None:
    with pytest.raises(InputError, match="level must be 1 to 10"):
        sampler.level(np.ones(128), 11, 0)
    with pytest.raises(InputError, match="vectors of 128 numbers"):
        sampler.level(np.ones(3), 1, 0)


def test_it_learns_a_distribution() -> None:
    data = correlated()
    learned = train_sampler(data, "test", 0, Recipe(width=64, blocks=2, steps=500))
    drawn = learned.sample(2000, 1).vectors
    assert np.abs(drawn.mean(0) - data.mean(0)).max() < 0.35 * data.std(0).max()
    assert np.linalg.norm(np.cov(drawn.T) - np.cov(data.T)) < 0.25 * np.linalg.norm(np.cov(data.T))


def test_training_resumes_exactly(tmp_path) -> None:
    data, recipe = correlated(), Recipe(width=32, blocks=1, steps=40)
    whole = train_sampler(data, "test", 0, recipe)
    train_sampler(data, "test", 0, recipe, tmp_path / "state", stop_after=15)
    assert (tmp_path / "state").is_file()
    resumed = train_sampler(data, "test", 0, recipe, tmp_path / "state")
    assert not (tmp_path / "state").exists()
    for key, value in whole.denoiser.state_dict().items():
        assert torch.equal(value, resumed.denoiser.state_dict()[key])


def test_files_round_trip_and_bad_ones_are_refused(tmp_path) -> None:
    trained = train_sampler(correlated(), "test", 0, Recipe(width=32, blocks=1, steps=5))
    save_sampler(tmp_path / "a.safetensors", trained)
    again = load_sampler(tmp_path / "a.safetensors")
    assert np.abs(again.sample(3, 0).vectors - trained.sample(3, 0).vectors).max() < 0.05
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:400])
    with pytest.raises(WeightsError, match="not a whole safetensors"):
        load_sampler(tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match="is not there"):
        load_sampler(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="no identity sampler for arcface"):
        builtin_sampler("arcface")
    with pytest.raises(InputError, match="at least 200 faces"):
        train_sampler(correlated(50), "test", 0, Recipe())


def test_noise_schedule() -> None:
    kept = alphas()
    assert len(kept) == 1000 and abs(float(kept[0]) - 0.9999) < 1e-6 and float(kept[-1]) < 1e-4


def test_drawn_jointly_face_and_geometry_belong_together() -> None:
    """Of a unit vector of 5 numbers and coefficients that follow from it, both parts keep their kind and their tie."""
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(2000, 5)) + 2
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    joint = np.concatenate([faces, 3 * faces[:, :2] + 0.05 * rng.normal(size=(2000, 2))], 1)
    drawn = train_sampler(joint, "test+shape", 5, Recipe(width=64, blocks=2, steps=600)).sample(500, 1).vectors
    assert np.allclose(np.linalg.norm(drawn[:, :5], axis=1), 1)
    tie = [np.corrcoef(drawn[:, i], drawn[:, 5 + i])[0, 1] for i in range(2)]
    apart = np.corrcoef(drawn[:, 0], np.roll(drawn[:, 5], 1))[0, 1]
    assert min(tie) > 0.8 > 0.3 > abs(apart)


def test_a_folder_gives_both_sides(portrait_file, tmp_path) -> None:
    portrait_file.rename(tmp_path / "faces.png")
    (tmp_path / "faces").mkdir()
    for i in range(2):
        (tmp_path / "faces" / f"{i}.png").write_bytes((tmp_path / "faces.png").read_bytes())
    found = folder_vectors(tmp_path / "faces", "joint", workers=1)
    assert found.space == "dlib+appearance-shape" and found.unit == 128
    assert found.learned.shape == (1, 168) and abs(np.linalg.norm(found.learned[0, :128]) - 1) < 1e-9
    with pytest.raises(InputError, match="'bones' is not one of dlib"):
        folder_vectors(tmp_path / "faces", "bones", workers=1)
