"""The renderer: visibility against a reference loop, perspective, gradients against finite differences."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.geometry import rasterizer
from faceveil.pipelines.geometry.camera import DISTANCE, FOCAL, angles_of, degrees, place, project, rotation
from faceveil.pipelines.geometry.coefficients import neutral
from faceveil.pipelines.geometry.lighting import AMBIENT, basis, shading
from faceveil.pipelines.geometry.rasterizer import rasterize
from faceveil.pipelines.geometry.renderer import interpolate, render


@pytest.fixture(params=["torch", "numba"])
def path(request, monkeypatch) -> str:
    """Both ways to rasterize."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setattr(rasterizer, "is_available", lambda: request.param == "numba")
    return request.param


@pytest.mark.parametrize(("seed", "size"), [(0, 96), (1, 96), (2, 224)])
def test_visibility_equals_the_reference_loop(model, random_faces, rasterize_by_loop, path, seed, size) -> None:
    c = random_faces(model, 1, seed)
    flat, depth = project(place(model.vertices(c.identity, c.expression), c.angles, c.translation), size)
    faces = rasterize(flat, depth, model.triangles, size, size)[0].numpy()
    assert (faces >= 0).mean() > 0.1
    assert np.array_equal(faces, rasterize_by_loop(flat[0], depth[0], model.triangles, size))


IN_PACKAGE = """
import importlib, importlib.util, sys
import torch

name, root = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, f"{root}/__init__.py", submodule_search_locations=[root])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
fast = importlib.import_module(f"{name}.pipelines.geometry.rasterizer_fast")
fast.fill(torch.zeros(1, 3, 2, dtype=torch.int64), torch.ones(1, 3), torch.tensor([[0, 1, 2]]), 4, 4)
"""


@pytest.mark.slow
def test_compiled_code_of_one_package_does_not_disturb_another() -> None:
    """ComfyUI loads this package under another name than the command line, from the same folder."""
    pytest.importorskip("numba")
    root = Path(rasterizer.__file__).resolve().parents[2]
    for name in ("pack_one", "pack_two"):
        subprocess.run([sys.executable, "-c", IN_PACKAGE, name, str(root)], check=True)


def random_mesh(seed: int, count: int, spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    flat = 48 + spread * torch.randn(1, 3 * count, 2, generator=generator)
    depth = 9 + torch.rand(1, 3 * count, generator=generator)
    return flat, depth, torch.arange(3 * count).view(count, 3)


@pytest.mark.parametrize(("count", "spread"), [(300, 8.0), (60, 60.0), (20, 3000.0), (8, 2e5)])
def test_triangles_of_any_size_equal_the_reference_loop(rasterize_by_loop, path, count, spread) -> None:
    flat, depth, triangles = random_mesh(1, count, spread)
    faces = rasterize(flat, depth, triangles, 97, 97)[0].numpy()
    assert (faces >= 0).any()
    assert np.array_equal(faces, rasterize_by_loop(flat[0], depth[0], triangles, 97))


def test_shared_edges_have_no_cracks_and_no_pixel_twice(path) -> None:
    """Fans of triangles whose corners and edges pass through pixel centers cover each pixel exactly once."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        center = torch.randint(10, 30, (2,), generator=generator) + 0.5
        ring = [(1, 1), (1, 20), (1, 39), (20, 39), (39, 39), (39, 20), (39, 1), (20, 1)]
        flat = torch.cat([center[None], torch.tensor(ring).float() + 0.5])[None]
        triangles = torch.tensor([[0, i + 1, (i + 1) % 8 + 1] for i in range(8)])
        covered = sum((rasterize(flat, torch.full((1, 9), 9.0), t[None], 41, 41)[0] >= 0).int() for t in triangles)
        inside = covered[2:39, 2:39]
        assert int(inside.min()) == int(inside.max()) == 1
        together = rasterize(flat, torch.full((1, 9), 9.0), triangles, 41, 41)[0]
        assert torch.equal(together >= 0, covered > 0)


def test_a_very_large_image_has_no_limit_of_boxes(path) -> None:
    flat = torch.tensor([[[-9000.0, -2.0], [-9000.0, 8.0], [20000.0, 3.0]]])
    faces = rasterize(flat, torch.full((1, 3), 9.0), torch.tensor([[0, 1, 2]]), 6, 9500)
    assert int((faces[0, 3] == 0).sum()) == 9500


@pytest.mark.parametrize("value", [1e20, -1e20, float("nan"), float("inf")])
def test_corners_far_outside_are_an_error_and_not_a_hole(path, value) -> None:
    flat = torch.tensor([[[0.0, 0.0], [0.0, 9.0], [value, 4.0]]])
    with pytest.raises(InputError, match="too far outside"):
        rasterize(flat, torch.full((1, 3), 9.0), torch.tensor([[0, 1, 2]]), 8, 8)
    # Behind the camera, the projection means nothing.
    behind = rasterize(flat, torch.tensor([[9.0, 9.0, -1.0]]), torch.tensor([[0, 1, 2]]), 8, 8)
    assert bool((behind == -1).all())


def test_a_triangle_larger_than_the_image_is_clipped(model, path) -> None:
    flat = torch.tensor([[[-500.0, -300.0], [-300.0, 900.0], [800.0, 40.0]]])
    depth = torch.tensor([[9.0, 10.0, 11.0]])
    triangles = torch.tensor([[0, 1, 2]])
    for height, width in ((40, 64), (64, 40)):
        faces = rasterize(flat, depth, triangles, height, width)
        assert faces.shape == (1, height, width) and (faces == 0).all()
    behind = rasterize(flat, torch.tensor([[9.0, -1.0, 11.0]]), triangles, 40, 64)
    assert (behind == -1).all()
    assert (rasterize(flat, depth, triangles.flip(1), 40, 64) == -1).all()


def test_a_batch_equals_single_faces_and_rendering_is_deterministic(model, random_faces) -> None:
    c = random_faces(model, 3, 3)
    batch = render(model, c, 80)
    for i in range(3):
        single = render(model, c[i], 80)
        assert torch.equal(batch.faces[i], single.faces[0])
        assert torch.allclose(batch.image[i], single.image[0], atol=1e-5)
    again = render(model, c, 80)
    assert all(
        torch.equal(getattr(batch, k), getattr(again, k)) for k in ("image", "mask", "depth", "normals", "uv", "faces")
    )


def test_interpolation_is_perspective_correct() -> None:
    """Interpolated vertex positions project back to the pixel they were interpolated at."""
    points = torch.tensor([[[-1.0, -1.0, 2.0], [1.0, -1.0, -4.0], [0.0, 1.5, -1.0]]])
    flat, depth = project(points, 200)
    triangles = torch.tensor([[0, 1, 2]])
    faces = rasterize(flat, depth, triangles, 200, 200)
    values = interpolate(points, flat, depth, triangles, faces)[0]
    y, x = (faces[0] == 0).nonzero(as_tuple=True)
    positions = values[:, y, x].T
    projected, _ = project(positions[None], 200)
    assert (projected[0] - torch.stack([x, y], 1) - 0.5).abs().max() < 1e-3


def test_outputs_have_valid_ranges(model, random_faces) -> None:
    rendering = render(model, random_faces(model, 1, 4), 128)
    hit = rendering.mask[0, 0] > 0
    assert 0.1 < hit.float().mean() < 0.7
    assert rendering.image[:, :, ~hit].abs().max() == 0 and rendering.depth[:, :, ~hit].abs().max() == 0
    assert torch.allclose(rendering.normals[0][:, hit].norm(dim=0), torch.ones(int(hit.sum())), atol=1e-5)
    assert 8 < rendering.depth[0, 0][hit].min() < rendering.depth[0, 0][hit].max() < 12
    assert rendering.uv.min() >= 0 and rendering.uv.max() <= 1


def test_gradients_match_finite_differences(model, random_faces) -> None:
    """Compare with central differences in double precision, with fixed visibility."""
    c = random_faces(model, 1, 5)
    vertices = place(model.vertices(c.identity, c.expression), c.angles, c.translation).double()
    flat, depth = project(vertices, 64)
    faces = rasterize(flat, depth, model.triangles, 64, 64)
    colors = torch.rand(model.mean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[None]
    target = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def cost(points: torch.Tensor) -> torch.Tensor:
        f, d = project(points, 64)
        return ((interpolate(colors, f, d, model.triangles, faces) - target) ** 2).sum()

    points = vertices.clone().requires_grad_(True)
    cost(points).backward()
    visible = model.triangles[faces[faces >= 0].unique()].unique()
    for vertex in visible[:: len(visible) // 12].tolist():
        for axis in range(3):
            shift = torch.zeros_like(vertices)
            shift[0, vertex, axis] = 1e-6
            difference = float(cost(vertices + shift) - cost(vertices - shift)) / 2e-6
            assert float(points.grad[0, vertex, axis]) == pytest.approx(difference, rel=1e-3, abs=1e-5)


def test_gradients_reach_all_coefficients(model, random_faces) -> None:
    c = random_faces(model, 1, 6)
    free = {k: v.clone().requires_grad_(True) for k, v in c.fields().items()}
    render(model, replace(c, **free), 64).image.square().sum().backward()
    for name in ("identity", "expression", "texture", "lighting", "angles", "translation"):
        assert free[name].grad.abs().max() > 0, name


def test_the_camera_equals_the_published_one() -> None:
    flat, depth = project(torch.tensor([[[0.5, 0.25, 0.0], [0.0, 0.0, 1.0]]]), 224)
    assert (
        torch.allclose(flat[0, 0], torch.tensor([112 + 1015 * 0.5 / 10, 112 - 1015 * 0.25 / 10]))
        and float(depth[0, 1]) == 9.0
    )
    assert pytest.approx(12.594, abs=1e-3) == 2 * math.degrees(math.atan(0.5 / FOCAL)) and DISTANCE == 10


def test_rotations() -> None:
    angles = (torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5) * 2.5
    rotations = rotation(angles)
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(20, 3, 3), atol=1e-5)
    assert torch.allclose(angles_of(rotations), angles, atol=1e-4)
    # Each axis alone, right-handed: y maps to z, z to x, x to y.
    quarter = math.pi / 2
    for axis, (vector, expected) in enumerate((([0, 1, 0], [0, 0, 1]), ([0, 0, 1], [1, 0, 0]), ([1, 0, 0], [0, 1, 0]))):
        one = torch.zeros(1, 3)
        one[0, axis] = quarter
        assert torch.allclose(
            rotation(one)[0] @ torch.tensor(vector).float(), torch.tensor(expected).float(), atol=1e-6
        )
    assert degrees(torch.tensor([-0.1, 0.2, 0.3])) == pytest.approx((5.73, 11.46, -17.19), abs=0.01)


def test_lighting() -> None:
    normals = torch.nn.functional.normalize(torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert torch.allclose(shading(normals, torch.zeros(1, 27)), torch.tensor(AMBIENT * 0.886227))
    gamma = torch.zeros(1, 27)
    gamma[0, 9 + 2] = 1.0
    shade = shading(normals, gamma)
    assert torch.allclose(shade[0, :, 1] - shade[0, :, 0], 1.772454 * normals[0, :, 2], atol=1e-6)
    # The harmonics are orthogonal over the sphere.
    sphere = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    gram = basis(sphere).T @ basis(sphere) / len(sphere)
    assert (gram - torch.diag(gram.diagonal())).abs().max() < 0.03


def test_uniform_light_renders_the_albedo(model) -> None:
    rendering = render(model, neutral(model.name, model.sizes), 64)
    hit = rendering.mask[0, 0] > 0
    assert rendering.image[0][:, hit].mean() == pytest.approx(
        float(model.colors(torch.zeros(1, model.sizes[2])).mean()) * AMBIENT * 0.886227, rel=0.1
    )
