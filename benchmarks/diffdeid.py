"""Compare DiffDeID with blur, pixelation and the embedded default: the columns of the paper's table.

    python benchmarks/diffdeid.py [PHOTOS ...] [--checkpoint FILE] [--levels 1,5,10] [--sheet SHEET.png] [--n N]

Without a checkpoint only the other rows are computed. Columns: PSNR of the whole aligned square and outside the changed
pixels (dB); EXP, POSE, GAZE: mean distance of the fitted coefficients; ID: distance of dlib's and cosine of our
recognizer to the original (the threshold for "same person" is in the head line); FD: Frechet distance of our
recognizer's embeddings, with diagonal covariance, because a set of photos is small; lost: share of faces that are not
detected again. The sheet shows all photos with all methods. Inspect it, and do not commit it to the repository.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.align import box_transform, crop
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.faces.redact import redact
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.coefficients import Coefficients
from faceveil.pipelines.geometry.fitting import Fitter
from faceveil.pipelines.identity.lds import builtin_sampler, target_cosine
from faceveil.pipelines.imaging.formats import find_images
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import AnyMethod, View
from faceveil.pipelines.methods.diffdeid.spec import DiffDeIDOptions
from faceveil.pipelines.methods.registry import open_method
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from torch import Tensor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TILE = 160
Change = Callable[[Tensor, Face], Tensor]
"""From an image ``(1, 3, H, W)`` and its face to the changed image."""


@dataclass
class Row:
    """What one method did to one photo."""

    psnr: float
    outside: float
    exp: float
    pose: float
    gaze: float
    distance: float
    cosine: float
    embedding: np.ndarray
    lost: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path, default=[DATA / "photos", DATA / "portraits_cc0"])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--levels", default="1,5,10")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--n", type=int)
    options = parser.parse_args()
    faces = [found for path in options.photos for file in find_images(path) if (found := _face(file)) is not None]
    faces = faces[: options.n]
    methods = _methods(options.checkpoint, [int(level) for level in options.levels.split(",")])
    _levels_met(faces)
    dlib, own = built_in_recognizers()
    print(
        f"{len(faces)} photos; same person: dlib below {dlib.threshold:.2f}, {own.name} above"
        f" {1 - own.threshold**2 / 2:.2f}"
    )
    print(
        f"{'':18}{'PSNR':>7}{'outside':>9}{'EXP':>7}{'POSE':>7}{'GAZE':>7}{'dlib':>7}{'cosine':>8}{'FD':>7}{'lost':>7}"
    )

    reference = np.stack([unit(own.embed(image, face.points)) for image, face in faces])
    tiles = [[_tile(image, face) for image, face in faces]]
    for name, change in methods.items():
        changed = [change(image, face) for image, face in faces]
        rows = [_row(image, face, new) for (image, face), new in zip(faces, changed, strict=True)]
        _print(name, rows, reference)
        tiles.append([_tile(new, face) for (_, face), new in zip(faces, changed, strict=True)])
    if options.sheet:
        sheet = torch.cat([torch.cat(column, -2) for column in tiles], -1)
        to_pillow(sheet).save(options.sheet)
    return 0


def _face(path: Path) -> tuple[Tensor, Face] | None:
    image = load_image(path).pixels
    found = [face for face in detect_faces(image, rotated=False) if face.landmarks]
    return (image, max(found, key=lambda f: f.area)) if found else None


def _methods(checkpoint: Path | None, levels: list[int]) -> dict[str, Change]:
    methods: dict[str, Change] = {
        style: (lambda image, face, style=style: redact(image, face, style)[0]) for style in ("blur", "pixelate")
    }
    methods["appearance"] = _rendered(AppearanceMethod())
    for level in levels if checkpoint else []:
        options = DiffDeIDOptions(checkpoint, level=level)
        methods[f"diffdeid level {level}"] = _rendered(open_method("diffdeid", options))
    return methods


def _rendered(method: AnyMethod) -> Change:
    dlib = built_in_recognizers()[0]

    def change(image: Tensor, face: Face) -> Tensor:
        prepared = method.prepare(View(image, face, dlib.embed(image, face.points)))
        result = method.render(prepared, method.sample_identity([prepared], 7), 1.0)
        new, (x, y) = image.clone(), result.origin
        height, width = result.patch.shape[-2:]
        new[..., y : y + height, x : x + width] = result.patch
        return new

    return change


def _row(image: Tensor, face: Face, new: Tensor) -> Row:
    dlib, own = built_in_recognizers()
    before, after = _tile(image, face), _tile(new, face)
    same = (before == after).all(1, keepdim=True)
    found = [f for f in detect_faces(new, rotated=False) if f.landmarks and _near(f, face)]
    points = found[0].points if found else face.points
    a, b = _coefficients(image, face.points), _coefficients(new, points)
    vectors = [unit(own.embed(i, face.points)) for i in (image, new)]
    return Row(
        _psnr(before, after),
        _psnr(before[same.expand_as(before)], after[same.expand_as(before)]),
        float((a.expression - b.expression).norm()),
        math.degrees(float((a.angles - b.angles).norm())),
        float((a.gaze - b.gaze).norm()),
        dlib.distance(dlib.embed(image, face.points), dlib.embed(new, points)),
        float(vectors[0] @ vectors[1]),
        vectors[1],
        not found,
    )


def _near(a: Face, b: Face) -> bool:
    return float(np.linalg.norm(a.points.mean(0) - b.points.mean(0))) < b.size / 2


def _coefficients(image: Tensor, points: np.ndarray) -> Coefficients:
    return Fitter(built_in_morphable_model())(image, points).coefficients


def _tile(image: Tensor, face: Face) -> Tensor:
    return crop(image, box_transform(face.box, TILE, margin=0.35), TILE).clamp(0, 1)


def _psnr(a: Tensor, b: Tensor) -> float:
    error = float((a - b).square().mean()) if a.numel() else 0.0
    return min(99.0, -10 * math.log10(max(error, 1e-10)))


def _print(name: str, rows: list[Row], reference: np.ndarray) -> None:
    kept = [row for row in rows if not row.lost] or rows
    mean = lambda key, some: float(np.mean([getattr(row, key) for row in some]))  # noqa: E731
    vectors = np.stack([row.embedding for row in rows])
    spread = (np.sqrt(vectors.var(0)) - np.sqrt(reference.var(0))) ** 2
    distance = float(((vectors.mean(0) - reference.mean(0)) ** 2 + spread).sum())
    words = f"{name:18}{mean('psnr', rows):7.1f}{mean('outside', rows):9.1f}"
    for key in ("exp", "pose", "gaze"):
        words += f"{mean(key, kept):7.2f}"
    words += f"{mean('distance', rows):7.2f}{mean('cosine', rows):8.2f}{distance:7.3f}{mean('lost', rows):7.2f}"
    print(words, flush=True)


def _levels_met(faces: list[tuple[Tensor, Face]]) -> None:
    """Levels 1 to 10 of the identity sampler: the largest excess over all photos."""
    dlib, sampler = built_in_recognizers()[0], builtin_sampler("dlib")
    vectors = [unit(dlib.embed(image, face.points)) for image, face in faces]
    for level in (1, 4, 7, 10):
        found = [sampler.level(vector, level, seed) for seed, vector in enumerate(vectors)]
        cosine, excess = np.mean([f.cosines[0] for f in found]), max(f.excess for f in found)
        print(
            f"level {level}: target cosine {target_cosine(level):.2f}, mean {cosine:.2f}, largest excess {excess:.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
