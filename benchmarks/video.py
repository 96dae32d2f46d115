"""Leaked frames, frames per second and stability of video, beside deface on the same clip in the same run.

    python benchmarks/video.py PORTRAITS [--judge FILE.py] [--size 1280x720] [--length 90] [--keep DIR]

PORTRAITS is a folder of portraits (at least 5 with one face each); they are moved through a test bench of nine scenes
with known faces (tests/helpers/clips.py). A face counts where at least half of it is visible and it is 14 px or larger.
It is leaked where a redaction leaves half of it as it was, or where a recognizer still matches a replaced one;
``--judge`` adds a recognizer that takes no part (a file as ``faceveil train embedder --teacher`` takes it). The exit
code is 1 where a frame leaks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from clips import Card, Truth, bench, cards, ellipse, frames_of, write_clip
from faceveil.pipelines.faces.align import ARCFACE_SIZE, ARCFACE_TEMPLATE, crop, five_points, similarity
from faceveil.pipelines.imaging.uint8 import to_tensor
from faceveil.pipelines.imaging.video import VideoSource
from faceveil.pipelines.jobs.embedder import open_teacher
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.video.job import VideoJob
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from faceveil.pipelines.training.embedder import Teacher

CHANGED, MIN_CHANGED = 16, 0.5
"""Levels of 255 from which a pixel differs from the source, and the share of a face from which it is redacted."""
EVERY = 5
"""Of the frames, those in which replaced faces are judged by recognizers: they take longer than the job itself."""
SQUARE = 128
"""Pixels of an aligned face whose flicker is measured."""
JUDGE_MATCH = 0.30
"""Cosine of MobileFace V2 at a false-match rate of 1 %."""


@dataclass
class Row:
    """One tool's result."""

    name: str
    seconds: float
    leaked: list[int]
    frames: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--length", type=int, default=90, help="frames of each scene")
    parser.add_argument("--keep", type=Path, help="folder for the clips")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    people = cards(sorted(options.portraits.glob("*.webp"))[:8])
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        clip, truth = folder / "bench.mp4", list[list[Truth]]()
        write_clip(clip, _drawn(people, width, height, options.length, truth))
        visible = sum(any(t.counts for t in frame) for frame in truth)
        print(f"{len(truth)} frames of {width} x {height}, {visible} with a visible face")
        rows = _redactions(clip, folder, truth, f"{width // 2}x{height // 2}")
        judge = open_teacher(options.judge) if options.judge else None
        rows.append(_replaced(clip, folder, truth, people, judge))
    for row in rows:
        print(
            f"{row.name:34} {row.frames / row.seconds:6.1f} frames/s   leaked frames {len(row.leaked)}", row.leaked[:9]
        )
    print(
        f"redaction against deface at its default: {rows[1].seconds / rows[0].seconds:.2f} times the frames per second"
    )
    print(f"as a multiple of deface at half size: {rows[2].seconds / rows[0].seconds:.2f}")
    return int(bool(rows[0].leaked or rows[-1].leaked))


def _drawn(people: list[Card], width: int, height: int, length: int, truth: list[list[Truth]]) -> Iterator[np.ndarray]:
    for pixels, faces in frames_of(bench(length), people, width, height):
        truth.append(faces)
        yield pixels


def _redactions(clip: Path, folder: Path, truth: list[list[Truth]], half: str) -> list[Row]:
    started = time.perf_counter()
    VideoJob(Settings(method="solid")).run(VideoSource(clip), folder / "solid.mp4")
    rows = [_redacted("faceveil solid", clip, folder / "solid.mp4", truth, time.perf_counter() - started)]
    for name, flags in (("deface 1.5", []), (f"deface 1.5 --scale {half}", ["--scale", half])):
        output = folder / f"deface{len(flags)}.mp4"
        started = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "deface.deface",
            str(clip),
            "-o",
            str(output),
            "--replacewith",
            "solid",
            *flags,
        ]
        subprocess.run(command, check=True, capture_output=True)
        rows.append(_redacted(name, clip, output, truth, time.perf_counter() - started))
    return rows


def _redacted(name: str, clip: Path, output: Path, truth: list[list[Truth]], seconds: float) -> Row:
    """Frames in which a face is left at least half as it was."""
    leaked = []
    for frame, before, after in _pairs(clip, output):
        different = np.abs(before.astype(int) - after.astype(int)).max(2) > CHANGED
        for face in truth[frame]:
            inside = ellipse(face.points, *before.shape[:2])
            if face.counts and different[inside].mean() < MIN_CHANGED:
                leaked.append(frame)
                break
    return Row(name, seconds, leaked, len(truth))


def _replaced(clip: Path, folder: Path, truth: list[list[Truth]], people: list[Card], judge: Teacher | None) -> Row:
    output = folder / "veiled.mp4"
    started = time.perf_counter()
    report = VideoJob(Settings()).run(VideoSource(clip), output)
    seconds = time.perf_counter() - started
    print(report.text())
    recognizers = built_in_recognizers()
    known = {i: [r.embed(to_tensor(c.pixels), c.points) for r in recognizers] for i, c in enumerate(people)}
    leaked, cosines, own = [], list[float](), dict[int, list[np.ndarray]]()
    original = dict[int, list[np.ndarray]]()
    for frame, before, after in _pairs(clip, output):
        if frame % EVERY:
            continue
        images = [to_tensor(p) for p in (before, after)]
        for face in truth[frame]:
            if not face.counts or face.visible < 0.95:
                continue
            different = np.abs(before.astype(int) - after.astype(int)).max(2) > CHANGED
            if different[ellipse(face.points, *before.shape[:2])].mean() > 0.97:
                continue  # redacted
            pairs = zip(recognizers, known[face.person], strict=True)
            if any(r.distance(r.embed(images[1], face.points), e) < r.threshold for r, e in pairs):
                leaked.append(frame)
            own.setdefault(face.person, []).append(recognizers[0].embed(images[1], face.points))
            original.setdefault(face.person, []).append(recognizers[0].embed(images[0], face.points))
            if judge is not None:
                cosines.append(_cosine(judge, images, face.points))
    if cosines:
        below = np.mean(np.array(cosines) < JUDGE_MATCH)
        print(f"judge: mean cosine {np.mean(cosines):.3f}, {below:.1%} of {len(cosines)} faces below its threshold")
    print(f"spread of the embeddings of one person, new / original: {_spread(own) / _spread(original):.2f}")
    print(f"flicker after motion compensation, new / original: {_flicker(clip, output, truth):.2f}")
    return Row("faceveil appearance", seconds, leaked, len(truth))


def _flicker(clip: Path, output: Path, truth: list[list[Truth]]) -> float:
    """How much replaced faces change from frame to frame, as a multiple of the original's change.

    Each face is cut out aligned by its true landmarks, which compensates its motion, without hair and background.
    """
    changes: list[tuple[float, float]] = []
    last: dict[int, tuple[int, np.ndarray]] = {}
    corners = ARCFACE_TEMPLATE * (SQUARE / ARCFACE_SIZE)
    middle = slice(SQUARE // 4, 3 * SQUARE // 4)
    for frame, before, after in _pairs(clip, output):
        different = np.abs(before.astype(int) - after.astype(int)).max(2) > CHANGED
        images = [to_tensor(p) for p in (before, after)]
        for face in truth[frame]:
            if not face.counts or face.visible < 0.95:
                continue
            if different[ellipse(face.points, *before.shape[:2])].mean() > 0.97:
                continue  # redacted
            transform = similarity(five_points(face.points), corners)
            squares = np.stack([crop(i, transform, SQUARE).numpy()[0, :, middle, middle] for i in images])
            known = last.get(face.person)
            if known is not None and known[0] == frame - 1:
                changes.append(tuple(np.abs(squares - known[1]).mean((1, 2, 3))))
            last[face.person] = frame, squares
    old, new = np.array(changes).mean(0)
    return float(new / old)


def _spread(vectors: dict[int, list[np.ndarray]]) -> float:
    """Mean distance of a person's embeddings from their mean."""
    rows = [np.linalg.norm(np.stack(v) - np.mean(v, axis=0), axis=1).mean() for v in vectors.values() if len(v) > 3]
    return float(np.mean(rows))


def _cosine(judge: Teacher, images: list[torch.Tensor], points: np.ndarray) -> float:
    transform = similarity(five_points(points), judge.template)
    with torch.no_grad():
        a, b = (judge.embed(crop(image, transform, judge.size))[0] for image in images)
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def _pairs(clip: Path, output: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    both = zip(VideoSource(clip).frames(), VideoSource(output).frames(), strict=True)
    for before, after in both:
        yield before.index, before.pixels, after.pixels


if __name__ == "__main__":
    sys.exit(main())
