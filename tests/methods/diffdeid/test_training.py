"""Training: the losses of Eq. 8 to 11, exact resume, and a network that learns eight faces by heart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.identity.lds import alphas_cumprod
from faceveil.pipelines.methods.diffdeid.network import Denoiser, NetworkConfig
from faceveil.pipelines.methods.diffdeid.pipeline import DiffDeIDPipeline
from faceveil.pipelines.methods.diffdeid.shards import Faces, build_shards, parsed_mask, trained_rows
from faceveil.pipelines.methods.diffdeid.sheet import level_sheet
from faceveil.pipelines.methods.diffdeid.training import (
    LATCH,
    Objective,
    Recipe,
    draw,
    load_start,
    network_config,
    train,
)
from faceveil.pipelines.training.devices import Run
from faceveil.pipelines.training.loop import Plan, Trainer
from faceveil.pipelines.training.perceptual import EmbedderFeatures, Vgg16, feature_loss
from faceveil.pipelines.training.shards import Item, Shards, build

from .conftest import write

TINY = Recipe(width=8, blocks=1, steps=4, batch=2, rate=1e-3, ema=0.5)


def sizes(faces: Faces, recipe: Recipe) -> NetworkConfig:
    return network_config(faces.size, faces.identity_size, faces.coefficient_size, recipe)


def test_prepared_faces(faces):
    assert len(faces) == 8
    images, conditions = faces.batch([0, 3], [0.0, 1.0])
    assert images.shape == (2, 3, 32, 32)
    assert conditions.identity.square().mean(1).sub(1).abs().max() < 1e-4
    assert conditions.coefficients.shape == (2, 1, faces.coefficient_size)
    # A grown mask hides more.
    alike = faces.batch([3], [0.0])[1]
    assert conditions.masked[1, 3].sum() > alike.masked[0, 3].sum()
    hidden = conditions.masked[:, 3:] > 0.999
    assert (conditions.masked[:, :3] * hidden).abs().max() == 0


def test_prepared_faces_are_read_again_and_never_mixed(portrait, tmp_path):
    images = tmp_path / "portraits"
    images.mkdir()
    write(images / "a.png", portrait)
    (images / "b.txt").write_text("no image")
    with pytest.raises(InputError, match="1 faces were found"):
        build_shards(images, tmp_path / "few", 32, 1)
    write(images / "c.png", portrait.flip(-1))
    first = build_shards(images, tmp_path / "data", 32, 1)
    again = build_shards(images, tmp_path / "data", 32, 1)
    assert len(first) == len(again) == 2
    with pytest.raises(InputError, match="other images or settings"):
        build_shards(images, tmp_path / "data", 64, 1)
    write(images / "c.png", portrait)
    with pytest.raises(InputError, match="other images or settings"):
        build_shards(images, tmp_path / "data", 32, 1)
    with pytest.raises(InputError, match="contains no images"):
        build_shards(tmp_path / "data", tmp_path / "more", 32, 1)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(InputError, match="holds other files"):
        build_shards(images, tmp_path / "foreign", 32, 1)


def test_a_stopped_preparation_goes_on(tmp_path):
    """Whole files are kept, nothing is computed twice, and the rows stay in order."""
    done = []

    def work(number: int) -> list[Item]:
        done.append(number)
        if number == 5 and done.count(5) == 1:
            raise KeyboardInterrupt
        return [] if number in (2, 3) else [{"value": np.array([number])}]

    sources = [tmp_path / f"{i}" for i in range(7)]
    for source in sources:
        source.write_text("x")
    arguments = ([(i,) for i in range(7)], sources, tmp_path / "data", {"size": 1}, 2, 1, silent, "preparing")
    with pytest.raises(KeyboardInterrupt):
        build(work, *arguments)
    build(work, *arguments)
    assert done == [0, 1, 2, 3, 4, 5, 4, 5, 6]
    shards = Shards(tmp_path / "data")
    assert shards.whole("value").flatten().tolist() == [0, 1, 4, 5, 6]
    assert shards.rows("value", [4, 0, 2]).flatten().tolist() == [6, 0, 4]
    assert shards.counts == [2, 2, 1]


def test_masks_of_celebamask(tmp_path):
    """Skin, brows, eyes and nose are hidden; mouth, hair and ears are not."""
    folder = tmp_path / "CelebAMask-HQ-mask-anno" / "0"
    folder.mkdir(parents=True)
    for name, place in (("skin", (10, 10)), ("nose", (20, 20)), ("mouth", (30, 30)), ("hair", (5, 40))):
        mask = torch.zeros(1, 3, 64, 64)
        mask[..., place[1], place[0]] = 1
        write(folder / f"00007_{name}.png", mask)
    found = parsed_mask(folder.parent, "7")
    assert found is not None
    assert found[0, 0, 10, 10] == found[0, 0, 20, 20] == 1
    assert found.sum() == 2
    assert parsed_mask(folder.parent, "8") is None


def test_losses_are_equations_8_to_11(faces):
    network = Denoiser(sizes(faces, TINY))
    features = EmbedderFeatures()
    objective = Objective(network, features)
    images, conditions, noise, time = draw(faces, TINY, torch.Generator().manual_seed(1))
    alpha = alphas_cumprod()[time].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
    # The velocity that a new network predicts is 0.
    predicted = (1 - alpha).sqrt() * noisy
    first = objective(images, conditions, noise, time)
    assert float(first) == pytest.approx(float(10 * (predicted - noise).square().mean()), rel=1e-4)
    assert not objective.latched
    objective.latched.fill_(1.0)
    loss = objective(images, conditions, noise, time)
    clean = ((noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()).clamp(-1, 1)
    rec = (alpha.flatten() * (clean - images).abs().mean((1, 2, 3))).mean()
    per = (alpha.flatten() * feature_loss(features, clean, images)).mean()
    assert float(loss) == pytest.approx(float(first + rec + per), rel=1e-4)


def test_all_losses_are_used_once_the_noise_is_learned(faces):
    objective = Objective(Denoiser(sizes(faces, TINY)), EmbedderFeatures())
    images, conditions, noise, time = draw(faces, TINY, torch.Generator().manual_seed(1))
    objective.average.fill_(LATCH / 2)
    objective(images, conditions, noise, time * 0 + 999)
    assert objective.latched
    # It stays so when the average rises again.
    objective.average.fill_(1.0)
    objective(images, conditions, noise, time)
    assert objective.latched


def test_a_stopped_training_goes_on_exactly(faces, tmp_path):
    whole, complete = train(faces, TINY, Run(tmp_path / "whole.state"))
    assert complete
    part = Run(tmp_path / "part.state", stop_after=2)
    _, complete = train(faces, TINY, part)
    assert not complete
    resumed, complete = train(faces, TINY, part)
    assert complete
    for (name, a), b in zip(whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match="another training"):
        train(faces, replace(TINY, rate=1e-4), part)


def test_a_killed_training_goes_on_exactly(faces, prepared_folder, tmp_path):
    """SIGKILL in the middle: the last saved state is whole, and the end is the same."""
    recipe = replace(TINY, steps=60)
    whole, _ = train(faces, recipe, Run(tmp_path / "whole.state", save_every=5))
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "import torch\n"
        "from faceveil.pipelines.methods.diffdeid.shards import Faces\n"
        "from faceveil.pipelines.methods.diffdeid.training import Recipe, train\n"
        "from faceveil.pipelines.training.devices import Run\n"
        "from faceveil.pipelines.training.shards import Shards\n"
        # The sums of another number of threads differ.
        f"torch.set_num_threads({torch.get_num_threads()})\n"
        f"faces = Faces(Shards(Path({str(prepared_folder)!r})))\n"
        f"train(faces, {recipe!r}, Run(Path({str(tmp_path / 'part.state')!r}), save_every=5))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 120
    while not (tmp_path / "part.state").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "part.state").is_file()
    resumed, complete = train(faces, recipe, Run(tmp_path / "part.state", save_every=5))
    assert complete
    for a, b in zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_training_can_start_from_a_checkpoint(faces, checkpoint, tmp_path):
    trained, _ = train(faces, replace(TINY, rate=1e-3), Run(tmp_path / "a.state"))
    network = Denoiser(replace(trained.network.config, identity=0, window=27))
    load_start(network, trained.network)
    for part in ("encoder", "texture_encoder", "decoder"):
        for (name, a), b in zip(
            getattr(network, part).state_dict().items(),
            getattr(trained.network, part).state_dict().values(),
            strict=True,
        ):
            assert torch.equal(a, b), name
    with pytest.raises(InputError, match="another size"):
        load_start(network, checkpoint.network)


def test_time_can_run_out(faces, tmp_path):
    run = Run(tmp_path / "a.state", max_minutes=0.0)
    _, complete = train(faces, TINY, run)
    assert not complete
    assert (tmp_path / "a.state").is_file()


def test_eight_faces_are_learned_by_heart(faces):
    recipe = Recipe(width=16, blocks=1, steps=350, batch=8, rate=2e-3, warmup=20, drop=0.0, ema=0.99)
    torch.manual_seed(0)
    network = Denoiser(sizes(faces, recipe))
    objective = Objective(network, lambda x: [x])
    optimizer = torch.optim.Adam(objective.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / recipe.warmup))

    def loss(step: int) -> torch.Tensor:
        return objective(*draw(faces, recipe, torch.Generator().manual_seed(step)))

    Trainer(objective, schedule, loss, recipe.ema).run(Plan(recipe.steps, "learning by heart"))
    with torch.no_grad():
        errors = []
        for seed in range(20):
            images, conditions, noise, time = draw(faces, recipe, torch.Generator().manual_seed(-seed))
            alpha = alphas_cumprod()[time].view(-1, 1, 1, 1)
            noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
            errors.append(float((network(noisy, time, *conditions.parts()) - noise).square().mean()))
    assert sum(errors) / len(errors) < 0.02
    images, conditions = faces.batch(range(8), [0.0] * 8)
    drawn = DiffDeIDPipeline(network.eval()).sample(
        conditions, [torch.Generator().manual_seed(i) for i in range(8)], 25
    )
    difference = ((drawn * 2 - 1)[:, None] - images[None]).abs().mean((2, 3, 4))
    # Half of the faces are mirrored ones of the others, and 0.4 away from them.
    assert difference.diagonal().max() < 0.15
    assert difference.max() > 0.35


def test_held_out_faces_are_not_trained_on():
    rows = trained_rows(100).tolist()
    assert len(rows) == 95
    assert not set(rows) & {0, 20, 40, 60, 80}
    assert len(trained_rows(8)) == 8


def test_sheet(checkpoint, faces):
    sheet = level_sheet(checkpoint, faces, [0, 1], steps=2)
    assert sheet.shape == (1, 3, 64, 7 * 32)
    assert torch.isfinite(sheet).all()


def test_vgg16_is_read_by_torchvisions_names(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(3)
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512]
    tensors, layers, index, before = {}, [], 0, 3
    for width in widths:
        if width == 0:
            layers.append(torch.nn.MaxPool2d(2))
            index += 1
            continue
        layer = torch.nn.Conv2d(before, width, 3, padding=1)
        tensors |= {f"features.{index}.weight": layer.weight, f"features.{index}.bias": layer.bias}
        layers += [layer, torch.nn.ReLU()]
        index, before = index + 2, width
    path = tmp_path / "vgg16.safetensors"
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, path)
    images = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    expected = []
    for i, layer in enumerate(layers):
        x = layer(x)
        if i in (3, 8, 15, 22):
            expected.append(x)
    for a, b in zip(Vgg16(path)(images * 2 - 1), expected, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_the_command(faces, portrait, tmp_path, monkeypatch, capsys):
    from faceveil.pipelines.cli import main

    images = tmp_path / "portraits"
    images.mkdir()
    for i in range(2):
        write(images / f"{i}.png", portrait if i else portrait.flip(-1))
    output = tmp_path / "diffdeid.safetensors"
    words = ["train", "diffdeid", "--images", str(images), "--output", str(output), "--size", "32", "--width", "8"]
    assert main([*words, "--blocks", "1", "--steps", "2", "--batch", "2", "--workers", "1"]) == 0
    assert output.is_file() and output.with_suffix(".png").is_file()
    assert not output.with_suffix(".state").exists()
    capsys.readouterr()
    assert main([*words, "--describe"]) == 0
    assert "M parameters" in capsys.readouterr().out
    assert main([*words, "--steps", "2"]) != 0  # it does not overwrite its output unasked
    assert json.loads((tmp_path / "diffdeid.data" / "facts.json").read_text())["size"] == 32
