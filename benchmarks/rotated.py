"""Turned heads: the surface in space against plates in the picture, in the same run.

    python benchmarks/turned.py [FACES] [--count N] [--sheet SHEET.png]

FACES is a folder of portraits; those turned by 18 degrees or more are used, most turned first. Both ways search with
the same seed.
The sheet shows photo, plates, surface: look at it, and keep it out of the repository.
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
LEAST_TURN, MOST_TURN = 18.0, 45.0
WAYS = {"plates": float("inf"), "surface": 0.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DATA / "synthetic_faces")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    faces = turned_faces(options.faces, options.count)
    if not faces:
        print(f"no face in {options.faces.name} is turned by {LEAST_TURN:g} to {MOST_TURN:g} degrees")
        return 1
    rows = {way: [] for way in WAYS}
    tiles = []
    for picture, face, _ in faces:
        shown = [picture]
        for way, limit in WAYS.items():
            render.ROTATED_YAW = limit
            changed, figures = veiled(picture, face)
            rows[way].append(figures)
            shown.append(changed)
        tiles.append(torch.cat([_square(p) for p in shown], 2))
    turns = [t for *_, t in faces]
    print(
        f"{len(faces)} faces, turned by {min(turns):.0f} to {max(turns):.0f} degrees; distance to the original,"
        " landmarks off (IOD), change of the turn"
    )
    means = {way: np.nanmean(np.array(figures), 0) for way, figures in rows.items()}
    for way, (distance, off, turned) in means.items():
        lost = int(np.isnan(np.array(rows[way])[:, 1]).sum())
        print(f"{way:8} {distance:6.3f} {off:7.4f} {turned:7.4f}   not found again: {lost}")
    if options.sheet is not None:
        strips = [
            torch.cat((tiles[i : i + 3] + [torch.zeros_like(tiles[0])] * 3)[:3], 2) for i in range(0, len(tiles), 3)
        ]
        Image.fromarray((torch.cat(strips, 1).movedim(0, -1).clamp(0, 1) * 255).byte().numpy()).save(options.sheet)
    return 0 if means["surface"][1] <= means["plates"][1] and means["surface"][2] <= means["plates"][2] + 0.01 else 1


def turned_faces(folder: Path, count: int) -> list[tuple[Tensor, Face, float]]:
    shapes, found = load_model().shapes, []
    for portrait in find_portraits(folder):
        turn = abs(shapes.fit(Pose2D.of(portrait.points).to_frame(portrait.points)).yaw)
        if LEAST_TURN <= turn <= MOST_TURN:
            found.append((turn, portrait.path))
    faces = []
    for turn, path in sorted(found, reverse=True)[:count]:
        picture = load_image(path).pixels
        seen = [f for f in detect_faces(picture, rotated=False) if f.landmarks]
        if seen and AppearanceMethod().unsupported_reason(seen[0]) is None:
            faces.append((picture, seen[0], turn))
    return faces


def veiled(picture: Tensor, face: Face) -> tuple[Tensor, tuple[float, float, float]]:
    """The veiled picture; distance, landmark error and change of the turn as measured anew."""
    method, recognizer = AppearanceMethod(), default_recognizer()
    own = recognizer.embed(picture, face.points)
    prepared = method.prepare(View(picture, face, own))
    change = method.render(prepared, method.sample_identity([prepared], 0), 1.0)
    x, y = change.origin
    shown = picture.clone()
    shown[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    seen = fit_landmarks(
        shown, np.concatenate([change.points.min(0), change.points.max(0)]), five_points(change.points)
    )
    if seen is None:
        return shown, (float("nan"),) * 3
    off = np.linalg.norm(seen[17:] - change.points[17:], axis=1).mean() / inter_ocular(face.points)
    return shown, (
        recognizer.distance(recognizer.embed(shown, seen), own),
        float(off),
        abs(yaw_proxy(seen) - yaw_proxy(face.points)),
    )


def _square(picture: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(picture, size=(256, 256), mode="bilinear", antialias=True)[0]


if __name__ == "__main__":
    sys.exit(main())
