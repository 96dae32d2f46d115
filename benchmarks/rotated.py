"""Rotated heads: compare the 3D surface with a thin-plate spline in the image, in the same run.

    python benchmarks/rotated.py [FACES] [--count N] [--sheet SHEET.png]

FACES is a folder of portraits. Those with a yaw of 18 degrees or more are used, largest yaw first. Both variants use
the same seed. The sheet has columns for photo, spline and surface. It contains faces: do not add it to the repository.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from faceveil.pipelines.faces.align import five_points
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face, inter_ocular, yaw_proxy
from faceveil.pipelines.faces.landmarks import fit_landmarks
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.methods.appearance import render
from faceveil.pipelines.methods.appearance.canonical import Pose2D
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.appearance.network import load_model
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.pipelines.training.portraits import find_portraits
from PIL import Image
from torch import Tensor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MIN_YAW, MAX_YAW = 18.0, 45.0
VARIANTS = {"spline": float("inf"), "surface": 0.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DATA / "synthetic_faces")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    faces = rotated_faces(options.faces, options.count)
    if not faces:
        print(f"no face in {options.faces.name} has a yaw of {MIN_YAW:g} to {MAX_YAW:g} degrees")
        return 1
    rows = {variant: [] for variant in VARIANTS}
    tiles = []
    for image, face, _ in faces:
        columns = [image]
        for variant, limit in VARIANTS.items():
            render.ROTATED_YAW = limit
            changed, figures = replace_face(image, face)
            rows[variant].append(figures)
            columns.append(changed)
        tiles.append(torch.cat([_square(p) for p in columns], 2))
    yaws = [t for *_, t in faces]
    print(
        f"{len(faces)} faces, yaw of {min(yaws):.0f} to {max(yaws):.0f} degrees; distance to the original, landmark"
        " error (IOD), yaw change"
    )
    means = {variant: np.nanmean(np.array(figures), 0) for variant, figures in rows.items()}
    for variant, (distance, error, yaw_change) in means.items():
        lost = int(np.isnan(np.array(rows[variant])[:, 1]).sum())
        print(f"{variant:8} {distance:6.3f} {error:7.4f} {yaw_change:7.4f}   not detected again: {lost}")
    if options.sheet is not None:
        strips = [
            torch.cat((tiles[i : i + 3] + [torch.zeros_like(tiles[0])] * 3)[:3], 2) for i in range(0, len(tiles), 3)
        ]
        Image.fromarray((torch.cat(strips, 1).movedim(0, -1).clamp(0, 1) * 255).byte().numpy()).save(options.sheet)
    return 0 if means["surface"][1] <= means["spline"][1] and means["surface"][2] <= means["spline"][2] + 0.01 else 1


def rotated_faces(folder: Path, count: int) -> list[tuple[Tensor, Face, float]]:
    """Load up to ``count`` faces with the largest yaw: image, face and yaw in degrees."""
    shapes, found = load_model().shapes, []
    for portrait in find_portraits(folder):
        yaw = abs(shapes.fit(Pose2D.of(portrait.points).to_canonical(portrait.points)).yaw)
        if MIN_YAW <= yaw <= MAX_YAW:
            found.append((yaw, portrait.path))
    faces = []
    for yaw, path in sorted(found, reverse=True)[:count]:
        image = load_image(path).pixels
        detected = [f for f in detect_faces(image, rotated=False) if f.landmarks]
        if detected and AppearanceMethod().unsupported_reason(detected[0]) is None:
            faces.append((image, detected[0], yaw))
    return faces


def replace_face(image: Tensor, face: Face) -> tuple[Tensor, tuple[float, float, float]]:
    """Replace a face; return the image, and the distance, landmark error and yaw change that are measured on it."""
    method, recognizer = AppearanceMethod(), default_recognizer()
    own = recognizer.embed(image, face.points)
    prepared = method.prepare(View(image, face, own))
    change = method.render(prepared, method.sample_identity([prepared], 0), 1.0)
    x, y = change.origin
    changed = image.clone()
    changed[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    detected = fit_landmarks(
        changed, np.concatenate([change.points.min(0), change.points.max(0)]), five_points(change.points)
    )
    if detected is None:
        return changed, (float("nan"),) * 3
    error = np.linalg.norm(detected[17:] - change.points[17:], axis=1).mean() / inter_ocular(face.points)
    return changed, (
        recognizer.distance(recognizer.embed(changed, detected), own),
        float(error),
        abs(yaw_proxy(detected) - yaw_proxy(face.points)),
    )


def _square(image: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(image, size=(256, 256), mode="bilinear", antialias=True)[0]


if __name__ == "__main__":
    sys.exit(main())
