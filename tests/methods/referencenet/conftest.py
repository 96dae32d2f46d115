"""Fixtures: recorded runs of the authors' pipeline on tiny random networks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from faceveil.pipelines.methods.referencenet.pipeline import ReferenceNetPipeline

FIXTURE = Path(__file__).parent / "fixture"
BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("referencenet_parity", BENCHMARKS / "referencenet_parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def folder() -> Path:
    return FIXTURE


@pytest.fixture
def pipeline(parity) -> ReferenceNetPipeline:
    return parity.open_fixture(FIXTURE)
