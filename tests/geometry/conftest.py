"""Models that geometry's tests share."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.geometry.coefficients import Coefficients, neutral
from faceveil.pipelines.geometry.morphable import MorphableModel
from faceveil.pipelines.methods.appearance.surface import built_in_morphable_model

ZIP = Path(__file__).resolve().parents[3] / "shared" / "data" / "ict_facekit_subset.zip"


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    return built_in_morphable_model()


@pytest.fixture(scope="session")
def ict_folder(tmp_path_factory) -> Path:
    """Real files of ICT-FaceKit: the neutral face, three identities, four expressions."""
    if not ZIP.is_file():
        pytest.skip("the data folder with ict_facekit_subset.zip is not there")
    folder = tmp_path_factory.mktemp("ict")
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    return folder


def somebody(model: MorphableModel, seed: int, count: int = 1) -> Coefficients:
    """Random faces under random light, turned by up to 35 degrees."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int, spread: float) -> torch.Tensor:
        return torch.randn(count, size, generator=generator) * spread

    k, e, t = model.sizes
    turn = (torch.rand(count, generator=generator) - 0.5) * 1.2
    angles = torch.stack([normal(1, 0.15)[:, 0], turn, normal(1, 0.1)[:, 0]], 1)
    return replace(
        neutral(model.name, model.sizes, count), identity=normal(k, 1.0), expression=normal(e, 0.7).clamp(*model.expression_range), texture=normal(t, 0.7),
        lighting=normal(27, 0.1), angles=angles, translation=normal(3, 1.0) * torch.tensor([0.05, 0.05, 0.3]),
    )


@pytest.fixture(scope="session", name="somebody")
def somebody_fixture():
    return somebody
