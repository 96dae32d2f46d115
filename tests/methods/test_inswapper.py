"""The swapper with made-up files of the true signature."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from faceveil.pipelines.errors import WeightsError
from faceveil.pipelines.identity.arcface import ArcFace
from faceveil.pipelines.methods.inswapper.network import InSwapper, PictureSwapper
from onnx import TensorProto, helper, numpy_helper


def save(path, nodes, inputs, outputs, weights) -> None:
    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes, "g", [info(*i) for i in inputs], [info(*o) for o in outputs], [numpy_helper.from_array(v, k) for k, v in weights.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture
def swapper(tmp_path):
    """Adds the first number of the mapped identity to the whole face."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["source", "zero"], ["first"], axis=1), helper.make_node("Reshape", ["first", "shape"], ["value"]),
        helper.make_node("Add", ["target", "value"], ["output"]),
    ]
    weights = {"zero": np.array([0]), "shape": np.array([1, 1, 1, 1]), "emap": rng.normal(size=(512, 512)).astype(np.float32)}
    save(tmp_path / "inswapper_128.onnx", nodes, [("target", (1, 3, 128, 128)), ("source", (1, 512))], [("output", (1, 3, 128, 128))], weights)
    return tmp_path / "inswapper_128.onnx", weights["emap"]


@pytest.fixture
def recogniser(tmp_path):
    """A random projection of the mean-pooled face."""
    rng = np.random.default_rng(1)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]), helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
    ]
    weights = {"w": rng.normal(size=(3 * 14 * 14, 512)).astype(np.float32)}
    save(tmp_path / "w600k_r50.onnx", nodes, [("input", (1, 3, 112, 112))], [("embedding", (1, 512))], weights)
    return tmp_path / "w600k_r50.onnx"


def test_the_face_is_swapped_and_pasted(swapper, recogniser, portrait, portrait_faces) -> None:
    path, emap = swapper
    face = portrait_faces[0]
    identity = ArcFace(recogniser).embed(portrait, face.points)
    assert abs(np.linalg.norm(identity) - 1) < 1e-6
    shown = InSwapper(path).swap(portrait, face.points, identity)
    mapped = identity @ emap
    expected = mapped[0] / np.linalg.norm(mapped)
    x, y = (round(v) for v in face.points[30])
    assert abs(float((shown - portrait)[0, :, y, x].mean()) - expected) < 0.02
    far = shown[..., :40, :40]
    assert torch.equal(far, portrait[..., :40, :40])


def test_pictures_without_a_face_give_none(swapper, recogniser, portrait) -> None:
    swap = PictureSwapper(swapper[0], recogniser)
    assert swap(portrait, portrait).shape == portrait.shape
    assert swap(torch.full((1, 3, 200, 200), 0.5), portrait) is None


def test_other_networks_are_refused(swapper, recogniser, tmp_path) -> None:
    with pytest.raises(WeightsError, match="not inswapper_128"):
        InSwapper(recogniser)
    with pytest.raises(WeightsError, match="not an ArcFace recogniser"):
        ArcFace(swapper[0])
    (tmp_path / "cut.onnx").write_bytes(b"1234")
    with pytest.raises(WeightsError, match=r"cut\.onnx is not a whole ONNX file"):
        InSwapper(tmp_path / "cut.onnx")
