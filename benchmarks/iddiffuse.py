"""IDDiffuse: does one person stay one synthetic person over photos, and how far is it from the original?

    python benchmarks/iddiffuse.py CHECKPOINT --bank BANK [--people PEOPLE] [--photos 6] [--judge FILE.py]

PEOPLE holds files whose names begin with a person and an underscore, such as p01_front_1.webp; profiles are left out.
The photos of a person are mapped together, as --same-person does. Printed for each recognizer: mean cosine of the
results of one person with each other, with their originals, and of the originals with each other. The last line counts
the people whose results agree with each other more than with the originals, by every recognizer that took no part in
the training.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.align import crop, five_points, similarity
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.iddiffuse.pairs import nearest_person
from faceveil.pipelines.methods.iddiffuse.spec import IDDiffuseOptions
from faceveil.pipelines.methods.registry import open_method
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from torch import Tensor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARE, TILE = 0.9, 128


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--people", type=Path, default=DATA / "people")
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--judge", type=Path, help="recognizer as faceveil train embedder --teacher takes it")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    method = open_method("iddiffuse", IDDiffuseOptions(options.checkpoint, options.bank, options.steps))
    recognizers = recognizers_of(options.judge)
    print(f"{'person':8}{'people':>7}" + "".join(f"{name:>36}" for name in recognizers))
    print(" " * 15 + f"{'results, to originals, originals':>36}" * len(recognizers))
    agreeing, rows, count = 0, [], 0
    for person, paths in sorted(people_of(options.people).items()):
        portraits = [found for path in paths if (found := portrait(path)) is not None][: options.photos]
        prepared = [method.prepare(View(image, face, np.zeros(0))) for image, face in portraits]
        alone = {nearest_person(method.bank, p.own, False) for p in prepared}
        identity = method.sample_identity(prepared, 0)
        results = [rendered(method, p, identity) for p in prepared]
        cells, agrees = [], []
        for name, embed in recognizers.items():
            new, old = (
                np.stack([embed(image, face.points) for image, (_, face) in zip(images, portraits, strict=True)])
                for images in (results, [image for image, _ in portraits])
            )
            among, between, before = pairwise_mean(new), float(np.mean(new @ old.T)), pairwise_mean(old)
            cells.append(f"{among:20.3f} {between:7.3f} {before:7.3f}")
            if name != method.checkpoint.space:
                agrees.append(among > between)
        agreeing += all(agrees)
        count += 1
        print(f"{person:8}{len(alone):7}" + "".join(cells), flush=True)
        rows += [[_tile(i) for i, _ in portraits], [_tile(i) for i in results]]
    if options.sheet is not None:
        width = max(len(row) for row in rows)
        blank = torch.ones(1, 3, TILE, TILE)
        strips = [torch.cat([*row, *[blank] * (width - len(row))], 3) for row in rows]
        to_pillow(torch.cat(strips, 2)).save(options.sheet)
    met = agreeing >= SHARE * count
    print(
        f"{'met ' if met else 'MISS'}  results agree with each other more than with the originals:"
        f" {agreeing} of {count} people ({SHARE:.0%})"
    )
    return 0 if met else 1


def people_of(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob("*.webp")):
        if "profile" not in path.stem:
            found[path.stem.split("_")[0]].append(path)
    return found


def portrait(path: Path) -> tuple[Tensor, Face] | None:
    image = load_image(path).pixels
    found = [face for face in detect_faces(image, rotated=False) if face.landmarks]
    return (image, max(found, key=lambda face: face.area)) if found else None


def rendered(method: object, prepared: object, identity: object) -> Tensor:
    change = method.render(prepared, identity, 1.0)  # type: ignore[attr-defined]
    new, (x, y) = prepared.image.clone(), change.origin  # type: ignore[attr-defined]
    new[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
    return new


def pairwise_mean(vectors: np.ndarray) -> float:
    return float(np.mean([a @ b for a, b in combinations(vectors, 2)]))


def recognizers_of(judge: Path | None) -> dict:
    found = {r.name: (lambda image, points, r=r: unit(r.embed(image, points))) for r in built_in_recognizers()}
    if judge is not None:
        teacher = open_teacher(judge)

        def embed(image: Tensor, points: np.ndarray) -> np.ndarray:
            transform = similarity(five_points(points), teacher.template)
            return unit(teacher.embed(crop(image, transform, teacher.size))[0].detach().double().numpy())

        found["judge"] = embed
    return found


def _tile(image: Tensor) -> Tensor:
    side = min(image.shape[-2:])
    return torch.nn.functional.interpolate(image[..., :side, :side], (TILE, TILE), mode="bilinear", antialias=True)


if __name__ == "__main__":
    sys.exit(main())
