"""Train the appearance model end to end on a few augmented copies of one portrait."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.imaging.image import LoadedImage
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.methods.appearance import training
from faceveil.pipelines.methods.appearance.network import load_model
from safetensors.torch import load_file


@pytest.fixture
def folder(tmp_path, portrait):
    from kornia.geometry.transform import warp_affine

    rng = np.random.default_rng(0)
    head = portrait[..., 0:256, 96:352]
    names = ("female_white", "male_asian", "male_black", "female_latino")
    for i in range(24):
        angle, stretch = rng.normal() * 0.06, 1 + rng.normal() * 0.06
        matrix = torch.tensor(
            [
                [
                    [np.cos(angle) * stretch, -np.sin(angle), 8 * rng.normal()],
                    [np.sin(angle), np.cos(angle), 8 * rng.normal()],
                ]
            ]
        )
        bent = warp_affine(head, matrix.float(), (256, 256), padding_mode="border")
        tint = torch.from_numpy(rng.uniform(0.7, 1.2, (1, 3, 1, 1))).float()
        save_image(LoadedImage((bent * tint).clamp(0, 1)), tmp_path / "in" / f"{i:03}_{names[i % 4]}.png")
    return tmp_path / "in"


@pytest.fixture
def small(monkeypatch) -> None:
    """A training that takes seconds."""
    monkeypatch.setattr(training, "MIN_FACES", 12)
    monkeypatch.setattr(training, "BANGS_LIMIT", 9.0)
    monkeypatch.setattr(training, "GLASSES_LIMIT", 99.0)
    monkeypatch.setattr(training, "PERSON_GLASSES_LIMIT", 99.0)
    monkeypatch.setattr(training, "HARSHNESS_LIMIT", 99.0)
    monkeypatch.setattr(training, "YAW_LIMIT", 90.0)
    monkeypatch.setattr(training, "MIN_LABELED", 4)
    monkeypatch.setattr(training, "COMPONENTS", dict.fromkeys(training.COMPONENTS, 6))
    monkeypatch.setattr(training, "SHAPE_COMPONENTS", 8)
    monkeypatch.setattr(training, "RESIDUALS", 5)
    monkeypatch.setattr(training, "JACOBIAN_FACES", 6)
    monkeypatch.setattr(training, "FACES_A_PART", 6)
    monkeypatch.setattr(training, "JACOBIAN_JOBS", 3)
    # Copies of one face do not determine depth; two rounds do not diverge yet.
    monkeypatch.setattr(training, "learn_shape_model", partial(training.learn_shape_model, rounds=2))


@pytest.mark.slow
def test_trains_a_model_that_loads(folder, tmp_path, small) -> None:
    steps = []
    output = tmp_path / "model.safetensors"
    facts = training.train(folder, output, workers=1, progress=lambda done, total, what: steps.append(what))
    assert facts["images"] == 24
    assert facts["used"] >= 12
    assert {"finding faces", "learning the 3D shape model", "learning the mouth"} <= set(steps)
    model = load_model(output)
    detail = model.decode({n: np.zeros(r.components, np.float32) for n, r in model.regions.items()})
    assert torch.isfinite(detail).all()
    assert len(model.people) == facts["people"] >= 12
    assert set(model.jacobians) == {"dlib", "faceveil"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "model.safetensors"]


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_ends_the_same(folder, tmp_path, small) -> None:
    """Stopped in each of its three stages; what is finished is not done again."""
    training.train(folder, tmp_path / "whole.safetensors", workers=1)
    counts: dict[str, int] = {}

    def stop_in(what: str) -> None:
        def progress(done: int, total: int, now: str) -> None:
            counts[now] = counts.get(now, 0) + (done > 0)
            if now == what and done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            training.train(folder, tmp_path / "stopped.safetensors", workers=1, progress=progress)

    for what in ("finding faces", "separating shading and detail", "fitting the embedding Jacobians"):
        stop_in(what)
        assert not (tmp_path / "stopped.safetensors").exists()
    training.train(folder, tmp_path / "stopped.safetensors", workers=1)
    # The order of the metadata in a safetensors file is random, so the files are compared by content.
    stopped, whole = (load_file(tmp_path / f"{name}.safetensors") for name in ("stopped", "whole"))
    assert stopped.keys() == whole.keys()
    assert all(torch.equal(stopped[key], whole[key]) for key in whole)
    # Four parts: one was finished before the first stop, the others after it.
    assert counts["finding faces"] <= 2 + 3
    assert not (tmp_path / "stopped.state").exists()


def test_the_state_of_another_training_is_refused(folder, tmp_path, small) -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(folder, tmp_path / "model.safetensors", workers=1, progress=stop)
    next(folder.iterdir()).unlink()
    with pytest.raises(InputError, match=r"model\.state belongs to another training"):
        training.train(folder, tmp_path / "model.safetensors", workers=1)


def test_copies_of_one_face_are_refused(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "MIN_FACES", 12)
    monkeypatch.setattr(training, "SHAPE_COMPONENTS", 8)
    with pytest.raises(InputError, match="too few different faces and head poses"):
        training.train(folder, tmp_path / "model.safetensors", workers=1)


def test_too_few_images_are_refused(folder, tmp_path) -> None:
    with pytest.raises(InputError, match="at least 400"):
        training.train(folder, tmp_path / "model.safetensors")
