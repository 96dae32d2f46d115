"""Sampling, and the checkpoint's file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.methods.diffdeid.pipeline import Checkpoint, DiffDeIDPipeline
from safetensors.torch import load_file, save_file


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_face_does_not_depend_on_the_others(network, conditions):
    pipeline = DiffDeIDPipeline(network)
    together = pipeline.sample(conditions, generators(1, 2, 3), 4)
    alone = pipeline.sample(conditions.rows([1]), generators(2), 4)
    assert together.shape == (3, 3, 32, 32)
    assert torch.allclose(together[1:2], alone, atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_guidance_moves_away_from_no_identity(network, conditions):
    pipeline = DiffDeIDPipeline(network)
    plain = pipeline.sample(conditions, generators(1, 2, 3), 3)
    nothing = pipeline.sample(conditions.without_identity(), generators(1, 2, 3), 3, guidance=3.0)
    guided = pipeline.sample(conditions, generators(1, 2, 3), 3, guidance=3.0)
    assert not torch.allclose(plain, guided, atol=1e-3)
    # Without an identity, both rows of the guidance are equal.
    unguided = pipeline.sample(conditions.without_identity(), generators(1, 2, 3), 3)
    assert torch.allclose(nothing, unguided, atol=1e-4)


def test_any_scheduler_of_diffusers(network, conditions):
    from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
    from faceveil.pipelines.methods.sampling import SCHEDULER

    for kind in (DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler):
        pipeline = DiffDeIDPipeline(network, kind(**SCHEDULER))
        first, again = (pipeline.sample(conditions, generators(1, 2, 3), 4) for _ in range(2))
        assert torch.isfinite(first).all()
        assert torch.equal(first, again), kind.__name__


def test_progress_can_interrupt(network, conditions):
    def stop(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DiffDeIDPipeline(network).sample(conditions, generators(1, 2, 3), 4, progress=stop)


def test_one_generator_for_each_face(network, conditions):
    with pytest.raises(InputError, match="3 faces need as many generators, got 1"):
        DiffDeIDPipeline(network).sample(conditions, generators(1), 4)


def test_a_checkpoint_survives_its_file(checkpoint, checkpoint_file, conditions):
    read = Checkpoint.open(checkpoint_file)
    assert (read.model, read.space, read.network.config) == (
        checkpoint.model,
        checkpoint.space,
        checkpoint.network.config,
    )
    assert read.standardizer.layout == checkpoint.standardizer.layout
    x, time = torch.randn(3, 3, 32, 32), torch.tensor([5, 500, 950])
    # Half precision.
    expected = checkpoint.network(x, time, *conditions.parts())
    assert (read.network(x, time, *conditions.parts()) - expected).abs().max() < 0.02 * expected.abs().max()


def test_damaged_files_are_refused(checkpoint_file, tmp_path):
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(WeightsError, match="does not exist"):
        Checkpoint.open(missing)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match="not a DiffDeID checkpoint"):
        Checkpoint.open(other)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint_file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="train one with"):
        Checkpoint.open(cut)
    _changed(checkpoint_file, tmp_path / "nan.safetensors", "coefficients.mean", float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        Checkpoint.open(tmp_path / "nan.safetensors")


def _changed(source: Path, target: Path, key: str, value: float) -> None:
    from safetensors import safe_open

    with safe_open(str(source), "pt") as file:
        metadata = file.metadata()
    tensors = load_file(source)
    tensors[key] = torch.full_like(tensors[key], value)
    save_file(tensors, target, metadata)
