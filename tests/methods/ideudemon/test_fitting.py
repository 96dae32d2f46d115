"""Fits of HeadNeRF: known codes are found again, early stop, interruption, inference mode."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.methods.ideudemon.cameras import NerfCamera
from faceveil.pipelines.methods.ideudemon.fitting import PATIENCE, fit_head
from faceveil.pipelines.methods.ideudemon.headnerf import HeadCodes

from .conftest import wave_codes


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


@pytest.fixture(scope="module")
def target(tiny):
    with torch.no_grad():
        return tiny(wave_codes(), NerfCamera.free()).image


@pytest.fixture(scope="module")
def start() -> tuple[HeadCodes, NerfCamera]:
    torch.manual_seed(0)
    codes = HeadCodes(*(part + 0.3 * torch.randn_like(part) for part in wave_codes().parts))
    return codes, NerfCamera.free().moved(torch.tensor([[0.03, -0.02, 0.02]]), torch.tensor([[0.05, -0.04, 0.1]]))


def test_known_codes_are_found_again(tiny, target, start):
    with torch.no_grad():
        before = decibels(tiny(*start).image, target)
    mask = torch.ones(1, 1, 32, 32)
    fit = fit_head(tiny, target, mask, *start, None, iterations=120)
    after = decibels(fit.image, target)
    assert before < 29 and after >= 30 and after > before + 5, (before, after)
    assert fit.losses[-1] < fit.losses[0]


def test_the_same_fit_in_inference_mode(tiny, target, start):
    mask = torch.ones(1, 1, 32, 32)
    usual = fit_head(tiny, target, mask, *start, None, iterations=5)
    with torch.inference_mode():
        inside = fit_head(tiny, target.clone(), mask.clone(), *start, None, iterations=5)
    assert torch.equal(usual.image, inside.image)


def test_the_outside_of_the_mask_is_not_fitted(tiny, target, start):
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    disturbed = torch.where(mask > 0, target, torch.rand(target.shape, generator=torch.Generator().manual_seed(1)))
    a = fit_head(tiny, target, mask, *start, None, iterations=3)
    b = fit_head(tiny, disturbed, mask, *start, None, iterations=3)
    assert torch.equal(a.image, b.image)


def test_a_fit_that_no_longer_gains_stops_early(tiny):
    with torch.no_grad():
        image = tiny(wave_codes(), NerfCamera.free()).image
    fit = fit_head(tiny, image, torch.ones(1, 1, 32, 32), wave_codes(), NerfCamera.free(), None, iterations=400)
    assert 2 * PATIENCE < len(fit.losses) < 400


def test_an_interruption_ends_the_fit(tiny, target, start):
    def progress(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(tiny, target, torch.ones(1, 1, 32, 32), *start, None, iterations=50, progress=progress)


def test_a_network_that_was_moved_in_inference_mode_can_be_fitted(tmp_path, tiny, target, start):
    from faceveil.pipelines.methods.ideudemon.checkpoint import open_headnerf, save_headnerf
    from faceveil.pipelines.recognition.embedder import built_in_embedder
    from faceveil.pipelines.training.perceptual import open_features

    save_headnerf(tmp_path / "h.safetensors", tiny)
    with torch.inference_mode():
        network = open_headnerf(tmp_path / "h.safetensors", torch.device("cpu"))
        features = open_features(None, torch.device("cpu"))
        fit_head(network, target.clone(), torch.ones(1, 1, 32, 32), *start, features, iterations=2)
    assert features.network is not built_in_embedder().network
    assert not any(p.is_inference() for p in [*network.parameters(), *features.parameters()])


def test_a_face_without_a_head_is_not_fitted(tiny, view):
    from dataclasses import replace

    from faceveil.pipelines.core.errors import CannotReplace
    from faceveil.pipelines.geometry.builtin import built_in_morphable_model
    from faceveil.pipelines.methods.ideudemon.drawing import HeadPainter
    from faceveil.pipelines.methods.ideudemon.method import IDEudemonMethod, square_face

    method = IDEudemonMethod(built_in_morphable_model())
    square = square_face(method.prepare(view), 32, None)
    empty = replace(square.masks, head=torch.zeros_like(square.masks.head))
    with pytest.raises(CannotReplace, match="no head"):
        HeadPainter(tiny).fit(replace(square, masks=empty))
