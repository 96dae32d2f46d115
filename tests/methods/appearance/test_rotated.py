"""Rotated heads: the canonical face space as a surface in 3D."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from faceveil.pipelines.geometry.shape_model import ShapeFit
from faceveil.pipelines.methods.appearance.canonical import Pose2D, to_pixels
from faceveil.pipelines.methods.appearance.network import AppearanceModel, load_model
from faceveil.pipelines.methods.appearance.surface import rotated_face

SIDE = 300


@pytest.fixture(scope="module")
def model() -> AppearanceModel:
    return load_model()


def seen_from(model: AppearanceModel, yaw: float) -> tuple[np.ndarray, Pose2D, ShapeFit]:
    """Landmarks in pixels, 2D pose, and fit in the units of the pose, for the mean face at a yaw in degrees."""
    a = np.radians(yaw)
    rotation = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    flat = (model.shapes.mean @ rotation[:2].T) * [1, -1] * 80 + [150, 120]
    pose = Pose2D.of(flat)
    fit = model.shapes.fit(pose.to_canonical(flat))
    return flat, pose, fit


@pytest.mark.parametrize("yaw", [-42, -25, 25, 42])
def test_landmarks_map_to_their_canonical_positions(model, yaw) -> None:
    points, pose, fit = seen_from(model, yaw)
    assert fit.yaw == pytest.approx(yaw, abs=6)
    face = rotated_face(model, fit, pose.to_canonical(points))
    where = face.locate(pose, np.zeros((68, 2)), SIDE, SIDE)
    # Only the near half of the face, which is not self-occluded.
    near = [p for p in range(17, 68) if (model.shapes.mean[p, 0] * yaw) < -0.05]
    anchors = to_pixels(model.canonical.mean)
    for p in near:
        x, y = points[p]
        found = where[int(y), int(x)].numpy()
        assert np.hypot(*(found - anchors[p])) < 9, (p, found, anchors[p])


def test_unwrap_and_locate_are_inverse(model) -> None:
    """Unwrap an image whose colors are pixel positions, and look it up at each pixel: visible pixels get their own
    position."""
    points, pose, fit = seen_from(model, 35)
    face = rotated_face(model, fit, pose.to_canonical(points))
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    canonical = face.unwrap(torch.stack([x, y])[None], pose)[0]
    where = face.locate(pose, np.zeros((68, 2)), SIDE, SIDE)
    inside = (where > 4).all(-1) & (where < 252).all(-1)
    column, row = where[inside].unbind(-1)
    again = canonical[:, row.long(), column.long()]
    off = torch.hypot(again[0] - x[inside], again[1] - y[inside])
    assert inside.float().mean() > 0.05 and off.median() < 1.5 and off.quantile(0.95) < 5


def test_the_far_jaw_landmarks_are_ignored(model) -> None:
    points, pose, fit = seen_from(model, 35)
    shape = pose.to_canonical(points)
    face = rotated_face(model, fit, shape)
    assert list(face.hidden_jaw) == list(range(9, 17))
    assert list(rotated_face(model, seen_from(model, -35)[2], shape).hidden_jaw) == list(range(8))
    slid = shape.copy()
    slid[9:17, 0] -= 0.3
    moved = rotated_face(model, fit, slid)
    far, again = (f.locate(pose, np.zeros((68, 2)), SIDE, SIDE) for f in (face, moved))
    both = (far[..., 0] > 0) & (again[..., 0] > 0)
    assert (far - again)[both].norm(dim=-1).mean() < 0.5


def test_control_points_follow_landmark_displacements(model) -> None:
    points, pose, fit = seen_from(model, -30)
    face = rotated_face(model, fit, pose.to_canonical(points))
    after, before = face.control_points(np.zeros((68, 2)))
    assert np.array_equal(after, before) and 40 < len(after) < 200
    moves = np.zeros((68, 2))
    moves[30] = [0.1, 0.0]
    after, before = face.control_points(moves)
    assert np.linalg.norm(after - before, axis=1).max() > 0.04


def test_neighboring_poses_share_their_control_points(model) -> None:
    """The nodes that bend the image may not be other ones in each frame of a turning head: it would flicker."""
    sets = []
    for yaw in np.arange(24, 27, 0.25):
        points, pose, fit = seen_from(model, yaw)
        face = rotated_face(model, fit, pose.to_canonical(points))
        grid = face._grid.reshape(-1, 2)
        before = face.control_points(np.zeros((68, 2)))[1]
        sets.append({int(np.abs(grid - p).sum(1).argmin()) for p in before})
    assert all(len(a & b) >= 0.9 * len(a | b) for a, b in pairwise(sets))
