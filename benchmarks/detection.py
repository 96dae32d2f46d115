"""Recall of each detector on collages: sizes, turns, crowds.

    python benchmarks/detection.py [FACES] [--detector NAME FILE ...]

FACES is a folder of portraits (default ../shared/data/synthetic_faces beside the repository). Detectors whose files are
not named are left out. A face counts as found when a detected box's centre lies inside it; everything else found is a
false
face.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.detect import Detector, detect_faces, open_detector
from faceveil.pipelines.faces.sampling import resize
from faceveil.pipelines.images import load_picture

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "synthetic_faces"
# The face's box is about 70 % of a portrait's side.
FACE_SHARE = 0.7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--detector", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    options = parser.parse_args()
    paths = sorted(options.faces.glob("*.webp"))[::37]
    if len(paths) < 60:
        sys.exit(f"{options.faces} holds too few portraits")
    portraits = [load_picture(p).pixels for p in paths[:60]]
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
        (f"12 faces turned by {turn} degrees", _grid(portraits[:12], 110, 4, turn))
        for turn in (30, 60, 90, 135, 180, 270)
    ]
    return rows


def _grid(
    portraits: list[torch.Tensor], side: int, columns: int, turn: float = 0.0
) -> tuple[torch.Tensor, list[np.ndarray]]:
    from kornia.geometry.transform import rotate

    cell = round(side / FACE_SHARE)
    # Room for the corners of turned portraits.
    pitch = round(cell * (1.45 if turn % 90 else 1.05))
    rows = -(-len(portraits) // columns)
    canvas = torch.full((1, 3, max(rows * pitch, 240), max(columns * pitch, 240)), 0.45)
    centres = []
    for i, portrait in enumerate(portraits):
        tile = resize(portrait, cell, cell)
        if turn:
            pad = (pitch - cell) // 2
            tile = rotate(torch.nn.functional.pad(tile - 0.45, (pad,) * 4), torch.tensor(float(turn))) + 0.45
        y, x = (i // columns) * pitch, (i % columns) * pitch
        height, width = min(tile.shape[-2], pitch), min(tile.shape[-1], pitch)
        canvas[..., y : y + height, x : x + width] = tile[..., :height, :width]
        centres.append(np.array([x + width / 2, y + height / 2]))
    return canvas.clamp(0, 1), [*centres, np.array([side, side])]


def _score(detector: Detector, canvas: torch.Tensor, places: list[np.ndarray]) -> str:
    *centres, size = places
    start = time.perf_counter()
    found = detect_faces(canvas, detector)
    seconds = time.perf_counter() - start
    middles = [np.array([(f.box[0] + f.box[2]) / 2, (f.box[1] + f.box[3]) / 2]) for f in found]
    hit = sum(any(np.abs(m - c).max() < size[0] / 2 for m in middles) for c in centres)
    false = sum(all(np.abs(m - c).max() >= size[0] / 2 for c in centres) for m in middles)
    return f"{hit}/{len(centres)}, {false} false, {seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
