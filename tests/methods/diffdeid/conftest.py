"""Tiny DiffDeID networks with random weights, and prepared faces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.geometry.builtin import NAME, built_in_morphable_model
from faceveil.pipelines.geometry.coefficients import Standardizer
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.methods.diffdeid.conditions import FaceReader, layout_of
from faceveil.pipelines.methods.diffdeid.network import Conditions, Denoiser, NetworkConfig
from faceveil.pipelines.methods.diffdeid.pipeline import Checkpoint
from faceveil.pipelines.methods.diffdeid.shards import Faces, build_shards
from faceveil.pipelines.training.shards import Shards

SIZE = 32


@pytest.fixture(scope="session")
def config() -> NetworkConfig:
    numbers = sum(size for _, size in layout_of(built_in_morphable_model()))
    return NetworkConfig(SIZE, (8, 16, 16), 1, (1, 2), 24, 128, numbers)


def write(path: Path, image: torch.Tensor) -> None:
    """Write an image ``(1, 3, H, W)`` as PNG."""
    to_pillow(image).save(path)


def randomized(network: Denoiser, seed: int = 0) -> Denoiser:
    """Random weights everywhere: a network that was just made predicts zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def network(config: NetworkConfig) -> Denoiser:
    return randomized(Denoiser(config))


@pytest.fixture(scope="session")
def conditions(config: NetworkConfig) -> Conditions:
    g = torch.Generator().manual_seed(5)
    masked = torch.randn(3, 4, SIZE, SIZE, generator=g).clamp(-1, 1)
    return Conditions(
        torch.randn(3, 3, SIZE, SIZE, generator=g).clamp(-1, 1),
        masked,
        torch.randn(3, config.identity, generator=g),
        torch.randn(3, 1, config.coefficients, generator=g),
    )


@pytest.fixture(scope="session")
def checkpoint(network: Denoiser) -> Checkpoint:
    layout = layout_of(built_in_morphable_model())
    numbers = sum(size for _, size in layout)
    return Checkpoint(network, Standardizer(layout, torch.zeros(1, numbers), torch.ones(1, numbers)), NAME, "dlib")


@pytest.fixture(scope="session")
def checkpoint_file(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("diffdeid") / "diffdeid.safetensors"
    checkpoint.save(path)
    return path


@pytest.fixture(scope="session")
def reader() -> FaceReader:
    return FaceReader(built_in_morphable_model(), 256)


@pytest.fixture(scope="session")
def prepared_folder(portrait, trio, tmp_path_factory) -> Path:
    """Training data of eight faces: crops and mirrored crops of the public-domain portraits."""
    folder = tmp_path_factory.mktemp("portraits")
    views = [portrait, trio[..., :480], trio[..., 380:800], trio[..., 700:]]
    for i, view in enumerate(v for image in views for v in (image, image.flip(-1))):
        write(folder / f"{i}.png", view)
    data = tmp_path_factory.mktemp("data") / "shards"
    build_shards(folder, data, SIZE, 1)
    return data


@pytest.fixture(scope="session")
def faces(prepared_folder) -> Faces:
    return Faces(Shards(prepared_folder))
