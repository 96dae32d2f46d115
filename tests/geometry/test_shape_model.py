"""The 3D shape model of the landmarks."""

from __future__ import annotations

import numpy as np
import pytest
from faceveil.pipelines.geometry.shape_model import ShapeModel, _rotate, learn_shape_model, weak_perspective
from faceveil.pipelines.methods.appearance.network import load_model


@pytest.fixture(scope="module")
def shapes() -> ShapeModel:
    return load_model().shapes


def _project(shape: np.ndarray, yaw: float, pitch: float, scale: float = 100.0) -> np.ndarray:
    rotation = _rotate(np.array([-np.radians(pitch), 0, 0])) @ _rotate(np.array([0, np.radians(yaw), 0]))
    return (scale * shape @ rotation[:2].T + [200, -150]) * [1, -1]


@pytest.mark.parametrize("yaw", [-30, 0, 20])
def test_fit_recovers_pose_and_landmarks(shapes, yaw) -> None:
    rng = np.random.default_rng(0)
    truth = shapes.shape(rng.normal(size=len(shapes.modes)) * 0.7)
    points = _project(truth, yaw, 8)
    fit = shapes.fit(points)
    assert abs(fit.yaw - yaw) < 6
    rms = np.sqrt(((fit.project(shapes.shape(fit.coefficients)) - points) ** 2).sum(1).mean())
    assert rms < 1.5


def test_weak_perspective_is_exact_on_its_own_projections() -> None:
    rng = np.random.default_rng(1)
    shape = rng.normal(size=(4, 30, 3))
    rotation = _rotate(rng.normal(size=(4, 3)) * 0.4)
    flat = 3.0 * shape @ np.swapaxes(rotation[:, :2], 1, 2) + rng.normal(size=(4, 1, 2))
    camera, shift, found = weak_perspective(shape, flat)
    assert np.abs(shape @ np.swapaxes(camera, 1, 2) + shift[:, None] - flat).max() < 1e-8
    assert np.abs(found - rotation).max() < 1e-6


def test_depth_is_learned_from_rotated_heads(shapes) -> None:
    rng = np.random.default_rng(2)
    projections = []
    for _ in range(400):
        shape = shapes.shape(rng.normal(size=len(shapes.modes)) * [*[1] * len(shapes.modes)])
        flat = _project(shape, rng.normal() * 15, rng.normal() * 8, 1.0) - [200, 150]
        projections.append(flat)
    learned, _ = learn_shape_model(np.stack(projections), np.ones(400), components=20, rounds=10)
    depth = np.corrcoef(learned.mean[17:, 2], shapes.mean[17:, 2])[0, 1]
    assert depth > 0.95


def test_the_nose_is_nearest_and_the_ears_are_farthest(shapes) -> None:
    assert shapes.mean[30, 2] > shapes.mean[[36, 45, 48, 54, 8], 2].max()
    assert shapes.mean[[0, 16], 2].max() < shapes.mean[17:, 2].min()


def test_learned_coefficients_belong_to_the_learned_model(shapes) -> None:
    rng = np.random.default_rng(3)
    projections = np.stack(
        [
            _project(shapes.shape(rng.normal(size=len(shapes.modes))), rng.normal() * 10, rng.normal() * 6, 1.0)
            - [200, 150]
            for _ in range(300)
        ]
    )
    learned, coefficients = learn_shape_model(projections, np.ones(300), components=12, rounds=8)
    fits = [learned.fit(points) for points in projections[:20]]
    again = np.stack([fit.coefficients for fit in fits])
    assert np.abs(again - coefficients[:20]).mean() < 0.25 * np.abs(coefficients[:20]).mean()
