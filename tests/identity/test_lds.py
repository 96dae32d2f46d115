"""The identity sampler: samples, levels, the posterior filter, files."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.lds import (
    BETAS,
    STEPS,
    TIMES,
    Denoiser,
    IdentitySampler,
    alphas_cumprod,
    builtin_sampler,
    load_sampler,
    save_sampler,
)
from faceveil.pipelines.jobs.portraits import vectors_from_folder


@pytest.fixture(scope="module")
def sampler():
    return builtin_sampler("dlib")


def untrained_sampler() -> IdentitySampler:
    generator = torch.Generator().manual_seed(0)
    denoiser = Denoiser(6, width=32, blocks=1)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    return IdentitySampler(denoiser, np.full(6, 3.0), np.linspace(1, 2, 6), "test", 0)


def test_the_cosine_decreases_from_level_to_level(sampler) -> None:
    people = sampler.sample(12, 5).vectors
    means = [
        np.mean([sampler.level(p, level, i, 12).cosines[0] for i, p in enumerate(people)]) for level in range(1, 11)
    ]
    assert all(a > b for a, b in pairwise(means)), np.round(means, 3)
    assert means[0] > 0.4 and means[-1] < 0.1


def test_samples_are_unit_vectors_and_deterministic(sampler) -> None:
    vectors = sampler.sample(5, 3).vectors
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors, sampler.sample(5, 3).vectors)
    assert not np.allclose(vectors, sampler.sample(5, 4).vectors)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)[np.triu_indices(5, 1)]
    assert distances.min() > 0.15


def test_the_posterior_filter_returns_no_rejected_sample(sampler) -> None:
    person = sampler.sample(1, 8).vectors[0]
    samples = sampler.away_from(person, 1, max_cosine=0.0, count=20)
    assert len(samples.vectors) == 20 and (samples.cosines <= 0.0).all()
    assert np.allclose(sampler.cosine(samples.vectors, person)[:, 0], samples.cosines)
    assert samples.candidates >= 20 + 1 and 0 < samples.rejected <= samples.candidates - 20
    with pytest.raises(InputError, match=r"0 of 64 sampled identities have a cosine of at most -0\.99"):
        sampler.away_from(person, 1, max_cosine=-0.99, max_rounds=1)


def test_shape_coefficients_are_sampled() -> None:
    vectors = builtin_sampler("appearance-shape").sample(200, 0).vectors
    assert vectors.shape == (200, 40)
    assert 0.05 < vectors.std() < 1.5


def test_bad_levels_and_vectors_raise(sampler) -> None:
    with pytest.raises(InputError, match="level must be 1 to 10"):
        sampler.level(np.ones(128), 11, 0)
    with pytest.raises(InputError, match=r"a vector of shape \(128,\)"):
        sampler.level(np.ones(3), 1, 0)


def test_files_round_trip_and_bad_ones_raise(tmp_path) -> None:
    saved = untrained_sampler()
    save_sampler(tmp_path / "a.safetensors", saved)
    loaded = load_sampler(tmp_path / "a.safetensors")
    assert np.abs(loaded.sample(3, 0).vectors - saved.sample(3, 0).vectors).max() < 0.05
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:400])
    with pytest.raises(WeightsError, match="not a complete safetensors"):
        load_sampler(tmp_path / "cut.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        load_sampler(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="no identity sampler for arcface"):
        builtin_sampler("arcface")


def test_noise_schedule() -> None:
    schedule = alphas_cumprod()
    assert len(schedule) == 1000 and abs(float(schedule[0]) - 0.9999) < 1e-6 and float(schedule[-1]) < 1e-4


def test_joint_vectors_of_a_folder(portrait_file, tmp_path) -> None:
    portrait_file.rename(tmp_path / "faces.png")
    (tmp_path / "faces").mkdir()
    for i in range(2):
        (tmp_path / "faces" / f"{i}.png").write_bytes((tmp_path / "faces.png").read_bytes())
    vectors = vectors_from_folder(tmp_path / "faces", "joint", workers=1)
    assert vectors.space == "dlib+appearance-shape" and vectors.unit == 128
    assert vectors.train.shape == (1, 168) and abs(np.linalg.norm(vectors.train[0, :128]) - 1) < 1e-9
    with pytest.raises(InputError, match="'bones' is not one of dlib"):
        vectors_from_folder(tmp_path / "faces", "bones", workers=1)


def test_sampling_is_the_deterministic_ddim_of_diffusers() -> None:
    """The solver of first order with the data prediction is DDIM with eta = 0 (Lu et al. 2022, section 3.4)."""
    from diffusers import DPMSolverMultistepScheduler

    sampler = builtin_sampler("dlib")
    start = 699
    x = torch.randn(3, len(sampler.mean), generator=torch.Generator().manual_seed(1))
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMES,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_order=1,
        final_sigmas_type="zero",
    )
    times = np.unique(np.linspace(0, start, round(STEPS * (start + 1) / TIMES)).round().astype(int))[::-1]
    scheduler.set_timesteps(timesteps=times.tolist())
    theirs = x
    with torch.no_grad():
        for t in scheduler.timesteps:
            noise = sampler.denoiser(theirs, torch.full((3,), int(t)))
            theirs = scheduler.step(noise, t, theirs).prev_sample
    ours = sampler._denoise(x, start)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
