"""HeadNeRF against recorded numbers of the published network, and against the plain form."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.methods.ideudemon.cameras import NerfCamera
from faceveil.pipelines.methods.ideudemon.headnerf import (
    APPEARANCE_CODE,
    FAR,
    NEAR,
    SAMPLES,
    SHAPE_CODE,
    HeadCodes,
    HeadNeRF,
    HeadNeRFConfig,
    encode,
    samples,
)

from .conftest import head_network, wave_codes

RECORDED = json.loads((Path(__file__).parent / "reference.json").read_text(encoding="utf-8"))
BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "headnerf.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("headnerf_benchmark", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def camera() -> NerfCamera:
    return NerfCamera.free().moved(torch.tensor([[0.1, 0.3, -0.1]]), torch.tensor([[0.1, 0.05, -0.2]]))


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if c["features"] == 64 else []) for c in RECORDED]
)
def test_images_equal_the_recorded_reference(case):
    network = head_network(case["features"], case["image"])
    assert len(network.state_dict()) == case["keys"]
    with torch.no_grad():
        drawn = network(wave_codes(), camera())
    step = case["image"] // 8
    pixels = drawn.image[0, :, step // 2 :: step, step // 2 :: step]
    torch.testing.assert_close(pixels, torch.tensor(case["pixels"]), atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.background.mean((0, 2, 3)), torch.tensor(case["background"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("features", "image", "doublings"), [(32, 256, 3), (32, 512, 4), (64, 512, 3)])
def test_names_and_shapes_are_those_of_the_public_checkpoints(features, image, doublings):
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in HeadNeRF(HeadNeRFConfig(features, image)).state_dict().items()}
    assert shapes["fg_CD_predictor.FeaExt_module_0.weight"] == (384, 63 + SHAPE_CODE, 1, 1)
    assert shapes["fg_CD_predictor.FeaExt_module_5.weight"] == (384, 384 + 63 + SHAPE_CODE, 1, 1)
    assert shapes["fg_CD_predictor.RGB_layer_1.weight"] == (192, 384 + APPEARANCE_CODE, 1, 1)
    assert shapes["fg_CD_predictor.RGB_layer_2.weight"] == (256, 192, 1, 1)
    assert shapes["neural_render.bg_featmap"] == (1, 256, features, features)
    assert shapes["neural_render.rgb_upsample.1.f"] == (3,)
    for i in range(doublings):
        width = max(256 >> i, 32)
        assert shapes[f"neural_render.feat_upsample_list.{i}.layer_2.weight"] == (4 * width, 2 * width, 1, 1)
        assert shapes[f"neural_render.feat_upsample_list.{i}.blur_layer.f"] == (3,)
    assert f"neural_render.feat_2_rgb_list.{doublings}.bias" in shapes
    assert f"neural_render.feat_layers.{doublings}.bias" not in shapes


@pytest.mark.parametrize("dense", [False, True])
def test_the_factored_form_equals_the_plain_one(benchmark, dense):
    network = benchmark.random_network(HeadNeRFConfig(8, 32, 64, 96), dense)
    codes = benchmark.random_codes(1)
    with torch.no_grad():
        ours, plain = network(codes, camera(), rays=7).image, benchmark.plain_image(network, codes, camera())
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
    found = benchmark.gradients(lambda c: network(c, camera()).image, codes)
    wanted = benchmark.gradients(lambda c: benchmark.plain_image(network, c, camera()), codes)
    torch.testing.assert_close(found, wanted, atol=1e-3 * float(wanted.abs().max()), rtol=0)


def test_gradients_do_not_depend_on_what_is_kept(tiny, benchmark):
    codes = benchmark.random_codes(3)
    kept = benchmark.gradients(lambda c: tiny(c, camera()).image, codes)
    computed_twice = HeadNeRF(tiny.config).eval().requires_grad_(False)
    computed_twice.load_state_dict(tiny.state_dict())
    computed_twice._kept = False
    again = benchmark.gradients(lambda c: computed_twice(c, camera()).image, codes)
    torch.testing.assert_close(kept, again, atol=1e-7, rtol=1e-4)


def test_several_heads_equal_single_ones(tiny):
    codes, cameras = [wave_codes(0.2), wave_codes(0.6)], [NerfCamera.free(), camera()]
    joined = HeadCodes(*(torch.cat(parts) for parts in zip(*(c.parts for c in codes), strict=True)))
    names = ("rotation", "center", "focal", "principal")
    both = NerfCamera(*(torch.cat([getattr(c, name) for c in cameras]) for name in names))
    with torch.no_grad():
        together = tiny(joined, both).image
        single = torch.cat([tiny(c, k).image for c, k in zip(codes, cameras, strict=True)])
    torch.testing.assert_close(together, single, atol=1e-6, rtol=0)


def test_samples_lie_between_the_planes():
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.3, -0.2, -1.0]])
    points, steps = samples(torch.tensor([0.5, 0.1, 12.0]), directions)
    assert points.shape == (2, SAMPLES, 3)
    assert torch.allclose(points[:, 0, 2], torch.tensor(NEAR))
    assert torch.allclose(points[:, -1, 2], torch.tensor(FAR + (NEAR - FAR) / SAMPLES), atol=1e-5)
    assert torch.allclose(steps[0], torch.tensor((NEAR - FAR) / SAMPLES), atol=1e-5)
    assert torch.allclose(steps[1] / steps[0], directions[1].norm().expand(SAMPLES), atol=1e-4)


def test_the_encoding_has_no_factor_pi():
    point = torch.tensor([[0.1, 0.2, 0.3]])
    encoded = encode(point)
    assert encoded.shape == (1, 63)
    assert torch.allclose(encoded[0, 3:6], torch.sin(point[0]))
    assert torch.allclose(encoded[0, -3:], torch.cos(512 * point[0]))


def test_only_the_color_depends_on_the_appearance(tiny):
    codes = wave_codes()
    other = HeadCodes(codes.identity, codes.expression, codes.albedo + 0.5, codes.illumination)
    with torch.no_grad():
        a, b = tiny(codes, camera()), tiny(other, camera())
    assert torch.equal(a.coverage, b.coverage)
    assert float((a.image - b.image).abs().max()) > 1e-3


@pytest.mark.parametrize("sizes", [(32, 200), (32, 32), (1, 2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(InputError, match="cannot draw"):
        HeadNeRFConfig(*sizes)


def test_codes_of_another_length_are_refused():
    codes = wave_codes()
    with pytest.raises(InputError, match="100, 79, 100, 27"):
        HeadCodes(codes.identity, codes.expression[:, :64], codes.albedo, codes.illumination)


def test_a_head_is_not_drawn_from_the_side(tiny):
    side = NerfCamera.free().moved(torch.tensor([[0.0, 1.4, 0.0]]), torch.zeros(1, 3))
    with pytest.raises(InputError, match="smaller angles"):
        tiny(wave_codes(), side)
