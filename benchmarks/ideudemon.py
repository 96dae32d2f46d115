"""IDEudemon without downloads: what each scale of the noise does, and whether the restorer beats filled gaps.

    python benchmarks/ideudemon.py PHOTOS [--judge FILE.py] [--held-out PORTRAITS] [--sheet SHEET.png]

Recognizers compare each photo with its result; the judge takes part in nothing. Pose and expression are those of the 3D
model, fitted to the photo and to the result. PORTRAITS are faces that the restorer was not trained on: each is drawn
with its own geometry, and the restored face is compared with the photo.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.align import crop, five_points, similarity
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.camera import rotation
from faceveil.pipelines.geometry.coefficients import Coefficients
from faceveil.pipelines.geometry.fitting import Fitter
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.methods.base import Change, View
from faceveil.pipelines.methods.ideudemon.hybrid import fill_gaps, hybrid_image
from faceveil.pipelines.methods.ideudemon.method import IDEudemonMethod
from faceveil.pipelines.methods.ideudemon.pairs import read_face
from faceveil.pipelines.methods.ideudemon.restorer import BUILT_IN, load_restorer, open_restorer
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from faceveil.pipelines.training.perceptual import EmbedderFeatures
from torch import Tensor

STRENGTHS = (0.25, 0.5, 1.0, 1.5)
SEED, SIDE = 1, 256
POSE_LIMIT = 3.0
Portrait = tuple[Tensor, Face]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--judge", type=Path, help="recognizer as faceveil train embedder --teacher takes it")
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--restorer", type=Path, default=BUILT_IN)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    model = built_in_morphable_model()
    methods = {
        "photo": IDEudemonMethod(model),
        "drawn": IDEudemonMethod(model, open_restorer(options.restorer)),
    }
    portraits = [found for path in _images(options.photos) if (found := _portrait(path)) is not None]
    recognizers = _recognizers(options.judge)
    passed = [sweep(name, method, portraits, recognizers, options.sheet) for name, method in methods.items()]
    if options.held_out is not None:
        passed.append(restoration(options.restorer, _images(options.held_out)))
    return 0 if all(passed) else 1


def sweep(name: str, method: IDEudemonMethod, portraits: list[Portrait], recognizers: dict, sheet: Path | None) -> bool:
    """Distances, pose and expression by strength."""
    fitter, rows, means = Fitter(method.model), [], []
    print(f"texture {name}: {len(portraits)} photos, seed {SEED}")
    print("  strength" + "".join(f"{r:>12}" for r in recognizers) + "   under each threshold   pose, degrees   EXP")
    results: list[list[Tensor]] = [[image] for image, _ in portraits]
    prepared = [method.prepare(View(image, face, np.zeros(0))) for image, face in portraits]
    before = [fitter(image, face.points).coefficients for image, face in portraits]
    own = {r: [embed(image, face.points) for image, face in portraits] for r, (embed, _) in recognizers.items()}
    for strength in STRENGTHS:
        distances: dict[str, list[float]] = {r: [] for r in recognizers}
        poses, expressions = [], []
        for i, (image, _) in enumerate(portraits):
            change = method.render(prepared[i], method.sample_identity([prepared[i]], SEED), strength)
            new = shown(image, change)
            results[i].append(new)
            for r, (embed, _) in recognizers.items():
                distances[r].append(float(np.linalg.norm(embed(new, change.points) - own[r][i])))
            found = [f for f in detect_faces(new, rotated=False) if f.landmarks]
            if found:
                after = fitter(new, max(found, key=lambda f: f.area).points).coefficients
                poses.append(turned(before[i], after))
                expressions.append(float((before[i].expression - after.expression).norm()))
        row = [float(np.mean(distances[r])) for r in recognizers]
        above = [float(np.mean(np.array(distances[r]) > limit)) for r, (_, limit) in recognizers.items()]
        means.append(row)
        print(
            f"  {strength:8.2f}"
            + "".join(f"{v:12.3f}" for v in row)
            + "   "
            + " ".join(f"{v:6.0%}" for v in above)
            + f"   {np.mean(poses):13.2f}   {np.mean(expressions):5.2f}   found again: {len(poses)}"
        )
        rows.append(float(np.mean(poses)))
    if sheet is not None:
        strips = [torch.cat([_small(image) for image in row], 3) for row in results]
        to_pillow(torch.cat(strips, 2)).save(sheet.with_stem(f"{sheet.stem}-{name}"))
    # A drawn face is another one at any scale: its distances hardly depend on the noise.
    rising = name == "drawn" or all(a < b for row in zip(*means, strict=True) for a, b in pairwise(row))
    met = rising and max(rows) <= POSE_LIMIT
    print(
        f"{'met ' if met else 'MISS'}  distances rise with the scale: {rising}; pose stays within {POSE_LIMIT:g}"
        " degrees"
    )
    return met


def restoration(path: Path, portraits: list[Path]) -> bool:
    """Mean absolute error and feature difference to the photo inside the face: gaps filled, and restored."""
    network, features = load_restorer(path), EmbedderFeatures()
    size = network.config.size
    found: list[tuple[list[float], list[float]]] = []
    for portrait in portraits:
        for item in read_face(portrait, size, 0.0, 0):
            square, drawn = (torch.from_numpy(item[k]).float()[None] / 255 for k in ("square", "drawn"))
            face, drawn_face = torch.from_numpy(item["masks"]).float()[None].split(1, 1)
            hybrid = fill_gaps(hybrid_image(square, face, drawn, drawn_face), face * (1 - drawn_face))
            with torch.no_grad():
                images = (hybrid, network(hybrid).clamp(0, 1))
                goals = features(square * 2 - 1)
                near = [
                    float(
                        np.mean([float((a - b).abs().mean()) for a, b in zip(features(i * 2 - 1), goals, strict=True)])
                    )
                    for i in images
                ]
            error = [float(((i - square).abs() * face).sum() / (3 * face.sum())) for i in images]
            found.append((error, near))
    errors, nearness = (np.mean([f[k] for f in found], 0) for k in (0, 1))
    met = bool(errors[1] < errors[0] and nearness[1] < nearness[0])
    print(
        f"{'met ' if met else 'MISS'}  restorer against filled gaps on {len(found)} faces: error {errors[1]:.4f}"
        f" against {errors[0]:.4f}, features {nearness[1]:.4f} against {nearness[0]:.4f}"
    )
    return met


def _apart(features: list[Tensor], goals: list[Tensor]) -> float:
    return float(np.mean([float((a - b).abs().mean()) for a, b in zip(features, goals, strict=True)]))


def shown(image: Tensor, change: Change) -> Tensor:
    new, (x, y) = image.clone(), change.origin
    new[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    return new


def turned(a: Coefficients, b: Coefficients) -> float:
    """Angle between two poses in degrees."""
    difference = rotation(a.angles)[0] @ rotation(b.angles)[0].T
    return float(torch.rad2deg(torch.acos(((difference.trace() - 1) / 2).clamp(-1, 1))))


def _recognizers(judge: Path | None) -> dict:
    found = {r.name: ((lambda image, points, r=r: r.embed(image, points)), r.threshold) for r in built_in_recognizers()}
    if judge is not None:
        teacher = open_teacher(judge)

        def embed(image: Tensor, points: np.ndarray) -> np.ndarray:
            transform = similarity(five_points(points), teacher.template)
            return unit(teacher.embed(crop(image, transform, teacher.size))[0].detach().double().numpy())

        found["judge"] = (embed, float("nan"))
    return found


def _images(folder: Path) -> list[Path]:
    return sorted(p for suffix in ("jpg", "png", "webp") for p in folder.glob(f"*.{suffix}"))


def _portrait(path: Path) -> Portrait | None:
    image = load_image(path).pixels
    found = [face for face in detect_faces(image, rotated=False) if face.landmarks]
    return (image, max(found, key=lambda face: face.area)) if found else None


def _small(image: Tensor) -> Tensor:
    side = min(image.shape[-2:])
    return torch.nn.functional.interpolate(image[..., :side, :side], (SIDE, SIDE), mode="bilinear", antialias=True)


if __name__ == "__main__":
    sys.exit(main())
