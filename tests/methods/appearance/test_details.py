"""Details of the built-in model's renderings that once were visible faults."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from faceveil.pipelines.faces.align import five_points
from faceveil.pipelines.faces.face import JAW, mouth_gap
from faceveil.pipelines.faces.landmarks import fit_landmarks
from faceveil.pipelines.methods.appearance import method as module
from faceveil.pipelines.methods.appearance import render
from faceveil.pipelines.methods.appearance.canonical import SIZE, interpolate_lattice, upsample
from faceveil.pipelines.methods.appearance.halves import Packer
from faceveil.pipelines.methods.appearance.latent import appearance_of, latent_of
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.appearance.render import canonical_change
from faceveil.pipelines.methods.appearance.shading import Decomposition
from faceveil.pipelines.methods.appearance.shape import Correction, region_moves
from faceveil.pipelines.methods.base import View
from torch import Tensor

DARK = -0.8
"""Log reflectance of hair, and of a deep shadow."""


@pytest.fixture(scope="module")
def method() -> AppearanceMethod:
    return AppearanceMethod(trials=1)


@pytest.fixture(scope="module")
def appearance(method, subject, portrait, portrait_faces):
    prepared = method.prepare(View(portrait, portrait_faces[0], subject.embeddings[0]))
    return appearance_of(method.model, latent_of(method.model, method.sample_identity([prepared], 3)), subject)


def _spot(method, left: float, right: float, top: float, bottom: float) -> Tensor:
    """1 inside a rectangle of the canonical space, in IOD."""
    x, y = method.model.canonical.xy
    return ((x > left) & (x < right) & (y > top) & (y < bottom)).float()[None, None]


def _beard(method, spot: Tensor) -> Tensor:
    detail = DARK * spot.expand(-1, 3, -1, -1)
    decomposition = Decomposition(detail, detail, torch.ones(1, 1, SIZE, SIZE), detail, detail[0, 0])
    return render._beard(method.model.masks, decomposition)


def test_the_outline_moves_across_itself_and_least_at_the_ears(method, subject) -> None:
    model, rng = method.model, np.random.default_rng(0)
    codes = subject.fit.coefficients + rng.normal(size=(20, len(subject.fit.coefficients)))
    moves = region_moves(model.shapes, subject.fit, subject.shape, "base", codes)[:, JAW]
    along = np.gradient(subject.shape[JAW], axis=0)
    assert np.abs((moves * along).sum(-1)).max() < 1e-9
    lengths = np.linalg.norm(moves, axis=2).mean(0)
    assert lengths.max() > 0.02
    assert lengths[[0, 16]].max() < 0.6 * lengths[4:13].max()


def test_eyes_move_aside_less_than_up_and_down_and_keep_their_slant(method, subject) -> None:
    model, rng = method.model, np.random.default_rng(0)
    codes = subject.fit.coefficients + 3 * rng.normal(size=(40, len(subject.fit.coefficients)))
    moves = region_moves(model.shapes, subject.fit, subject.shape, "eyes", codes)
    eyes = np.abs(np.stack([moves[:, 36:42].mean(1), moves[:, 42:48].mean(1)]))
    assert 0.07 < eyes[..., 0].max() < 0.0801
    assert eyes[..., 1].max() > 0.0801
    for eye in (slice(36, 42), slice(42, 48)):
        x = subject.shape[eye, 0] - subject.shape[eye, 0].mean()
        assert 0.08 < np.abs(moves[:, eye, 1] @ x / (x @ x)).max() < 0.1301


def test_the_shadow_of_a_nose_is_no_mustache(method) -> None:
    assert _beard(method, _spot(method, -0.22, 0.22, 0.72, 0.88)).max() < 0.05
    assert _beard(method, _spot(method, 0.40, 0.55, 0.72, 0.86)).max() < 0.05


def test_a_mustache_is_kept_with_its_parting(method) -> None:
    mustache = _spot(method, -0.5, -0.06, 0.74, 0.86) + _spot(method, 0.06, 0.5, 0.74, 0.86)
    assert _beard(method, mustache)[mustache > 0].mean() > 0.5


def test_a_beard_below_the_mouth_may_be_narrow(method) -> None:
    goatee = _spot(method, -0.15, 0.15, 1.3, 1.7)
    assert _beard(method, goatee)[goatee > 0].mean() > 0.7


def test_closed_lips_are_not_drawn_open(method, subject, appearance) -> None:
    points = subject.points.copy()
    points[65:68, 1] = points[61:64, 1].mean()
    change = canonical_change(method.model, replace(subject, points=points), appearance, 1.0)
    inner = method.model.canonical.inner_mouth[0, 0] > 0.5
    assert change[0, 7][inner].mean() < 0.55
    assert change[0, 7].max() == 1


def test_painted_skin_takes_no_color_from_dark_pixels(method, subject, appearance) -> None:
    """Lashes and shadows have colors that a bright skin would show as orange specks."""
    place = _spot(method, -0.6, 0.6, -0.8, -0.5)
    stain = torch.tensor([0.6, -0.3, -0.3]).view(1, 3, 1, 1) * place - 0.9 * place
    stained = replace(subject.decomposition, detail=subject.decomposition.detail + stain)
    clean, dirty = (
        canonical_change(method.model, replace(subject, decomposition=d), appearance, 1.0)[0, 3:6]
        for d in (subject.decomposition, stained)
    )
    inside = place[0, 0] > 0
    color = [(c - c.mean(0))[:, inside] for c in (clean, dirty)]
    assert (color[0] - color[1]).abs().mean() < 0.05
    assert (clean - dirty)[:, inside].abs().max() < 2 * render.MAX_GRAIN + 0.3


def test_detail_is_packed_as_by_interpolation(method) -> None:
    """The matrices are those of torch's own resizing."""
    packer = Packer(method.model.canonical)
    detail = 0.1 * torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    luma = detail.mean(1, keepdim=True)
    small = F.interpolate(luma * packer.weights["base"], size=(192, 192), mode="bilinear", antialias=True)
    right = ((small + small.flip(-1)) / 2)[0, 0, :, 96:].flatten()
    assert torch.allclose(
        packer.pack(detail)["base"][0][: len(packer._luma["base"])], right[packer._luma["base"]], atol=1e-5
    )


def test_detail_is_unpacked_as_by_interpolation(method) -> None:
    packer = Packer(method.model.canonical)
    generator = torch.Generator().manual_seed(0)
    luma, chroma = len(packer._luma["base"]), len(packer._chroma["base"])
    # Symmetric gray detail of the region that is stored at a smaller size.
    half = torch.randn(luma, generator=generator)
    right = torch.zeros(192 * 96).index_copy(0, packer._luma["base"], half).view(1, 1, 192, 96)
    whole = torch.cat([right.flip(-1), right], -1)
    wanted = F.interpolate(whole, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    symmetric = torch.cat([half, torch.zeros(2 * chroma)])
    assert torch.allclose(packer.unpack({"base": (symmetric, 0 * symmetric)}), wanted.expand(-1, 3, -1, -1), atol=1e-5)
    colors = torch.randn(2 * chroma, generator=generator)
    painted = packer.unpack({"base": (torch.cat([half, colors]), 0 * symmetric)})
    assert torch.allclose(painted.mean(1, keepdim=True), wanted, atol=1e-5)
    assert (painted - wanted).abs().max() > 0.1


def test_grids_are_enlarged_as_by_interpolation() -> None:
    nodes = torch.randn(7, 9, 2, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(nodes.movedim(-1, 0)[None], size=(31, 45), mode="bicubic", align_corners=True)
    assert torch.allclose(interpolate_lattice(nodes, 31, 45), wanted[0].movedim(0, -1), atol=1e-5)
    grid = nodes.movedim(-1, 0)[None]
    bilinear = F.interpolate(grid, size=(SIZE, SIZE), mode="bilinear", align_corners=True)
    assert torch.allclose(upsample(grid, SIZE), bilinear, atol=1e-5)


def test_landmarks_that_jump_are_corrected_by_smaller_steps(monkeypatch) -> None:
    """Whole steps would go between 0 and twice the correction that is needed, for ever."""
    tried: list[float] = []

    def error(*_args) -> Correction:
        lips = 0.03 - tried[-1]
        # Detected lips open or close further than they do.
        return Correction(lips=2 * lips if abs(lips) > 0.012 else lips)

    monkeypatch.setattr(module, "render", lambda *args: tried.append(args[4].lips) or (None, None, None))
    monkeypatch.setattr(module, "_expression_error", error)
    best, _ = module._corrected(None, None, None, 1.0, None)
    assert tried[:2] == [0, 0.06]
    assert best.lips == pytest.approx(0.03, abs=module.TOLERANCE)


def test_a_settled_correction_follows_the_strength(method, portrait, portrait_faces, subject):
    """A video's frames keep the expression at any strength, and strength 0 is the photo."""
    prepared = method.prepare(View(portrait, portrait_faces[0], subject.embeddings[0]))
    identity = method.sample_identity([prepared], 2)
    unchanged = method.render(prepared, method.settled([prepared], identity, 0.0), 0.0)
    assert torch.equal(unchanged.patch, prepared.subject.patch)
    gap = mouth_gap(portrait_faces[0].points)
    for strength in (0.3, 0.6):
        change = method.render(prepared, method.settled([prepared], identity, strength), strength)
        box = np.concatenate([change.points.min(0), change.points.max(0)])
        x, y = prepared.origin
        image = portrait.clone()
        image[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
        found = fit_landmarks(image, box, five_points(change.points))
        assert abs(mouth_gap(found) - gap) < 0.03
