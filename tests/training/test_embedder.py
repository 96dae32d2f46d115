"""Distill the built-in recognizer from a small teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.devices import device_named
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.faces.align import crop, five_points, similarity
from faceveil.pipelines.jobs import embedder as job
from faceveil.pipelines.recognition.embedder import TEMPLATE, Embedder, EmbedderNetwork, save_embedder
from faceveil.pipelines.training import embedder as training
from faceveil.pipelines.training.disturb import disturbed
from faceveil.pipelines.training.embedder import Recipe, agreement, distillation_loss, train_embedder

TEACHER = """
import torch
from torch import nn
SIZE, BGR = {size}, True
TEMPLATE = {template}
def load():
    torch.manual_seed(1)
    a = nn.Sequential(nn.AvgPool2d({size} // 32), nn.Conv2d(3, 64, 1))
    b, c = (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(i, 128, 1), nn.ReLU()) for i in (64, 128))
    network = nn.Sequential(a, b, c, nn.Flatten(), nn.Linear(128 * 64, 256))
    return network.requires_grad_(False)
"""
HINTS = ("0", "1", "2")


def write_teacher(folder: Path, size: int = 128) -> Path:
    path = folder / "teacher.py"
    path.write_text(TEACHER.format(size=size, template=(TEMPLATE * size / 128).tolist()))
    return path


@pytest.fixture
def teacher_file(tmp_path) -> Path:
    return write_teacher(tmp_path)


@pytest.fixture
def faces(portrait, portrait_faces) -> torch.Tensor:
    points = portrait_faces[0].points
    return torch.cat([job._aligned(portrait.roll(i, 1) * (1 - 0.05 * i), points + [3 * i, 0]) for i in range(6)])


def test_disturbed_faces_repeat_and_differ(faces):
    images = faces.float() / 255
    first, again, other = (disturbed(images, 128, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert first.shape == (6, 3, 128, 128)
    assert first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)
    middle = images[..., 8:-8, 8:-8]
    assert 0.01 < (first - middle).abs().mean() < 0.3


@pytest.mark.parametrize("size", [128, 64])
def test_the_teacher_sees_the_same_face(portrait, portrait_faces, tmp_path, size):
    teacher = job.open_teacher(write_teacher(tmp_path, size))
    points = portrait_faces[0].points
    stored = job._aligned(portrait, points)[..., 8:-8, 8:-8].float() / 255
    seen = training._reframed(stored, similarity(TEMPLATE, teacher.template), size)
    expected = crop(portrait, similarity(five_points(points), teacher.template), size)
    # The teacher's own crop is filtered in another way.
    assert (seen - expected).abs().mean() < 0.5 * (seen.roll(2, -1) - expected).abs().mean()


def test_hints_are_the_teachers_features(faces, teacher_file):
    teacher = job.open_teacher(teacher_file)
    crops = faces[..., 8:-8, 8:-8].float() / 255
    hints, vectors = teacher.embed_with_hints(crops, HINTS)
    assert [h.shape[1:] for h in hints] == [(64, 32, 32), (128, 16, 16), (128, 8, 8)]
    assert torch.allclose(hints[0], teacher.network[0](crops.flip(1) * 255))
    assert torch.allclose(vectors.norm(dim=1), torch.ones(6))
    assert not teacher.network[0]._forward_hooks


def test_a_stage_alone_learns_nothing_from_the_loss_of_the_next(faces, teacher_file):
    teacher = job.open_teacher(teacher_file)
    crops = faces[..., 8:-8, 8:-8].float() / 255
    hints, wanted = teacher.embed_with_hints(crops, HINTS)
    network = EmbedderNetwork()

    def gradient(alone: bool) -> torch.Tensor:
        network.zero_grad()
        loss = distillation_loss(network, crops, hints, wanted, alone) - distillation_loss(
            network, crops, hints[:1] + [torch.zeros_like(h) for h in hints[1:]], wanted, alone
        )
        loss.backward()
        return next(network.stages[0].parameters()).grad

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_relative_error", lambda found, wanted: (found - wanted).square().mean())
        assert gradient(True).abs().max() < 1e-7
        assert gradient(False).abs().max() > 1e-5


@pytest.mark.parametrize(("hints", "steps"), [((), 30), (HINTS, 80)])
def test_the_student_comes_to_agree_with_the_teacher(faces, teacher_file, hints, steps):
    teacher = job.open_teacher(teacher_file)
    before = agreement(EmbedderNetwork().eval(), teacher, faces)
    after = agreement(train_embedder(faces, teacher, Recipe(steps, 12, warmup=5, ema=0.5, hints=hints)), teacher, faces)
    assert after[0] > max(0.5, before[0] + 0.3)


def test_a_share_of_each_batch_are_portraits():
    generator = torch.Generator().manual_seed(0)
    rows = training._rows(310, Recipe(batch=4000, group=31), generator)
    assert 0.25 < (rows % 31 == 0).float().mean() < 0.31
    assert rows.max() < 310 and len(rows.unique()) > 250
    plain = training._rows(310, Recipe(batch=4000), generator)
    assert (plain % 31 == 0).float().mean() < 0.06


def test_hints_count_less_and_less_once_the_stages_learn_together():
    recipe = Recipe(steps=1000)
    assert [recipe.hint_weight(step) for step in (0, 399, 400)] == [1, 1, 1]
    assert recipe.hint_weight(700) == pytest.approx(0.5)
    assert 0 < recipe.hint_weight(999) < 0.01


def test_the_recipe_follows_the_number_of_steps():
    short, long = (Recipe.of(steps, 48, 0, ()) for steps in (2, 20_000))
    assert (short.warmup, short.ema) == (0, 0)
    assert (long.warmup, long.ema) == (500, 0.999)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_training_on_a_gpu_goes_on_exactly(tmp_path, faces, teacher_file):
    teacher, recipe, state = job.open_teacher(teacher_file), Recipe(6, 4, warmup=1, hints=HINTS), tmp_path / "state"
    whole = train_embedder(faces, teacher, recipe, device="cuda")
    train_embedder(faces, teacher, recipe, state, stop_after=3, device="cuda")
    resumed = train_embedder(faces, teacher, recipe, state, device="cuda")
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(a.device.type == "cpu" and torch.equal(a, b) for a, b in pairs)
    assert next(teacher.network.parameters()).device.type == "cpu"


def test_a_device_that_is_not_there_is_refused():
    assert device_named("cpu").type == "cpu"
    for name in ("nowhere", "cuda:77"):
        with pytest.raises(InputError, match="no device"):
            device_named(name)


@pytest.mark.parametrize(
    ("size", "hints", "message"),
    [(64, HINTS, "the student's alignment"), (128, ("9", "1", "2"), "no module"), (128, ("1", "1", "2"), "the shapes")],
)
def test_wrong_hints_are_refused(tmp_path, faces, size, hints, message):
    teacher = job.open_teacher(write_teacher(tmp_path, size))
    with pytest.raises(InputError, match=message):
        train_embedder(faces, teacher, Recipe(steps=1, hints=hints))


def test_a_stopped_training_goes_on_and_ends_the_same(tmp_path, faces, teacher_file):
    teacher, recipe, state = job.open_teacher(teacher_file), Recipe(4, 4, warmup=1, hints=HINTS), tmp_path / "state"
    whole = train_embedder(faces, teacher, recipe)
    train_embedder(faces, teacher, recipe, state=state, stop_after=2)
    resumed = train_embedder(faces, teacher, recipe, state=state)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    with pytest.raises(InputError, match="belongs to another training"):
        train_embedder(faces, teacher, Recipe(4, 4, warmup=1), state=state)


def test_the_command_trains_from_a_folder(tmp_path, portrait, teacher_file, monkeypatch):
    from faceveil.pipelines.imaging.image import LoadedImage
    from faceveil.pipelines.imaging.save import save_image

    monkeypatch.setattr(job, "FACES_A_PART", 1)
    (tmp_path / "in").mkdir()
    for i in range(4):
        save_image(LoadedImage(portrait[..., 0:256, 96:352].roll(i, 1)), tmp_path / "in" / f"{i}.png")
    output = tmp_path / "mine.safetensors"
    recipe = Recipe(steps=2, batch=4, warmup=1)
    facts = job.embedder_from_folder(tmp_path / "in", teacher_file, output, recipe, workers=1, people=2)
    assert facts["faces"] == 2 * (1 + 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "mine.safetensors", "teacher.py"]
    recognizer = Embedder(output)
    assert recognizer.name == "faceveil-mine"


@pytest.mark.parametrize(("content", "message"), [(None, "is not a Python file"), ("SIZE = 3", "does not define")])
def test_a_file_without_a_teacher_is_refused(tmp_path, content, message):
    path = tmp_path / "teacher.py"
    if content:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        job.open_teacher(path)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    network = EmbedderNetwork()
    save_embedder(path, network)
    Embedder(path)
    network.head[-1] = torch.nn.Linear(384, 8)
    save_embedder(path, network)
    with pytest.raises(WeightsError, match="does not fit the network"):
        Embedder(path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="is not a recognizer of format"):
        Embedder(path)


def test_the_built_in_recognizer_tells_people_apart(portrait, portrait_faces):
    recognizer = Embedder()
    points = portrait_faces[0].points
    vector, brighter = recognizer.embed(portrait, points), recognizer.embed(portrait * 0.8, points)
    assert np.isclose(np.linalg.norm(vector), 1)
    assert recognizer.distance(vector, brighter) < 0.4 < recognizer.threshold
    assert recognizer.embed_many([portrait, portrait * 0.8], [points] * 2).shape == (2, 256)
