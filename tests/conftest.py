"""Images that tests share: the public-domain portrait always, real photos where the data folder is."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import astronaut, group
from faceveil.pipelines.imaging.save import save_image
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
HELPERS = ROOT / "tests" / "helpers"
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def portrait() -> Tensor:
    """``(1, 3, 512, 512)``."""
    return as_image(astronaut()).pixels


@pytest.fixture(scope="session")
def trio() -> Tensor:
    """Three faces, ``(1, 3, 512, 1120)``."""
    return as_image(group()).pixels


@pytest.fixture(scope="session")
def portrait_faces(portrait: Tensor) -> Faces:
    return detect_faces(portrait)


@pytest.fixture(scope="session")
def trio_faces(trio: Tensor) -> Faces:
    return detect_faces(trio)


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    found = sorted((DATA / "photos").glob("*.jpg"))
    if not found:
        pytest.skip("no ../shared/data/photos beside the repository")
    return found


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a method in a package of its own, which the registry finds beside the others."""
    methods = importlib.import_module("faceveil.pipelines.methods")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(HELPERS)])
    yield "dummy"
    for name in [n for n in sys.modules if n.startswith(f"{methods.__name__}.dummy")]:
        del sys.modules[name]
    methods.__dict__.pop("dummy", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a host or the data folder, so that it can be chosen or left out."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests" / "comfyui"):
            item.add_marker("comfy")
        if {"photos", "data"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("data")


@pytest.fixture(autouse=True)
def known_threads() -> None:
    """The same number on every machine, also after a test that changed it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


@pytest.fixture
def portrait_file(tmp_path: Path) -> Path:
    """The portrait as a file."""
    save_image(as_image(astronaut()), tmp_path / "portrait.png")
    return tmp_path / "portrait.png"


def onnx_network(path, nodes, inputs, outputs, weights) -> None:
    """Write a small network with made-up weights."""

    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "g",
        [info(*i) for i in inputs],
        [info(*o) for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture
def inswapper_file(tmp_path):
    """Adds the first number of the mapped identity to the whole face."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["source", "zero"], ["first"], axis=1),
        helper.make_node("Reshape", ["first", "shape"], ["value"]),
        helper.make_node("Add", ["target", "value"], ["output"]),
    ]
    weights = {
        "zero": np.array([0]),
        "shape": np.array([1, 1, 1, 1]),
        "emap": rng.normal(size=(512, 512)).astype(np.float32),
    }
    onnx_network(
        tmp_path / "inswapper_128.onnx",
        nodes,
        [("target", (1, 3, 128, 128)), ("source", (1, 512))],
        [("output", (1, 3, 128, 128))],
        weights,
    )
    return tmp_path / "inswapper_128.onnx", weights["emap"]


@pytest.fixture
def w600k(tmp_path):
    """A random projection of the mean-pooled face."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
    ]
    weights = {"w": rng.normal(size=(3 * 14 * 14, 512)).astype(np.float32)}
    onnx_network(tmp_path / "w600k_r50.onnx", nodes, [("input", (1, 3, 112, 112))], [("embedding", (1, 512))], weights)
    return tmp_path / "w600k_r50.onnx"
