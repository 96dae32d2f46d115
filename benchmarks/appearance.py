"""The built-in model on real photos: privacy, preserved attributes, seconds and memory.

    python benchmarks/appearance.py [PHOTOS] [--seeds 0,1,2] [--sheet SHEET.png] [--only bars|persons|stages|large]

PHOTOS defaults to ../shared/data/photos next to the repository; the public-domain sample portrait is always included.
The sheet contains faces: do not add it to the repository.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A second linear algebra thread of numpy would busy-wait, and that would count as CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face, eye_opening, mouth_gap, yaw_proxy
from faceveil.pipelines.imaging.image import LoadedImage, as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.jobs.photo import anonymize_batch, search_identity
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--only", choices=["bars", "persons", "stages", "large"])
    options = parser.parse_args()
    parts: dict[str, Callable[[], bool]] = {
        "bars": lambda: bars(options.photos, [int(s) for s in options.seeds.split(",")], options.sheet),
        "persons": lambda: persons(options.photos),
        "stages": stages,
        "large": large,
    }
    chosen = [options.only] if options.only else list(parts)
    return 0 if all([parts[name]() for name in chosen]) else 1


def bars(folder: Path, seeds: list[int], sheet: Path | None) -> bool:
    """Replace the largest face of each photo with each seed, and compare the measurements with their limits."""
    images = {"sample": as_image(astronaut())}
    images |= {p.stem: load_image(p) for p in sorted(folder.glob("*.jpg"))} if folder.is_dir() else {}
    rows, tiles, redacted, lost, outside = [], [], 0, 0, 0
    for name, image in images.items():
        face = _largest(image)
        original = default_recognizer().embed(image.pixels, face.points)
        tiles.append([_tile(image.pixels, face)])
        for seed in seeds:
            result = anonymize_batch(image.pixels, Settings(seed=seed))
            outside += int(((result.pixels != image.pixels).any(1, keepdim=True) & (result.mask == 0)).sum())
            tiles[-1].append(_tile(result.pixels, face))
            report = next(r for r in result.report.faces if r.box == face.box)
            if report.outcome != "replaced":
                redacted += 1
                print(f"{name:18} seed {seed}: {report.outcome}, {report.reason}")
                continue
            detected = _nearest(result.pixels, face)
            if detected is None:
                lost += 1
                print(f"{name:18} seed {seed}: not detected again")
                continue
            distance = float(np.linalg.norm(default_recognizer().embed(result.pixels, detected.points) - original))
            moves = [abs(f(detected.points) - f(face.points)) for f in (yaw_proxy, mouth_gap, eye_opening)]
            rows.append([distance, *moves])
            print(
                f"{name:18} seed {seed}: L2 {distance:.2f}  yaw {moves[0]:.3f}  mouth {moves[1]:.3f}  eyes"
                f" {moves[2]:.3f}  tries {report.tries}"
            )
    table = np.array(rows)
    total = len(images) * len(seeds)
    if sheet:
        _save_sheet(tiles, sheet)
    print(f"\n{len(images)} photos x {len(seeds)} seeds")
    return all(
        [
            _bar("dlib L2 >= 0.60, share", float((table[:, 0] >= 0.6).mean()), 1.0, at_least=True),
            _bar("dlib L2, minimum", float(table[:, 0].min()), 0.60, at_least=True),
            _bar("dlib L2, mean", float(table[:, 0].mean()), 0.80, at_least=True),
            _bar("redacted, share", redacted / total, 0.05),
            _bar("not detected again, share", lost / total, 0.0),
            _bar("|yaw proxy| change, mean IOD", float(table[:, 1].mean()), 0.025),
            _bar("mouth gap change, mean IOD", float(table[:, 2].mean()), 0.04),
            _bar("eye opening change, mean", float(table[:, 3].mean()), 0.015),
            _bar("changed pixels outside the mask", outside, 0),
        ]
    )


def persons(folder: Path) -> bool:
    """Render one identity on two photos of one person."""
    own, between = [], []
    for person in "abc":
        paths = [folder / f"person_{person}_{i}.jpg" for i in (1, 2)]
        if not all(p.is_file() for p in paths):
            continue
        images = [load_image(p) for p in paths]
        faces = [_largest(p) for p in images]
        originals = [default_recognizer().embed(p.pixels, f.points) for p, f in zip(images, faces, strict=True)]
        for seed in (0, 1):
            settings = Settings(seed=seed, tries=1)
            identity = search_identity(images, settings, AppearanceMethod())
            results = [anonymize_batch(p.pixels, settings, identity=identity) for p in images]
            embeddings = []
            for result, face, original in zip(results, faces, originals, strict=True):
                detected = _nearest(result.pixels, face)
                if detected is None:
                    print(f"person {person} seed {seed}: not detected again")
                    return False
                embeddings.append(default_recognizer().embed(result.pixels, detected.points))
                own.append(float(np.linalg.norm(embeddings[-1] - original)))
            between.append(float(np.linalg.norm(embeddings[0] - embeddings[1])))
            print(
                f"person {person} seed {seed}: to the originals {own[-2]:.2f} and {own[-1]:.2f}, to each other"
                f" {between[-1]:.2f}"
            )
    if not own:
        print("no pairs of one person in the folder: skipped")
        return True
    return all(
        [
            _bar("one identity in two photos: L2 to the original, minimum", min(own), 0.60, at_least=True),
            _bar("one identity in two photos: L2 to each other, mean", float(np.mean(between)), 0.45),
        ]
    )


def stages() -> bool:
    """Measure the CPU seconds of each stage for one 512 px face on one thread, with and without search."""
    torch.set_num_threads(1)
    image = as_image(astronaut())
    method, single = AppearanceMethod(), AppearanceMethod(trials=1)
    anonymize_batch(image.pixels, Settings(), method=single)
    face, embed = _largest(image), default_recognizer().embed
    view = View(image.pixels, face, embed(image.pixels, face.points))
    prepared = method.prepare(view)
    identity = single.sample_identity([prepared], 0)
    seconds = {
        "detect, all scales and rotations": _cpu(lambda: detect_faces(image.pixels)),
        "embed": _cpu(lambda: embed(image.pixels, face.points)),
        "prepare": _cpu(lambda: method.prepare(view)),
        "sample one identity": _cpu(lambda: single.sample_identity([prepared], 0)),
        "search, 16 to 20 renderings": _cpu(lambda: method.sample_identity([prepared], 0)),
        "render": _cpu(lambda: method.render(prepared, identity, 1.0)),
    }
    for name, value in seconds.items():
        print(f"{name:32} {value:.3f} CPU s")
    shared = seconds["embed"] + seconds["prepare"] + seconds["render"]
    return all(
        [
            _bar("a face with search, CPU s", shared + seconds["search, 16 to 20 renderings"], 2.5),
            _bar("a face, single shot, CPU s", shared + seconds["sample one identity"], 0.4),
        ]
    )


def large() -> bool:
    """Measure seconds and peak memory for a 12-megapixel photo with six faces, in a separate process."""
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.png"
        portrait = torch.nn.functional.interpolate(
            as_image(astronaut()).pixels[..., :440, :440], size=(1300, 1300), mode="bicubic"
        ).clamp(0, 1)
        canvas = torch.full((1, 3, 3000, 4000), 0.4)
        for i in range(6):
            y, x = 100 + 1450 * (i // 3), 20 + 1330 * (i % 3)
            canvas[..., y : y + 1300, x : x + 1300] = portrait if i % 2 else portrait.flip(-1)
        from faceveil.pipelines.imaging.save import save_image

        save_image(LoadedImage(canvas), path)
        code = "import sys; from faceveil.pipelines.cli import main; sys.exit(main(sys.argv[1:]))"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", code, "anonymize", str(path), "-o", str(Path(folder) / "out.png")], check=True
        )
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return all([_bar("12 megapixels, 6 faces, s", seconds, 30.0), _bar("12 megapixels, 6 faces, peak GiB", peak, 2.0)])


def _bar(name: str, value: float, limit: float, at_least: bool = False) -> bool:
    met = value >= limit if at_least else value <= limit
    print(f"{'met ' if met else 'MISS'}  {name:58} {value:8.3f}  ({'>=' if at_least else '<='} {limit:g})")
    return met


def _cpu(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def _largest(image: LoadedImage) -> Face:
    return detect_faces(image.pixels)[0]


def _nearest(pixels: torch.Tensor, face: Face) -> Face | None:
    """Detect the face at the position of ``face``."""
    center = np.array(face.box).reshape(2, 2).mean(0)
    found = [
        f
        for f in detect_faces(pixels)
        if f.landmarks and np.linalg.norm(np.array(f.box).reshape(2, 2).mean(0) - center) < face.size / 2
    ]
    return found[0] if found else None


def _tile(pixels: torch.Tensor, face: Face, side: int = 320) -> torch.Tensor:
    from faceveil.pipelines.faces.align import box_transform, crop

    return crop(pixels, box_transform(face.box, side, margin=0.7), side)[0]


def _save_sheet(tiles: list[list[torch.Tensor]], path: Path) -> None:
    from faceveil.pipelines.imaging.save import save_image

    rows = [torch.cat(row, -1) for row in tiles]
    save_image(LoadedImage(torch.cat(rows, -2)[None]), path)


if __name__ == "__main__":
    sys.exit(main())
