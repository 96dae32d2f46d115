"""Tiny IDDiffuse networks with random weights, a bank, and prepared pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.faces.align import crop, ffhq_transform
from faceveil.pipelines.identity.bank import Bank, build_bank
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.methods.iddiffuse.network import Denoiser, NetworkConfig
from faceveil.pipelines.methods.iddiffuse.pairs import Pairs, build_pairs
from faceveil.pipelines.methods.iddiffuse.pipeline import Checkpoint
from faceveil.pipelines.methods.iddiffuse.unet import UNetConfig
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.embedder import built_in_embedder
from torch import Tensor

SIZE = 28
SMALL = UNetConfig(SIZE, 32, (1, 2, 2), 7, (2,), 16, 48)


def randomized(network: Denoiser, seed: int = 0) -> Denoiser:
    """Random weights where a new network has zeros."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("unet."):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        network.scale.fill_(1.0)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def config() -> NetworkConfig:
    return NetworkConfig(SMALL, 3, 256)


@pytest.fixture(scope="session")
def network(config: NetworkConfig) -> Denoiser:
    torch.manual_seed(1)
    return randomized(Denoiser(config))


@pytest.fixture(scope="session")
def checkpoint(network: Denoiser) -> Checkpoint:
    return Checkpoint(network, "faceveil")


@pytest.fixture(scope="session")
def checkpoint_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("iddiffuse") / "iddiffuse.safetensors"
    checkpoint.save(path)
    return path


@pytest.fixture(scope="session")
def portraits(photos) -> list[tuple[Tensor, torch.Tensor]]:
    """Images and landmarks of six photos."""
    from faceveil.pipelines.faces.detect import detect_faces

    found = []
    for path in photos[:6]:
        image = load_image(path).pixels
        face = max((f for f in detect_faces(image, rotated=False) if f.landmarks), key=lambda f: f.area)
        found.append((image, face.points))
    return found


@pytest.fixture(scope="session")
def bank(portraits, tmp_path_factory) -> Bank:
    """Three people of the photos stand in for synthetic ones."""
    recognizer = built_in_embedder()
    faces = [
        (unit(recognizer.embed(image, points)), crop(image, ffhq_transform(points, 256), 256).clamp(0, 1))
        for image, points in portraits[3:]
    ]
    return build_bank(tmp_path_factory.mktemp("bank") / "bank", faces, recognizer.name, recognizer.threshold)


@pytest.fixture(scope="session")
def images(portraits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for i, (image, _) in enumerate(portraits[:3]):
        (folder / f"person{i}").mkdir()
        to_pillow(image).save(folder / f"person{i}" / "a.png")
    return folder


@pytest.fixture(scope="session")
def pairs(images, bank, tmp_path_factory) -> Pairs:
    return build_pairs(images, bank, tmp_path_factory.mktemp("pairs"), SIZE, False, 1)
