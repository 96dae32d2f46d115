"""Stability of DiffDeID in video: a photo that is moved in 3D, as a stream and as single photos.

    python benchmarks/diffdeid_video.py CHECKPOINT [PHOTO] [--clips CHECKPOINT] [--frames 16] [--steps 20]
        [--seed 0] [--sheet SHEET.png]

The head turns and opens its mouth by known coefficients. "stream" is video.Reenactment, "single" treats each frame as a
photo with the same seed. Printed: the cosine of our recognizer between frames that follow each other, for the
original and both results; flicker, the mean absolute difference of faces in frames that follow each other, after the
landmarks' motion was compensated; and in how many frames a recognizer finds the original.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.align import apply, arcface_transform, crop
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.masks import hull_mask
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.fitting import Fitter
from faceveil.pipelines.geometry.reshape import reshape
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.resample import pixel_grid, sample
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.imaging.uint8 import to_pillow
from faceveil.pipelines.imaging.warp import thin_plate
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.diffdeid.method import method_of
from faceveil.pipelines.methods.diffdeid.pipeline import Checkpoint
from faceveil.pipelines.methods.diffdeid.video import Reenactment
from faceveil.pipelines.recognition.base import unit
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from torch import Tensor

YAW = math.radians(6)
SIDE = 112


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("photo", nargs="?", type=Path)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    image = as_image(astronaut()).pixels if options.photo is None else load_image(options.photo).pixels
    frames = moved(image, options.frames)
    checkpoint = Checkpoint.open(options.checkpoint)
    clips = None if options.clips is None else Checkpoint.open(options.clips)
    method = method_of(checkpoint, options.steps, level=10)
    stream = Reenactment(method, clips, built_in_recognizers(), detect_faces, options.seed, steps=options.steps)
    results = list(stream(frames))
    single = []
    dlib = built_in_recognizers()[0]
    for frame in frames:
        face = detect_faces(frame)[0]
        prepared = method.prepare(View(frame, face, dlib.embed(frame, face.points)))
        change = method.render(prepared, method.sample_identity([prepared], options.seed), 1.0)
        new, (x, y) = frame.clone(), change.origin
        new[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]] = change.patch
        single.append(new)
    points = [detect_faces(frame)[0].points for frame in frames]
    print(f"{'':10}{'cosine':>8}{'flicker':>9}{'found':>7}   {len(frames)} frames")
    streamed = [result.image for result in results]
    kept = [result.redacted == 0 for result in results]
    for name, some in (("original", frames), ("stream", streamed), ("single", single)):
        found = _found(frames, some, points)
        print(f"{name:10}{_steadiness(some, points, kept):8.3f}{_flicker(some, points, kept):9.4f}{found:7}")
    print(f"frames of the stream with a redacted face, left out of cosine and flicker: {kept.count(False)}")
    if options.sheet:
        rows = [
            torch.cat([_aligned(i, p) for i, p in zip(some, points, strict=True)], -1)
            for some in (frames, streamed, single)
        ]
        to_pillow(torch.cat(rows, -2)).save(options.sheet)
    return 0


def moved(image: Tensor, count: int) -> list[Tensor]:
    """Frames of a head that turns to both sides and opens its mouth."""
    model = built_in_morphable_model()
    estimate = Fitter(model)(image, detect_faces(image)[0].points)
    frames = []
    for i in range(count):
        phase = 2 * math.pi * i / count
        c = estimate.coefficients
        angles, expression = c.angles.clone(), c.expression.clone()
        angles[0, 1] += YAW * math.sin(phase)
        expression[0, 0] += 0.6 * (1 - math.cos(phase)) / 2
        frames.append(reshape(model, image, estimate, replace(c, angles=angles, expression=expression))[0])
    return frames


def _aligned(image: Tensor, points: np.ndarray) -> Tensor:
    return crop(image, arcface_transform(points, SIDE), SIDE).clamp(0, 1)


def _steadiness(images: Sequence[Tensor], points: Sequence[np.ndarray], kept: Sequence[bool]) -> float:
    own = built_in_recognizers()[1]
    vectors = [unit(own.embed(i, p)) for i, p in zip(images, points, strict=True)]
    return float(np.mean([a @ b for (a, b), both in zip(pairwise(vectors), _both(kept), strict=True) if both]))


def _flicker(images: Sequence[Tensor], points: Sequence[np.ndarray], kept: Sequence[bool]) -> float:
    """Mean absolute difference inside the face after the next frame was warped to the landmarks of this one."""
    found = []
    pairs = zip(pairwise(zip(images, points, strict=True)), _both(kept), strict=True)
    for ((a, at), (b, then)), both in pairs:
        if both:
            transform = arcface_transform(at, SIDE)
            here, after = apply(transform, at), apply(arcface_transform(then, SIDE), then)
            face = hull_mask(here, SIDE, SIDE)
            pixels = pixel_grid(SIDE, SIDE).reshape(-1, 2).double()
            operator = thin_plate(torch.from_numpy(here) / SIDE, pixels / SIDE, 1e-4)
            where = (operator @ torch.from_numpy(after)).float().view(SIDE, SIDE, 2)
            difference = (_aligned(a, at) - sample(_aligned(b, then), where)).abs().mean(1, keepdim=True)
            found.append(float((difference * face).sum() / face.sum()))
    return float(np.mean(found))


def _both(kept: Sequence[bool]) -> list[bool]:
    return [a and b for a, b in pairwise(kept)]


def _found(frames: Sequence[Tensor], images: Sequence[Tensor], points: Sequence[np.ndarray]) -> int:
    """Frames in which a recognizer takes the result for the original."""
    count = 0
    for frame, image, p in zip(frames, images, points, strict=True):
        pairs = [(r, r.distance(r.embed(frame, p), r.embed(image, p))) for r in built_in_recognizers()]
        count += any(distance < recognizer.threshold for recognizer, distance in pairs)
    return count


if __name__ == "__main__":
    sys.exit(main())
