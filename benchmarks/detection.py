"""Measure the recall of each detector on collages of different face sizes, rotations and numbers of faces.

    python benchmarks/detection.py [FACES] [--detector NAME FILE ...]

FACES is a folder of portraits (default ../shared/data/synthetic_faces beside the repository). CenterFace and
dlib are always measured, other detectors only when --detector gives their file. A face counts as detected when the
center of a detected box lies inside it. All other detections are false.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.detectors import Detector, open_detector
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.resample import resize

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "synthetic_faces"
# The side of the face box is about 70 % of the side of a portrait.
FACE_SHARE = 0.7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--detector", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    options = parser.parse_args()
    paths = sorted(options.faces.glob("*.webp"))[::37]
    if len(paths) < 60:
        sys.exit(f"{options.faces} contains fewer than 60 portraits; give another folder")
    portraits = [load_image(p).pixels for p in paths[:60]]
    detectors = {"centerface": open_detector("centerface"), "dlib": open_detector("dlib")}
    detectors |= {f"{name} {Path(file).name}": open_detector(name, Path(file)) for name, file in options.detector}
    print(f"{'collage':34}" + "".join(f"{name:>26}" for name in detectors))
    for label, collage in collages(portraits):
        cells = [f"{_score(detector, *collage):>26}" for detector in detectors.values()]
        print(f"{label:34}" + "".join(cells))
    return 0


def collages(portraits: list[torch.Tensor]) -> list[tuple[str, tuple[torch.Tensor, list[np.ndarray]]]]:
    rows = [(f"60 faces of {side} px", _grid(portraits, side, 10)) for side in (16, 24, 40, 80, 160)]
    rows += [("4 faces of 600 px", _grid(portraits[:4], 600, 2)), ("one face, 1400 px", _grid(portraits[:1], 1400, 1))]
    rows += [
        (f"12 faces rotated by {rotation} degrees", _grid(portraits[:12], 110, 4, rotation))
        for rotation in (30, 60, 90, 135, 180, 270)
    ]
    return rows


def _grid(
    portraits: list[torch.Tensor], side: int, columns: int, rotation: float = 0.0
) -> tuple[torch.Tensor, list[np.ndarray]]:
    from kornia.geometry.transform import rotate

    cell = round(side / FACE_SHARE)
    # Leave a margin for the corners of rotated portraits.
    spacing = round(cell * (1.45 if rotation % 90 else 1.05))
    rows = -(-len(portraits) // columns)
    canvas = torch.full((1, 3, max(rows * spacing, 240), max(columns * spacing, 240)), 0.45)
    centers = []
    for i, portrait in enumerate(portraits):
        tile = resize(portrait, cell, cell)
        if rotation:
            pad = (spacing - cell) // 2
            tile = rotate(torch.nn.functional.pad(tile - 0.45, (pad,) * 4), torch.tensor(float(rotation))) + 0.45
        y, x = (i // columns) * spacing, (i % columns) * spacing
        height, width = min(tile.shape[-2], spacing), min(tile.shape[-1], spacing)
        canvas[..., y : y + height, x : x + width] = tile[..., :height, :width]
        centers.append(np.array([x + width / 2, y + height / 2]))
    return canvas.clamp(0, 1), [*centers, np.array([side, side])]


def _score(detector: Detector, canvas: torch.Tensor, centers_and_size: list[np.ndarray]) -> str:
    *centers, size = centers_and_size
    start = time.perf_counter()
    found = detect_faces(canvas, detector)
    seconds = time.perf_counter() - start
    box_centers = [np.array([(f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2]) for f in found]
    hit = sum(any(np.abs(m - c).max() < size[0] / 2 for m in box_centers) for c in centers)
    false = sum(all(np.abs(m - c).max() >= size[0] / 2 for c in centers) for m in box_centers)
    return f"{hit}/{len(centers)}, {false} false, {seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
