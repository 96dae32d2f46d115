"""Fitting: errors on synthetic ground truth, landmark errors on photos, and run time.

    python benchmarks/geometry.py [PHOTOS] [--faces N] [--sheet SHEET.png] [--model ICT-FaceKit] [--model BFM.mat ...]

The built-in model is always measured; --model adds others, on the photos.

The sheet shows the aligned square of each photo next to the same square with the fitted face rendered over it. Inspect
it, and do not commit it to the repository.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.align import apply, crop, invert
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.camera import rotation
from faceveil.pipelines.geometry.coefficients import Coefficients, neutral
from faceveil.pipelines.geometry.fitting import SIDE, Fitter, project_landmarks
from faceveil.pipelines.geometry.morphable import MorphableModel
from faceveil.pipelines.geometry.readers import load_morphable
from faceveil.pipelines.geometry.renderer import render
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.viz.geometry import render_styled
from PIL import Image

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=DATA / "photos")
    parser.add_argument("--faces", type=int, default=20, help="synthetic faces")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--model", type=Path, action="append", default=[])
    options = parser.parse_args()
    model = built_in_morphable_model()
    passed = [synthetic(model, Fitter(model), options.faces)]
    for each in (model, *(load_morphable(path) for path in options.model)):
        print(f"{each.name}: {len(each.mean)} vertices; {each.sizes} identity, expression and texture modes")
        passed.append(photos(each, Fitter(each), options.photos, options.sheet))
    return 0 if all(passed) else 1


def synthetic(model: MorphableModel, fitter: Fitter, count: int) -> bool:
    """Fit random faces, with a yaw of up to 35 degrees, rendered at 224 px, from their landmarks and image."""
    truth = random_faces(model, count)
    images, points = render(model, truth, SIDE).image.clamp(0, 1), project_landmarks(model, truth).double().numpy()
    landmarks, inner, poses, shapes = [], [], [], []
    for i in range(count):
        found = fitter(images[i : i + 1], points[i])
        c = found.coefficients
        back = apply(invert(found.transforms[0].double().numpy()), project_landmarks(model, c)[0].double().numpy())
        squared = ((back - points[i]) ** 2).sum(1)
        landmarks.append(squared.mean())
        inner.append(squared[17:].mean())
        difference = rotation(c.angles)[0] @ rotation(truth.angles[i : i + 1])[0].T
        poses.append(math.degrees(math.acos(min(1.0, float((difference.trace() - 1) / 2)))))
        shapes.append(
            float(
                ((c.identity - truth.identity[i : i + 1]) @ model.identity.flatten(1))
                .view(-1, 3)
                .square()
                .sum(1)
                .mean()
            )
        )
    prior = float(model.identity.square().sum(2).mean(1).sum().sqrt())
    return all(
        [
            _check(f"landmarks, rms px of {count} faces", math.sqrt(np.mean(landmarks)), 0.5),
            _check("landmarks without the jaw, rms px", math.sqrt(np.mean(inner)), 0.5),
            _check("pose, mean degrees", float(np.mean(poses)), 1.5),
            _check("pose, maximum degrees", max(poses), 1.5),
            _check(
                f"identity, rms mm at the vertices (prior {100 * prior:.2f})",
                100 * math.sqrt(np.mean(shapes)),
                100 * prior / 3,
            ),
        ]
    )


def photos(model: MorphableModel, fitter: Fitter, folder: Path, sheet: Path | None) -> bool:
    """Fit the first face of each photo, and measure landmark error and run time."""
    paths = sorted(p for suffix in ("jpg", "webp", "png") for p in folder.glob(f"*.{suffix}"))
    images = [load_image(p).pixels for p in paths] + [as_image(astronaut()).pixels]
    errors, seconds, tiles = [], [], []
    for image in images:
        found_faces = [face for face in detect_faces(image) if face.landmarks]
        if not found_faces:
            continue
        points = max(found_faces, key=lambda face: face.area).points
        start = time.perf_counter()
        found = fitter(image, points)
        seconds.append(time.perf_counter() - start)
        errors.append(float(found.errors))
        square = crop(image, found.transforms[0].double().numpy(), SIDE)
        rendered, mask = render_styled(model, found.coefficients, "shaded", SIDE)
        tiles.append(torch.cat([square, torch.lerp(square, rendered, mask * 0.9)], 3)[0])
    if sheet is not None:
        rows = [
            torch.cat((tiles[i : i + 4] + [torch.zeros_like(tiles[0])] * 4)[:4], 2) for i in range(0, len(tiles), 4)
        ]
        Image.fromarray((torch.cat(rows, 1).movedim(0, -1).clamp(0, 1) * 255).byte().numpy()).save(sheet)
    return all(
        [
            _check(f"landmark error of {len(errors)} photos, mean IOD", float(np.mean(errors)), 0.02),
            _check("landmark error, maximum IOD", max(errors), 0.03),
            _check("seconds per face, median", float(np.median(seconds)), 3.0),
            _check("seconds per face, maximum", max(seconds), 3.0),
        ]
    )


def random_faces(model: MorphableModel, count: int, seed: int = 0) -> Coefficients:
    """Sample random faces under random light, with a yaw of up to 35 degrees."""
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int, spread: float) -> torch.Tensor:
        return torch.randn(count, size, generator=generator) * spread

    k, e, t = model.sizes
    angles = torch.stack(
        [normal(1, 0.15)[:, 0], (torch.rand(count, generator=generator) - 0.5) * 1.2, normal(1, 0.1)[:, 0]], 1
    )
    return replace(
        neutral(model.name, model.sizes, count),
        identity=normal(k, 1.0),
        expression=normal(e, 0.7),
        texture=normal(t, 0.7),
        lighting=normal(27, 0.1),
        angles=angles,
        translation=normal(3, 1.0) * torch.tensor([0.05, 0.05, 0.3]),
    )


def _check(name: str, value: float, limit: float) -> bool:
    print(f"{'met ' if value <= limit else 'MISS'}  {name:62} {value:8.4g}  (<= {limit:.4g})")
    return value <= limit


if __name__ == "__main__":
    sys.exit(main())
