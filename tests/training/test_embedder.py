"""Distill the built-in recognizer from a small teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.faces.align import ARCFACE_TEMPLATE
from faceveil.pipelines.jobs import embedder as job
from faceveil.pipelines.recognition.embedder import Embedder, EmbedderNetwork, save_embedder
from faceveil.pipelines.training.embedder import Recipe, Views, agreement, make_views, train_embedder

TEACHER = """
import torch
SIZE, BGR = 32, True
TEMPLATE = {template}
def load():
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, 256))
    return network.requires_grad_(False)
"""


@pytest.fixture
def teacher_file(tmp_path) -> Path:
    path = tmp_path / "teacher.py"
    path.write_text(TEACHER.format(template=(ARCFACE_TEMPLATE * 32 / 112).tolist()))
    return path


def faces_of(portrait, portrait_faces, count: int = 4):
    return [(portrait.roll(i, 1), portrait_faces[0].points) for i in range(count)]


def test_views_repeat_and_differ(portrait, portrait_faces, teacher_file):
    teacher = job.open_teacher(teacher_file)
    faces = faces_of(portrait, portrait_faces)
    views, again, other = (make_views(faces, teacher, 3, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert views.crops.shape == (12, 3, 112, 112)
    assert views.crops.dtype == torch.uint8
    assert torch.allclose(views.vectors.norm(dim=1), torch.ones(12))
    assert torch.equal(views.crops, again.crops)
    assert not torch.equal(views.crops, other.crops)
    assert len({crop.numpy().tobytes() for crop in views.crops}) == 12


def test_the_student_comes_to_agree_with_the_teacher(portrait, portrait_faces, teacher_file):
    teacher = job.open_teacher(teacher_file)
    views = make_views(faces_of(portrait, portrait_faces, 3), teacher, 8, torch.Generator().manual_seed(0))
    before = agreement(EmbedderNetwork().eval(), views)
    after = agreement(train_embedder(views, Recipe(steps=40, batch=16, warmup=5, ema=0.5)), views)
    assert after[0] > max(0.5, before[0] + 0.3)


def test_a_stopped_training_goes_on_and_ends_the_same(tmp_path):
    views = Views(torch.randint(0, 256, (12, 3, 112, 112), dtype=torch.uint8), torch.eye(12, 256))
    recipe, state = Recipe(steps=4, batch=4, warmup=1), tmp_path / "state"
    whole = train_embedder(views, recipe)
    train_embedder(views, recipe, state=state, stop_after=2)
    resumed = train_embedder(views, recipe, state=state)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


def test_the_command_trains_from_a_folder(tmp_path, portrait, teacher_file, monkeypatch):
    from faceveil.pipelines.imaging.image import LoadedImage
    from faceveil.pipelines.imaging.save import save_image

    monkeypatch.setattr(job, "FACES_A_PART", 1)
    monkeypatch.setattr(job, "PEOPLE", 1)
    (tmp_path / "in").mkdir()
    for i in range(4):
        save_image(LoadedImage(portrait[..., 0:256, 96:352].roll(i, 1)), tmp_path / "in" / f"{i}.png")
    output = tmp_path / "mine.safetensors"
    recipe = Recipe(steps=2, batch=4, warmup=1)
    facts = job.embedder_from_folder(tmp_path / "in", teacher_file, output, recipe, workers=1)
    assert facts["views"] == 2 * (job.VIEWS + job.PERSON_VIEWS)
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
    network.embedding = torch.nn.Linear(384, 8)
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
