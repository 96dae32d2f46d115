"""HeadNeRF's cameras see a head where our own camera sees it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.faces.align import apply
from faceveil.pipelines.geometry.alignment import SIDE
from faceveil.pipelines.geometry.camera import place, project
from faceveil.pipelines.methods.ideudemon.cameras import NerfCamera, camera_of

SIZE = 256


@pytest.mark.parametrize("roll", [0.0, 0.3, -1.2])
def test_rays_pass_through_the_points_that_our_camera_sees(roll):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(1, 20, 3, generator=generator) * 0.8
    angles, translation = torch.tensor([[0.2, -0.4, 0.15]]), torch.tensor([[0.1, -0.2, 0.3]])
    flat, _ = project(place(points, angles, translation), SIDE)
    scale = 0.8
    transform = np.array(
        [
            [scale * np.cos(roll), -scale * np.sin(roll), 60.0],
            [scale * np.sin(roll), scale * np.cos(roll), 20.0],
        ]
    )
    pixels = apply(transform, flat[0].double().numpy())
    camera = camera_of(angles, translation, transform, SIZE)
    # The camera counts from the center of the first pixel.
    normalized = (torch.from_numpy(pixels - 0.5).float() / SIZE - camera.principal) / camera.focal
    rays = torch.nn.functional.pad(normalized, (0, 1), value=1.0) @ camera.rotation[0].T
    to_point = points[0] - camera.center
    across = torch.linalg.cross(rays, to_point).norm(dim=1) / rays.norm(dim=1)
    assert float(across.max()) < 1e-4
    assert bool(((rays * to_point).sum(1) > 0).all())


def test_rays_of_a_small_map_are_those_of_every_eighth_pixel():
    camera = NerfCamera.free()
    _, small = camera.rays(4)
    _, large = camera.rays(32)
    every = large.view(1, 32, 32, 3)[:, ::8, ::8].reshape(1, 16, 3)
    assert torch.allclose(small, every, atol=1e-6)
    assert torch.allclose(small[..., 2], torch.tensor(-1.0))


def test_a_camera_moves_around_the_head():
    camera = NerfCamera.free().moved(torch.tensor([[0.0, 0.5, 0.0]]), torch.zeros(1, 3))
    assert torch.allclose(camera.center.norm(), torch.tensor(12.0), atol=1e-4)
    assert float(camera.center[0, 0]) > 0
    # The optical axis still passes through the head.
    axis = camera.rotation[0, :, 2]
    assert torch.allclose(axis, -camera.center[0] / 12, atol=1e-5)
