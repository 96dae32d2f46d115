"""IDEudemon as a method: the mesh variant, HeadNeRF, restorers, and what the job makes of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.align import apply, invert
from faceveil.pipelines.faces.masks import hull_mask
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.fitting import Fitter
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.ideudemon.drawing import HeadPainter, draw_mesh
from faceveil.pipelines.methods.ideudemon.headnerf import HeadCodes
from faceveil.pipelines.methods.ideudemon.mesh import fit_mesh, new_landmarks, redraw_face, warp_face
from faceveil.pipelines.methods.ideudemon.method import IDEudemonMethod, compose, square_face
from faceveil.pipelines.methods.ideudemon.protect import (
    MESH_LIMIT,
    protected_codes,
    protected_coefficients,
)
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.embedder import built_in_embedder


@pytest.fixture(scope="module")
def method() -> IDEudemonMethod:
    return IDEudemonMethod(built_in_morphable_model())


@pytest.fixture(scope="module")
def drawn_method() -> IDEudemonMethod:
    return IDEudemonMethod(built_in_morphable_model(), restorer=lambda square: square)


def shown(view: View, change) -> torch.Tensor:
    new, (x, y) = view.image.clone(), change.origin
    new[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    return new


def test_codes_get_clamped_noise_and_only_the_identity():
    codes = HeadCodes(*(part.expand(3, -1) for part in HeadCodes.average().parts))
    found = protected_codes(codes, 1.0, 5)
    noise = torch.randn(1, 100, generator=torch.Generator().manual_seed(5))
    assert torch.allclose(found.identity, (0.25 * noise).clamp(-1, 1).expand(3, -1))
    assert torch.equal(found.expression, codes.expression) and torch.equal(found.appearance, codes.appearance)
    assert float(protected_codes(codes, 40.0, 5).identity.abs().max()) == 1.0
    assert torch.equal(protected_codes(codes, 0.0, 5).identity, codes.identity)


def test_coefficients_get_the_same_noise_for_all_pictures_of_a_person(method, view):
    own = method.prepare(view).mesh.estimate.coefficients
    both = own.rows([0, 0])
    changed = protected_coefficients(both, 1.0, 2)
    assert torch.equal(changed.identity[0], changed.identity[1])
    assert float(changed.identity.abs().max()) <= MESH_LIMIT
    for name in ("expression", "lighting", "angles", "translation", "gaze"):
        assert torch.equal(getattr(changed, name), getattr(both, name)), name


def test_strength_0_keeps_every_bit(method, drawn_method, view):
    for each in (method, drawn_method):
        prepared = each.prepare(view)
        change = each.render(prepared, each.sample_identity([prepared], 1), 0.0)
        assert torch.equal(shown(view, change), view.image)


def test_more_noise_means_another_face_in_the_same_pose(method, view):
    recognizer, prepared = built_in_embedder(), method.prepare(view)
    identity = method.sample_identity([prepared], 1)
    own = unit(recognizer.embed(view.image, view.face.points))
    distances = []
    for strength in (0.5, 1.0, 1.5):
        change = method.render(prepared, identity, strength)
        distances.append(float(np.linalg.norm(unit(recognizer.embed(shown(view, change), change.points)) - own)))
        assert torch.equal(method.render(prepared, identity, strength).patch, change.patch)
    assert distances == sorted(distances) and distances[-1] > distances[0] + 0.1, distances


def test_other_seeds_are_other_people(method, view):
    prepared = method.prepare(view)
    patches = [method.render(prepared, method.sample_identity([prepared], seed), 1.0).patch for seed in (1, 2)]
    assert patches[0].shape != patches[1].shape or float((patches[0] - patches[1]).abs().max()) > 0.05


def test_the_warped_landmarks_are_where_the_face_is(view):
    model = built_in_morphable_model()
    face = fit_mesh(Fitter(model), view.image, view.face)
    assert np.allclose(apply(invert(face.transform), face.points), view.face.points, atol=1e-6)
    own = face.estimate.coefficients
    assert np.allclose(new_landmarks(model, face, own), face.points)
    square, mask = warp_face(model, face, own)
    assert torch.allclose(square, face.square, atol=2e-3)
    assert mask.shape == (1, 1, *square.shape[-2:])


def test_the_hybrid_keeps_the_photo_around_the_face(method, view):
    prepared = method.prepare(view)
    square = square_face(prepared, 256, None)
    edited = protected_coefficients(square.estimate.coefficients, 1.0, 3)
    drawn = draw_mesh(method.model, edited, square.from_fitting, 256)
    hybrid = compose(square, drawn)
    outside = (square.masks.face == 0).expand_as(hybrid)
    assert torch.equal(hybrid[outside], square.square[outside])
    inside = (square.masks.face * drawn.face > 0).expand_as(hybrid)
    assert torch.equal(hybrid[inside], drawn.image[inside])
    # Nothing of the old face is left, and the white gaps are filled.
    gaps = (square.masks.face * (1 - drawn.face) > 0).expand_as(hybrid)
    assert bool(gaps.any()) and float((hybrid[gaps] - square.square[gaps]).abs().mean()) > 0.01
    assert float((hybrid[gaps] == 1).float().mean()) < 0.1


def test_a_redrawn_face_keeps_nothing_of_the_old_one(method, view):
    """Two photos that differ inside the face only become the same picture there."""
    prepared = method.prepare(view)
    mesh = prepared.mesh
    edited = protected_coefficients(mesh.estimate.coefficients, 1.0, 3)
    size = mesh.square.shape[-1]
    noise = torch.rand(mesh.square.shape, generator=torch.Generator().manual_seed(0))
    middle = hull_mask(mesh.points, size, size, grow=-0.3)
    other = dataclasses.replace(mesh, square=torch.lerp(mesh.square, noise, (middle > 0.5).float()))
    a, b = (redraw_face(method.model, m, edited, lambda square: square)[0] for m in (mesh, other))
    inner = hull_mask(new_landmarks(method.model, mesh, edited), size, size, grow=-0.45) > 0.99
    assert float(inner.float().mean()) > 0.02
    assert float(((a - b).abs() * inner).max()) < 0.02
    assert float((mesh.square - other.square).abs().max()) > 0.3


def test_headnerf_is_fitted_once_per_face(tiny, view):
    method = IDEudemonMethod(built_in_morphable_model(), head=HeadPainter(tiny, iterations=2))
    prepared, calls = method.prepare(view), []
    identity = method.sample_identity([prepared], 1)

    def progress(done: int, total: int, what: str) -> None:
        calls.append(what)

    first = method.render(prepared, identity, 1.0, progress)
    count = len(calls)
    assert count > 0
    method.render(prepared, identity, 0.5, progress)
    assert len(calls) == count
    assert bool((first.mask > 0).any())
    assert torch.equal(method.render(prepared, identity, 1.0).patch, first.patch)


def test_a_restorer_gets_the_hybrid_and_only_the_face_is_pasted(view):
    seen = []

    def restorer(square: torch.Tensor) -> torch.Tensor:
        seen.append(square)
        return torch.full((1, 3, 512, 512), 0.5)

    method = IDEudemonMethod(built_in_morphable_model(), restorer)
    prepared = method.prepare(view)
    change = method.render(prepared, method.sample_identity([prepared], 1), 1.0)
    assert seen[0].shape == (1, 3, 512, 512)
    new = shown(view, change)
    changed = (new != view.image).any(1)[0]
    ys, xs = torch.nonzero(changed, as_tuple=True)
    x1, y1, x2, y2 = view.face.box
    size = max(x2 - x1, y2 - y1)
    assert xs.min() > x1 - size and xs.max() < x2 + size and ys.min() > y1 - size and ys.max() < y2 + size
    middle = view.face.points.mean(0).astype(int)
    assert torch.allclose(new[0, :, middle[1], middle[0]], torch.tensor(0.5), atol=5e-3)


def test_heads_that_the_model_cannot_show_are_refused(method, view):
    from dataclasses import replace

    prepared = method.prepare(view)
    assert method.occlusion_reason(prepared) is None

    def with_(**changes):
        estimate = replace(prepared.mesh.estimate, **changes)
        return replace(prepared, mesh=replace(prepared.mesh, estimate=estimate))

    own = prepared.mesh.estimate.coefficients
    turned = with_(coefficients=replace(own, angles=torch.tensor([[0.0, 1.0, 0.0]])))
    assert "rotated too far" in method.occlusion_reason(turned)
    assert "does not fit" in method.occlusion_reason(with_(errors=torch.tensor([0.2])))


def test_a_given_identity_is_refused(method, view):
    prepared = method.prepare(view)
    with pytest.raises(InputError, match="own geometry"):
        method.from_identity([prepared], None, 1)


def test_a_face_that_recognizers_still_match_is_redacted(method, portrait, portrait_faces):
    settings = Settings(method="ideudemon", strength=1.0, tries=1, policy=Policy.always("redact"))
    result = anonymize_batch(portrait, settings, portrait_faces, method=method)
    assert result.report.faces[0].outcome == "redacted"
