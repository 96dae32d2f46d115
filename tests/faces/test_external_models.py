"""Networks that the user provides, tested with files of the correct signature and synthetic contents."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.detectors import open_detector
from faceveil.pipelines.faces.external import FROM_106, ExternalLandmarks
from faceveil.pipelines.faces.parse import open_parser
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from onnx import TensorProto, helper, numpy_helper


def constant_network(path, outputs: dict[str, np.ndarray], input_shape: tuple) -> None:
    """Write a network that returns ``outputs`` for every input image."""
    nodes = [helper.make_node("Constant", [], [name], value=numpy_helper.from_array(v)) for name, v in outputs.items()]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, v.shape) for name, v in outputs.items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)], values
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def parser_network(path) -> None:
    """Write a face parser that predicts skin (1) in the left half of its input and background (0) in the right half."""
    logits = np.full((1, 19, 512, 512), -9.0, np.float32)
    logits[:, 1, :, :256] = logits[:, 0, :, 256:] = 9.0
    constant_network(path, {"output": logits}, (1, 3, 512, 512))


def test_the_68_landmarks_have_distinct_indices_among_the_106_points() -> None:
    assert len(FROM_106) == len(set(FROM_106)) == 68


@pytest.mark.parametrize(("name", "count"), [("1k3d68.onnx", 68), ("2d106det.onnx", 106)])
def test_insightface_landmarks(tmp_path, portrait, name, count) -> None:
    pytest.importorskip("insightface")
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (1, 3309 if count == 68 else 212)).astype(np.float32)
    constant_network(tmp_path / name, {"fc1": values}, (1, 3, 192, 192))
    points = ExternalLandmarks(tmp_path / name)(portrait, np.array([100.0, 100, 200, 200]))
    assert points.shape == (68, 2)
    # The input of the network is the box, enlarged by half about its center: (-1, 1) spans 150 px.
    flat = values.reshape(-1, 3)[-68:, :2] if count == 68 else values.reshape(-1, 2)[FROM_106]
    assert np.abs(points - (150 + flat * 75)).max() < 1.5


def test_insightface_detector(tmp_path, portrait) -> None:
    pytest.importorskip("insightface")
    outputs = {}
    for stride in (8, 16, 32):
        cells = (640 // stride) ** 2 * 2
        outputs |= {f"score_{stride}": np.zeros((cells, 1), np.float32)}
    for stride in (8, 16, 32):
        cells = (640 // stride) ** 2 * 2
        outputs |= {f"bbox_{stride}": np.full((cells, 4), 4.0, np.float32)}
    for stride in (8, 16, 32):
        cells = (640 // stride) ** 2 * 2
        outputs |= {f"kps_{stride}": np.tile(np.array([-1, -1, 1, -1, 0, 0, -1, 1, 1, 1], np.float32), (cells, 1))}
    # One anchor of the coarsest level: row 4, column 6 of 20.
    outputs["score_32"][(4 * 20 + 6) * 2] = 0.9
    constant_network(tmp_path / "det_10g.onnx", outputs, (1, 3, "h", "w"))
    found = open_detector("insightface", tmp_path / "det_10g.onnx")(portrait, 0.5)
    assert len(found) == 1
    # The image is resized from 512 to 640 px: the anchor is at (192, 128), the box extends 4 strides in each direction.
    assert np.allclose(found[0].box, np.array([192 - 128, 128 - 128, 192 + 128, 128 + 128]) * 0.8, atol=1.0)
    assert found[0].five.shape == (5, 2)
    faces = detect_faces(portrait, open_detector("insightface", tmp_path / "det_10g.onnx"), rotated=False)
    assert len(faces) >= 1


def test_occlusions_stay_unchanged(tmp_path, portrait, portrait_faces) -> None:
    parser_network(tmp_path / "parser.onnx")
    parser = open_parser(tmp_path / "parser.onnx")
    occlusion = parser.occlusion(portrait, portrait_faces[0])
    assert occlusion.shape == (1, 1, 512, 512)
    x1, _, x2, _ = portrait_faces[0].box
    assert occlusion[0, 0, 120, int(x2) - 8] > 0.99
    assert occlusion[0, 0, 120, int(x1) + 8] < 0.01
    # Half a face is probably still recognized. The policy "pass" keeps the pasted pixels, so that they can be tested.
    settings = Settings(tries=1, parser=parser, policy=Policy.always("pass"))
    result = anonymize_batch(portrait, settings, method=AppearanceMethod(trials=1))
    hidden = (occlusion == 1).expand_as(portrait)
    assert torch.equal(result.pixels[hidden], portrait[hidden])
    assert float((result.pixels != portrait)[..., : int((x1 + x2) / 2)].any(1).float().sum()) > 1000


@pytest.mark.parametrize("content", [b"", b"not a network"])
def test_damaged_files_are_rejected(tmp_path, content) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.onnx"):
        open_parser(tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match=r"gone\.onnx does not exist"):
        open_parser(tmp_path / "gone.onnx")
    pytest.importorskip("insightface")
    with pytest.raises(WeightsError, match=r"x\.onnx"):
        ExternalLandmarks(tmp_path / "x.onnx")


def test_networks_with_another_signature_are_rejected(tmp_path) -> None:
    constant_network(tmp_path / "x.onnx", {"y": np.zeros((1, 10), np.float32)}, (1, 3, 192, 192))
    with pytest.raises(WeightsError, match="not a face parser"):
        open_parser(tmp_path / "x.onnx")
    pytest.importorskip("insightface")
    with pytest.raises(WeightsError, match="5 points"):
        ExternalLandmarks(tmp_path / "x.onnx")
