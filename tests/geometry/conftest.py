"""Fixtures of the geometry tests."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.morphable import MorphableModel

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
ZIP = Path(__file__).resolve().parents[3] / "shared" / "data" / "ict_facekit_subset.zip"


@pytest.fixture(scope="session")
def model() -> MorphableModel:
    return built_in_morphable_model()


@pytest.fixture(scope="session")
def ict_folder(tmp_path_factory) -> Path:
    """Original files of ICT-FaceKit: the neutral face, three identity modes and four expressions."""
    if not ZIP.is_file():
        pytest.skip("ict_facekit_subset.zip is missing from the data folder")
    folder = tmp_path_factory.mktemp("ict")
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(folder)
    return folder


def _benchmark(name: str):
    """Import a benchmark script as a module, to use its reference functions in tests."""
    spec = importlib.util.spec_from_file_location(f"faceveil_benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_faces():
    """Function from model, count and seed to random faces under random light, with a yaw of up to 35 degrees."""
    return _benchmark("geometry").random_faces


@pytest.fixture(scope="session")
def rasterize_by_loop():
    """Reference rasterizer: a loop over triangles."""
    return _benchmark("renderer").rasterize_by_loop
