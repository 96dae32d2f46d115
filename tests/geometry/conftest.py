"""Models that geometry's tests share."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest
from faceveil.pipelines.geometry.morphable import MorphableModel
from faceveil.pipelines.methods.appearance.surface import built_in_morphable_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
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


def _benchmark(name: str):
    """A script of the benchmarks as a module: its baselines are ours."""
    spec = importlib.util.spec_from_file_location(f"faceveil_benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def somebody():
    """Random faces under random light, turned by up to 35 degrees, from model, number and seed."""
    return _benchmark("geometry").somebody


@pytest.fixture(scope="session")
def loop():
    """Visibility by a loop over triangles."""
    return _benchmark("renderer").loop
