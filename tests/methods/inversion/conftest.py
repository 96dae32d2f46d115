"""Fixtures: recorded runs of the authors' code on tiny random networks, which lie beside the repository."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
NAMES = ("nullface_full_mask", "nullface_keep_eyes_mouth", "reverse_personalization")


@pytest.fixture(scope="session")
def parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inversion_parity", BENCHMARKS / "inversion_parity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def recorded(parity) -> Path:
    """The folder of the recorded runs."""
    if not parity.FIXTURE.is_dir():
        pytest.skip("the recorded runs are not beside the repository")
    return parity.FIXTURE


@pytest.fixture(scope="session")
def case_of(parity, recorded) -> Any:
    """A recorded case by its name."""
    entries = {entry["name"]: entry for entry in json.loads((recorded / "manifest.json").read_text())["cases"]}
    return lambda name: parity.open_case(recorded, entries[name])


@pytest.fixture(scope="session")
def networks_of(parity, case_of) -> Any:
    """``Networks`` of a family, ``sd15`` or ``sdxl``, on the recorded tiny networks."""
    from faceveil.pipelines.methods.inversion.pipeline import Networks
    from faceveil.pipelines.methods.inversion.text import Text

    def build(family: str) -> Networks:
        case = case_of("nullface_full_mask" if family == "sd15" else "reverse_personalization")
        unet, vae = parity.open_networks(case)
        c = case.recorded
        if family == "sd15":
            return Networks(unet, vae, case.adapter, Text(c["text_empty"]))
        empty = Text(c["text_inversion_positive"], c["pooled_inversion_positive"])
        return Networks(unet, vae, case.adapter, empty)

    return build
