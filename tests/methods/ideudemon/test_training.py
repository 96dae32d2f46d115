"""Training of the restorer: its losses, data, overfitting, exact resume, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.align import apply, crop, ffhq_transform
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.methods.ideudemon.discriminators import Discriminator, r1_penalty
from faceveil.pipelines.methods.ideudemon.generator import Generator, new_generator
from faceveil.pipelines.methods.ideudemon.pairs import Faces, build_faces, disturbed_hybrid
from faceveil.pipelines.methods.ideudemon.restorer import RestorerConfig, load_restorer
from faceveil.pipelines.methods.ideudemon.training import (
    ADVERSARIAL,
    STYLE,
    Objective,
    Recipe,
    constant,
    cut,
    draw,
    gram,
    places_of,
    train,
)
from faceveil.pipelines.recognition.embedder import SIZE as JUDGE_SIZE
from faceveil.pipelines.recognition.embedder import embedder_transform
from faceveil.pipelines.training.devices import Run, Settings
from faceveil.pipelines.training.perceptual import EmbedderFeatures
from torch import Tensor

SIZE = 64
CONFIG = RestorerConfig(SIZE, (16, 24, 32), 1)
TINY = Recipe(steps=6, batch=2, rate=1e-3, ema=0.5, pixels=1.0, identity=1.0)


@pytest.fixture(scope="module")
def images(photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    for i, path in enumerate(photos[:4]):
        to_pillow(load_image(path).pixels).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def faces(images, tmp_path_factory) -> Faces:
    return build_faces(images, tmp_path_factory.mktemp("data") / "d", SIZE, 0.0, 1)


def test_faces_are_prepared_once_and_others_are_refused(images, faces, tmp_path):
    assert len(faces) == 4 and faces.size == SIZE
    square, drawn, face, drawn_face, points = faces.rows([0, 3])
    assert square.shape == drawn.shape == (2, 3, SIZE, SIZE)
    assert set(face.unique().tolist()) | set(drawn_face.unique().tolist()) == {0.0, 1.0}
    # The drawing is in the place of the face.
    both = (face * drawn_face).sum((1, 2, 3)) / face.sum((1, 2, 3))
    assert bool((both > 0.7).all())
    inside = face * drawn_face
    assert float(((square - drawn).abs() * inside).sum() / (3 * inside.sum())) < 0.12
    assert points.shape == (2, 68, 2)
    build_faces(images, tmp_path / "d", SIZE, 0.0, 1)
    with pytest.raises(InputError, match="other images or settings"):
        build_faces(images, tmp_path / "d", SIZE, 1.0, 1)


def test_gaps_occur_and_are_filled(faces):
    square, drawn, face, drawn_face, _ = faces.rows([0, 1, 2, 3])
    hybrid = disturbed_hybrid(square, drawn, face, drawn_face, torch.Generator().manual_seed(0))
    outside = (face == 0).expand_as(square)
    assert torch.equal(hybrid[outside], square[outside])
    assert float((hybrid - square).abs().mean()) > 0.005
    again = disturbed_hybrid(square, drawn, face, drawn_face, torch.Generator().manual_seed(0))
    assert torch.equal(hybrid, again)


def test_regions_and_the_aligned_face_are_cut_where_the_landmarks_are(portrait, portrait_faces):
    size = 256
    points = portrait_faces[0].points
    transform = ffhq_transform(points, size)
    square, inside = crop(portrait, transform, size), apply(transform, points)
    regions, aligned = places_of(inside, size)
    wanted = crop(square, embedder_transform(inside), JUDGE_SIZE)
    found = cut(square, torch.from_numpy(aligned)[None], JUDGE_SIZE)
    assert float((wanted - found).abs().mean()) < 0.01
    # The middle of each region is the middle of the landmarks.
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), 0)[None].float() + 0.5
    for region, part in zip(regions, (slice(36, 42), slice(42, 48), slice(48, 60)), strict=True):
        place = cut(grid, torch.from_numpy(region)[None], 33)[0, :, 16, 16]
        assert np.allclose(place.flip(0).numpy(), inside[part].mean(0), atol=0.6)


def test_the_restorer_s_gradients_do_not_reach_the_discriminators():
    torch.manual_seed(0)
    judge, image = Discriminator(), torch.rand(1, 3, 32, 32, requires_grad=True)
    constant(judge, image)[0].sum().backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0
    assert all(p.grad is None for p in judge.parameters())
    judge(image.detach())[0].sum().backward()
    assert all(p.grad is not None for p in judge.parameters())


def test_gram_and_r1_are_the_formulas():
    features = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    found = gram(features)
    wanted = torch.einsum("bihw,bjhw->bij", features, features) / (3 * 4 * 5)
    torch.testing.assert_close(found, wanted)
    torch.manual_seed(0)
    judge, photo = Discriminator().double(), torch.rand(1, 3, 16, 16).double()
    penalty = float(r1_penalty(judge, photo).detach())
    step, total = 1e-5, 0.0
    for place in np.random.default_rng(0).integers(0, photo.numel(), 40):
        moved = photo.clone().flatten()
        moved[place] += step
        with torch.no_grad():
            slope = float((judge(moved.view_as(photo))[0].mean() - judge(photo)[0].mean()) / step)
        total += slope**2 * photo.numel() / 40
    assert 0.3 * total < penalty < 3 * total


def test_the_loss_is_equation_5(faces):
    torch.manual_seed(0)
    generator, features = new_generator(None, CONFIG), EmbedderFeatures()
    batch = draw(faces, TINY, torch.Generator().manual_seed(1))
    photo, hybrid, regions, aligned, _ = batch
    off = torch.zeros(())
    objective = Objective(generator, features, 1.0, 0.0)
    full = Objective(generator, features, 1.0, 5.0)
    full.load_state_dict(objective.state_dict())

    def loss(of: Objective, penalize: Tensor) -> float:
        # The images are shifted at random before their features are compared.
        torch.manual_seed(4)
        return float(of(photo, hybrid, regions, aligned, penalize).detach())

    without, with_identity = (loss(o, off) for o in (objective, full))
    with torch.no_grad():
        restored = generator(hybrid)
        distance = float(objective._identity_distance(restored, hybrid, aligned))
        assert with_identity == pytest.approx(without + 5.0 * distance, rel=1e-4)
        softplus = torch.nn.functional.softplus
        torch.manual_seed(4)
        wanted = float((restored - photo).abs().mean()) + 2.0 * float(objective._perceptual(restored, photo))
        wanted += ADVERSARIAL * float(softplus(-objective.whole(restored)[0]).mean())
        wanted += float(softplus(-objective.whole(photo)[0]).mean() + softplus(objective.whole(restored)[0]).mean())
        for place, judge in enumerate((objective.eyes, objective.eyes, objective.mouth)):
            a, b = (cut(image, regions[:, place], 16) for image in (restored, photo))
            (drawn, drawn_maps), (true, true_maps) = judge(a), judge(b)
            style = [(gram(x) - gram(y)).abs().mean() for x, y in zip(drawn_maps, true_maps, strict=True)]
            wanted += STYLE * float(torch.stack(style).mean())
            wanted += float(softplus(-drawn).mean() + softplus(-true).mean() + softplus(drawn).mean())
    assert without == pytest.approx(wanted, rel=1e-4)
    assert loss(objective, torch.ones(())) > without


def test_the_rate_halves_twice():
    settings = Settings(300, 1.0, halvings=(220, 270))
    assert [settings.factor(step) for step in (0, 219, 220, 269, 270)] == [1, 1, 0.5, 0.5, 0.25]


@pytest.mark.slow
def test_four_faces_are_learned_by_heart(faces, tmp_path):
    recipe = Recipe(steps=150, batch=4, rate=2e-3, ema=0.9, pixels=10.0, identity=0.0, flip=0.0)
    generator = new_generator(None, CONFIG)
    square, drawn, face, drawn_face, _ = faces.rows([0, 1, 2, 3])
    hybrid = disturbed_hybrid(square, drawn, face, drawn_face, torch.Generator().manual_seed(5))

    def error(network: Generator) -> float:
        with torch.no_grad():
            return float(((network(hybrid) - square).abs() * face).sum() / (3 * face.sum()))

    before = float(((hybrid - square).abs() * face).sum() / (3 * face.sum()))
    assert train(faces, generator, EmbedderFeatures(), recipe, Run(tmp_path / "s"))
    assert error(generator) < 0.85 * before, (error(generator), before)


def _trained(faces: Faces, state: Path, *stops: int | None) -> dict[str, Tensor]:
    for stop in stops:
        torch.manual_seed(7)
        generator = new_generator(None, CONFIG)
        train(faces, generator, EmbedderFeatures(), TINY, Run(state, stop_after=stop))
    return generator.state_dict()


def test_a_resumed_training_equals_an_unbroken_one(faces, tmp_path):
    whole, resumed = _trained(faces, tmp_path / "a", None), _trained(faces, tmp_path / "b", 2, 3, None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_seed_makes_the_weights(images, tmp_path):
    flags = [
        "train",
        "restorer",
        "--images",
        str(images),
        "--data",
        str(tmp_path / "d"),
        "--size",
        "64",
        "--steps",
        "1",
    ]
    for name in ("a", "b"):
        output = str(tmp_path / f"{name}.safetensors")
        assert main([*flags, "--batch", "2", "--workers", "1", "--seed", "3", "--output", output]) == 0
    a, b = (load_restorer(tmp_path / f"{name}.safetensors").state_dict() for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_state_of_another_network_is_refused(faces, tmp_path):
    _trained(faces, tmp_path / "a", 1)
    other = new_generator(None, RestorerConfig(SIZE, (16, 24), 1))
    with pytest.raises(InputError, match="another training"):
        train(faces, other, EmbedderFeatures(), TINY, Run(tmp_path / "a"))


def test_the_command_trains_stops_and_goes_on(images, tmp_path, capsys):
    output = tmp_path / "r.safetensors"
    flags = ["train", "restorer", "--images", str(images), "--output", str(output), "--size", "64", "--steps", "3"]
    flags += ["--batch", "2", "--workers", "1"]
    assert main([*flags, "--max-minutes", "0.1"]) == 0
    assert main([*flags, "--overwrite"]) == 0
    assert load_restorer(output).config.size == 64
    assert "3 steps on 4 faces" in capsys.readouterr().out
    assert not output.with_suffix(".state").exists()
