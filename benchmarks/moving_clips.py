"""Make clips for ``faceveil train diffdeid-video`` from portraits, by moving each in 3D.

    python benchmarks/moving_clips.py PORTRAITS OUTPUT [--n 60] [--frames 12]

Each portrait becomes a folder of frames in which the head turns to both sides and opens its mouth. Real clips are
better: these have no new expressions, and what was hidden stays hidden.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffdeid_video import moved
from faceveil.pipelines.core.parallel import parallel
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.formats import find_images
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_pillow


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--frames", type=int, default=12)
    options = parser.parse_args()
    options.output.mkdir(parents=True)
    jobs = [(path, options.output, options.frames) for path in find_images(options.portraits)[: options.n]]
    written = sum(parallel(write_clip, jobs, 2, silent, "moving portraits"))
    print(f"{written} clips of {options.frames} frames")
    return 0


def write_clip(path: Path, output: Path, frames: int) -> bool:
    """Write the frames of one portrait; False where no face is found."""
    image = load_image(path).pixels
    faces = detect_faces(image)
    if not faces or not faces[0].landmarks:
        return False
    folder = output / path.stem
    folder.mkdir()
    for i, frame in enumerate(moved(image, frames)):
        to_pillow(frame).save(folder / f"{i:04}.png")
    return True


if __name__ == "__main__":
    sys.exit(main())
