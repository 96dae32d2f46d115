"""Pairs, the losses of Eq. 7, resume, and DCFace's checkpoints."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.lds import TIMES
from faceveil.pipelines.methods.iddiffuse.dcface import read_dcface
from faceveil.pipelines.methods.iddiffuse.network import Denoiser
from faceveil.pipelines.methods.iddiffuse.pairs import Pairs, build_pairs, mapped
from faceveil.pipelines.methods.iddiffuse.training import (
    WEIGHT,
    Objective,
    Recipe,
    draw,
    gamma_of,
    load_start,
    network_config,
    train,
)
from faceveil.pipelines.methods.iddiffuse.unet import UNet, UNetConfig
from faceveil.pipelines.recognition.embedder import built_in_embedder
from faceveil.pipelines.training.devices import Run

from .conftest import SIZE

TINY = Recipe(base=32, grid=3, steps=4, batch=2, rate=1e-3, ema=0.5)


def test_the_mapping_takes_the_nearest():
    own, people = np.eye(3), np.array([[1, 0.1, 0], [0, 1, 0.1], [0.9, 0.2, 0.1]])
    people = people / np.linalg.norm(people, axis=1, keepdims=True)
    assert mapped(own, people, 0.0).tolist() == [0, 1, 2]
    # Nobody nearer than 0.3.
    assert mapped(own[:1], people, 0.2).tolist() == [2]
    with pytest.raises(InputError, match="larger bank"):
        mapped(own, people, 1.99)


def test_pairs(pairs, images, bank, tmp_path):
    assert len(pairs) == 3
    assert (pairs.size, pairs.identity_size, pairs.space) == (SIZE, 256, "faceveil")
    faces, synthetic, vectors = pairs.rows([0, 2])
    assert faces.shape == (2, 3, SIZE, SIZE) and synthetic.shape == (2, 3, 112, 112)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(2), atol=1e-5)
    own = torch.from_numpy(np.stack([v for v in pairs._faces.whole("vector").numpy()]))
    cosines = own @ torch.from_numpy(bank.identities.vectors).float().T
    assert pairs.partners.tolist() == cosines.argmax(1).tolist()
    with pytest.raises(InputError, match="contains no images"):
        build_pairs(tmp_path, bank, tmp_path / "data", SIZE, False, 1)
    foreign = replace(bank, identities=type(bank.identities)(bank.identities.vectors, "arcface-w600k"))
    with pytest.raises(InputError, match="recognizer dlib or faceveil"):
        build_pairs(images, foreign, tmp_path / "data", SIZE, False, 1)


def test_schedules_at_their_ends():
    time = torch.tensor([0, TIMES - 1])
    assert gamma_of(time, "paper", 0.3).tolist() == [0, 1]
    assert gamma_of(time, "dcface", 0.3).tolist() == [1, 0]
    assert gamma_of(time, "constant", 0.3).tolist() == pytest.approx([0.3, 0.3])
    with pytest.raises(InputError, match="schedule"):
        Recipe(schedule="linear")


@pytest.fixture(scope="module")
def batch(pairs):
    return draw(pairs, TINY, torch.Generator().manual_seed(1))


def test_the_loss_is_equation_7(pairs, batch):
    judge = built_in_embedder().network
    losses = {}
    for name, recipe in {
        "real": replace(TINY, schedule="constant", gamma=1.0, texture=0.0),
        "synthetic": replace(TINY, schedule="constant", gamma=0.0, texture=0.0),
        "texture": replace(TINY, schedule="constant", gamma=0.0, texture=1.0),
    }.items():
        torch.manual_seed(3)
        network = Denoiser(network_config(SIZE, 256, recipe, "noise")).eval()
        losses[name] = float(Objective(network, judge, recipe)(*batch).detach())
    images, synthetic, _, noise, time = batch
    # A new network predicts 0.
    from faceveil.pipelines.identity.lds import alphas_cumprod

    alpha = alphas_cumprod()[time].view(-1, 1, 1, 1)
    clean = ((alpha.sqrt() * images + (1 - alpha).sqrt() * noise) / alpha.sqrt()).clamp(-1, 1)

    def embedded(faces: torch.Tensor) -> torch.Tensor:
        for size in (112, 128):
            if faces.shape[-1] != size:
                faces = torch.nn.functional.interpolate(
                    faces, (size, size), mode="bilinear", align_corners=False, antialias=True
                )
        return judge((faces + 1) / 2)

    mse = float(noise.square().mean())
    for name, goal in (("real", images), ("synthetic", synthetic)):
        distance = float((1 - (embedded(clean) * embedded(goal)).sum(1)).mean())
        assert losses[name] == pytest.approx(mse + WEIGHT * distance, rel=1e-4), name
    assert losses["texture"] > losses["synthetic"]


def test_all_parts_are_trained_but_the_frozen_recognizer(batch):
    judge = built_in_embedder().network
    torch.manual_seed(3)
    network = Denoiser(network_config(SIZE, 256, TINY, "velocity"))
    with torch.no_grad():
        for parameter in network.unet.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    Objective(network, judge, TINY)(*batch).backward()
    silent = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent
    assert all(name.startswith("texture.stage.") for name, p in network.named_parameters() if not p.requires_grad)
    assert all(p.grad is None for p in judge.parameters())


def test_a_stopped_training_goes_on_exactly(pairs, tmp_path):
    whole, complete = train(pairs, TINY, Run(tmp_path / "whole.state"))
    assert complete and whole.space == "faceveil"
    part = Run(tmp_path / "part.state", stop_after=2)
    assert not train(pairs, TINY, part)[1]
    resumed, complete = train(pairs, TINY, part)
    assert complete
    for (name, a), b in zip(whole.network.state_dict().items(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


class _Settings:
    """Stands for omegaconf's objects in a public checkpoint."""

    def __init__(self) -> None:
        self.values = {"lr": 1e-4}


def test_the_u_net_of_a_dcface_checkpoint_is_read(tmp_path):
    config = UNetConfig(SIZE, 32, (1, 2, 2), 7, (2,), 16, 48)
    torch.manual_seed(1)
    unet = UNet(config)
    state = {f"ema_model.averaged_model.{k}": v for k, v in unet.state_dict().items()}
    state |= {f"model.{k}": v * 0 for k, v in unet.state_dict().items()}
    state |= {"recognition_model.backbone.weight": torch.zeros(2), "external_mapping.norm.weight": torch.ones(2)}
    path = tmp_path / "dcface_3x3.ckpt"
    torch.save({"state_dict": state, "hyper_parameters": _Settings(), "epoch": 9}, path)
    found = read_dcface(path)
    assert all(torch.equal(found[k], v) for k, v in unet.state_dict().items())
    assert len(found) == len(unet.state_dict())
    network = Denoiser(network_config(SIZE, 256, TINY, "velocity"))
    with pytest.raises(InputError, match="another size"):
        load_start(network, found)


class _Harmful:
    """Unpickled without care, it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_a_pickle_runs_nothing(tmp_path):
    path, marker = tmp_path / "bad.ckpt", tmp_path / "marker"
    torch.save({"state_dict": {}, "hyper_parameters": _Harmful(marker)}, path)
    with pytest.raises(WeightsError, match="DCFace"):
        read_dcface(path)
    assert not marker.exists()
    # What the file would have done.
    torch.load(path, weights_only=False)["hyper_parameters"].close()
    assert marker.exists()


def test_other_files_are_no_dcface(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        read_dcface(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_dcface(tmp_path / "text.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))
    with pytest.raises(WeightsError):
        read_dcface(tmp_path / "pickle.ckpt")
    torch.save({"state_dict": {"model.other": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(WeightsError, match="holds no U-Net"):
        read_dcface(tmp_path / "other.ckpt")


def test_the_command(images, bank, tmp_path):
    from faceveil.pipelines.cli import main

    output = tmp_path / "iddiffuse.safetensors"
    words = ["train", "iddiffuse", "--images", str(images), "--bank", str(bank.folder), "--output", str(output)]
    words += ["--size", "56", "--base", "32", "--grid", "3", "--batch", "2", "--workers", "1"]
    assert main([*words, "--steps", "1"]) == 0
    assert output.is_file()
    assert main([*words, "--steps", "1"]) != 0  # it does not overwrite its output unasked


def test_pairs_need_people(bank):
    class Empty(list):
        pass

    with pytest.raises(InputError, match="no face was found"):
        Pairs(Empty(), Empty(), bank, False)  # type: ignore[arg-type]
