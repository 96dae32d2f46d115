"""The built-in morphable model and its renderer."""

from __future__ import annotations

import numpy as np
import pytest
from faceveil.pipelines.geometry.morphable import MorphableModel, rasterise, render_model
from faceveil.pipelines.geometry.shape_model import ShapeFit
from faceveil.pipelines.methods.appearance.network import load_model
from faceveil.pipelines.methods.appearance.surface import built_in_morphable_model, facing


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return built_in_morphable_model(load_model())


def _camera(yaw: float, size: int = 128) -> ShapeFit:
    a = np.radians(yaw)
    rotation = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    return ShapeFit(0.28 * size * rotation[:2], np.array([size / 2, -0.42 * size]), np.zeros(40), rotation)


def test_mesh_is_sound(model) -> None:
    assert model.triangles.min() == 0 and model.triangles.max() == len(model.mean) - 1
    normals = model.normals(model.mean)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    # Nearly all of a face looks forwards.
    assert (normals[:, 2] > 0).mean() > 0.95
    assert len(model.identity) == 40 and len(model.expression) == 3


def test_expression_modes_move_the_mouth(model) -> None:
    moved = np.linalg.norm(model.expression, axis=2)
    mouth = (np.abs(model.mean[:, 0]) < 0.45) & (model.mean[:, 1] < -0.85) & (model.mean[:, 1] > -1.5)
    brow = model.mean[:, 1] > 0.3
    assert moved[:, mouth].mean() > 2 * moved[:, brow].mean()


@pytest.mark.parametrize("yaw", [-35, 0, 35])
def test_rendering(model, yaw) -> None:
    seen = render_model(model, model.vertices(), model.colours(), _camera(yaw), 128)
    assert 0.15 < seen.mask.mean() < 0.6
    assert seen.image[~seen.mask].max() == 0
    assert np.allclose(np.linalg.norm(seen.normals[seen.mask], axis=1), 1)
    assert seen.image[seen.mask].mean() > 0.2


def test_nearer_triangles_hide_farther_ones() -> None:
    flat = np.array([[2, 2], [2, 14], [14, 2], [4, 4], [4, 12], [12, 4]], float)
    depth = np.array([0, 0, 0, 1, 1, 1], float)
    triangles = np.array([[0, 1, 2], [3, 4, 5]])
    for order in ([0, 1], [1, 0]):
        face, weights = rasterise(flat, depth, triangles[order], 16)
        assert order[face[6, 6]] == 1
        assert order[face[3, 3]] == 0
        assert face[15, 15] == -1
        assert np.allclose(weights[face >= 0].sum(1), 1)


def test_the_far_cheek_turns_away() -> None:
    appearance = load_model()
    front, turned = (facing(appearance, _camera(yaw))[0, 0] for yaw in (0, -35))
    left, right = front[140, 70], front[140, 186]
    assert abs(left - right) < 0.1
    assert min(turned[140, 70], turned[140, 186]) < min(left, right) - 0.2


def test_too_many_coefficients_are_refused(model) -> None:
    with pytest.raises(ValueError, match="coefficients"):
        model.vertices(np.zeros(99))
