"""The renderer: speed and pixels compared with a loop over triangles in the same run, gradients, batches, and CUDA if
available.

    python benchmarks/renderer.py [--ict FOLDER]

With ICT-FaceKit's files (a folder, or the zip file of the data folder), its face of 18,460 triangles is rendered.
Without them, the built-in model is rendered.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.camera import place, project
from faceveil.pipelines.geometry.coefficients import Coefficients, neutral
from faceveil.pipelines.geometry.morphable import MorphableModel
from faceveil.pipelines.geometry.rasterizer import rasterize
from faceveil.pipelines.geometry.readers import load_ict
from faceveil.pipelines.geometry.renderer import interpolate, render

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ict", type=Path, default=DATA / "ict_facekit_subset.zip")
    model = _model(parser.parse_args().ict)
    coefficients = rotated(model)
    print(
        f"{model.name}: {len(model.mean)} vertices, {len(model.triangles)} triangles, {SIZE} px,"
        f" {torch.get_num_threads()} threads"
    )
    passed = [same_pixels(model, coefficients), speed(model, coefficients), gradients(model, coefficients)]
    if torch.cuda.is_available():
        passed.append(cuda(model, coefficients))
    return 0 if all(passed) else 1


def same_pixels(model: MorphableModel, coefficients: Coefficients) -> bool:
    """Compare triangle indices and run time with the loop over triangles."""
    flat, depth = _project(model, coefficients)
    start = time.perf_counter()
    expected = rasterize_by_loop(flat[0], depth[0], model.triangles, SIZE)
    seconds = time.perf_counter() - start
    faces = rasterize(flat, depth, model.triangles, SIZE, SIZE)[0].numpy()
    batched = _median(lambda: rasterize(flat, depth, model.triangles, SIZE, SIZE))
    print(f"visibility: {1e3 * batched:.1f} ms, the loop {1e3 * seconds:.0f} ms, {seconds / batched:.0f} times slower")
    return _check("pixels that differ from the loop", float((faces != expected).sum()), 0)


def speed(model: MorphableModel, coefficients: Coefficients) -> bool:
    """Measure the run time of forward passes, backward passes and batches."""
    eight = coefficients.rows([0] * 8)
    forward, batch = _median(lambda: render(model, coefficients, SIZE)), _median(lambda: render(model, eight, SIZE), 7)

    def both() -> None:
        free = {name: value.clone().requires_grad_(True) for name, value in coefficients.fields().items()}
        render(model, Coefficients(model.name, **free), SIZE).image.square().sum().backward()

    return all(
        [
            _check("one image forward, ms", 1e3 * forward, 25),
            _check("one image forward and backward, ms", 1e3 * _median(both), 40),
            _check("time of a batch of 8 relative to 8 single images", batch / (8 * forward), 1.3),
        ]
    )


def gradients(model: MorphableModel, coefficients: Coefficients) -> bool:
    """Compare gradients with central differences in double precision, at 20 vertices, with fixed visibility."""
    points = place(
        model.vertices(coefficients.identity, coefficients.expression), coefficients.angles, coefficients.translation
    ).double()
    flat, depth = project(points, SIZE)
    faces = rasterize(flat, depth, model.triangles, SIZE, SIZE)
    colors, target = (
        torch.rand(s, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for s in (points.shape, (1, 3, SIZE, SIZE))
    )

    def cost(p: torch.Tensor) -> torch.Tensor:
        return ((interpolate(colors, *project(p, SIZE), model.triangles, faces) - target) ** 2).sum()

    free = points.clone().requires_grad_(True)
    cost(free).backward()
    visible, maximum = model.triangles[faces[faces >= 0].unique()].unique(), 0.0
    scale = float(free.grad.abs().max())
    for vertex in visible[:: max(1, len(visible) // 20)].tolist():
        for axis in range(3):
            shift = torch.zeros_like(points)
            shift[0, vertex, axis] = 1e-6
            difference = float(cost(points + shift) - cost(points - shift)) / 2e-6
            maximum = max(
                maximum, abs(difference - float(free.grad[0, vertex, axis])) / max(abs(difference), 1e-3 * scale)
            )
    return _check("maximum relative error of gradients", maximum, 1e-3)


def cuda(model: MorphableModel, coefficients: Coefficients) -> bool:
    """Measure the run time on CUDA, and compare triangle indices with those of the CPU."""
    on_cpu, on_gpu = render(model, coefficients, SIZE), None
    gpu = model.to("cuda")
    batch = Coefficients(model.name, **{k: v.cuda() for k, v in coefficients.rows([0] * 64).fields().items()})

    def run() -> None:
        nonlocal on_gpu
        on_gpu = render(gpu, batch, SIZE)
        torch.cuda.synchronize()

    seconds = _median(run)
    print(f"CUDA ({torch.cuda.get_device_name()}): {1e3 * seconds:.1f} ms for 64 images, {64 / seconds:.0f} images/s")
    different = float((on_gpu.faces[0].cpu() != on_cpu.faces[0]).double().mean())
    return _check("share of pixels with another triangle on CUDA", different, 1e-3)


def rasterize_by_loop(flat: torch.Tensor, depth: torch.Tensor, triangles: torch.Tensor, size: int) -> np.ndarray:
    """Reference rasterizer: test each pixel of the bounding box of each triangle.

    Corners are rounded to 1/256 px. Of two triangles at equal depth, the first is visible.
    """
    points, inverse = np.round(flat.numpy() * 256).astype(np.int64), 1 / depth.numpy()
    faces, nearest = np.full((size, size), -1), np.full((size, size), np.inf, np.float32)
    for number, corners in enumerate(triangles.tolist()):
        a, b, c = points[corners]
        area = -((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
        low = np.maximum(np.ceil((np.minimum(np.minimum(a, b), c) - 128) / 256), 0).astype(int)
        high = np.minimum(np.floor((np.maximum(np.maximum(a, b), c) - 128) / 256), size - 1).astype(int)
        if area <= 0 or (high < low).any():
            continue
        x = np.arange(low[0], high[0] + 1)[None] * 256 + 128
        y = np.arange(low[1], high[1] + 1)[:, None] * 256 + 128
        values, inside = [], np.ones(np.broadcast_shapes(x.shape, y.shape), bool)
        for p, q in ((a, b), (b, c), (c, a)):
            value = (q[1] - p[1]) * (x - p[0]) - (q[0] - p[0]) * (y - p[1])
            owned = q[1] > p[1] or (q[1] == p[1] and q[0] <= p[0])
            inside &= value >= 0 if owned else value > 0
            values.append(value.astype(np.float32))
        scaled = values[1] * inverse[corners[0]] + values[2] * inverse[corners[1]] + values[0] * inverse[corners[2]]
        with np.errstate(divide="ignore"):
            distance = np.float32(area) / scaled
        patch = np.s_[low[1] : high[1] + 1, low[0] : high[0] + 1]
        hit = inside & (distance < nearest[patch])
        nearest[patch][hit], faces[patch][hit] = distance[hit], number
    return faces


def rotated(model: MorphableModel) -> Coefficients:
    """Build coefficients of the mean face with small pitch, yaw and roll."""
    return replace(neutral(model.name, model.sizes), angles=torch.tensor([[0.1, 0.3, 0.05]]))


def _project(model: MorphableModel, coefficients: Coefficients) -> tuple[torch.Tensor, torch.Tensor]:
    c = coefficients
    return project(place(model.vertices(c.identity, c.expression), c.angles, c.translation), SIZE)


def _model(ict: Path) -> MorphableModel:
    if ict.is_dir():
        return load_ict(ict, face_only=True)
    if ict.is_file():
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(ict) as archive:
                archive.extractall(folder)
            start = time.perf_counter()
            load_ict(Path(folder))
            print(f"ICT-FaceKit with 3 + 4 modes loads in {time.perf_counter() - start:.2f} s (limit: 2)")
            return load_ict(Path(folder), face_only=True)
    return built_in_morphable_model()


def _median(work: Callable[[], object], times: int = 15) -> float:
    work()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[times // 2]


def _check(name: str, value: float, limit: float) -> bool:
    print(f"{'met ' if value <= limit else 'MISS'}  {name:62} {value:8.4g}  (<= {limit:g})")
    return value <= limit


if __name__ == "__main__":
    sys.exit(main())
