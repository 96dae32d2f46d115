"""Kill a folder job and a video job at random moments, resume them, and compare with undisturbed runs.

    python benchmarks/resume.py PORTRAITS [--kills 20] [--files 60]

The folder holds 60 pictures; the video 126 frames of the test bench. Every job is killed with SIGKILL, then run again
with ``--resume``. Also prints what two processes gain on the folder, and the memory of a long and a short clip.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from clips import Card, bench, cards, frames_of, write_clip
from faceveil.pipelines.core.files import PART_PREFIX
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.jobs.manifest import NAME

KILLED = ["--method", "solid"]
QUICK = ["--appearance-search", "1"]
SIZE = (480, 270)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=60)
    options = parser.parse_args()
    people = cards(sorted(options.portraits.glob("*.webp"))[:8])
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        pictures, videos = root / "pictures", root / "videos"
        _pictures(options.portraits, pictures, options.files)
        videos.mkdir()
        write_clip(videos / "clip.mp4", (p for p, _ in frames_of(bench(14), people, *SIZE)))
        one, two = (_timed(pictures, root / f"new{n}", n, QUICK) for n in (1, 2))
        core = _timed(pictures, root / "core", 1, QUICK, on_one_core=True)
        print(
            f"{options.files} pictures: {one:.1f} s with one process ({core:.1f} s on one core), {two:.1f} s with two:"
        )
        print(f"{one / two:.2f} times the speed of one process, {core / two:.2f} times that of one core")
        lost = 0
        for source in (pictures, videos):
            seconds = _timed(source, root / f"whole {source.name}", 2, KILLED)
            lost += _killed(source, root / f"whole {source.name}", root, options.kills, seconds)
        _memory(people, root)
    return int(lost > 0)


def _pictures(portraits: Path, folder: Path, count: int) -> None:
    sources = sorted(portraits.glob("*.webp"))
    for i in range(count):
        save_image(load_image(sources[i % len(sources)]), folder / f"{i % 4}" / f"{i:03}.png")


def _command(source: Path, output: Path, jobs: int, flags: list[str]) -> list[str]:
    start = [sys.executable, "-m", "faceveil", "anonymize", str(source), "-o", str(output), "--jobs", str(jobs)]
    return [*start, *flags]


def _timed(source: Path, output: Path, jobs: int, flags: list[str], on_one_core: bool = False) -> float:
    started = time.perf_counter()
    # Linux only. One process uses a second core at times: it decodes and detects in threads.
    confine = (lambda: os.sched_setaffinity(0, {0})) if on_one_core else None
    subprocess.run(_command(source, output, jobs, flags), check=True, capture_output=True, preexec_fn=confine)
    return time.perf_counter() - started


def _killed(source: Path, whole: Path, root: Path, kills: int, seconds: float) -> int:
    """How many of the outputs were wrong after all kills and resumes."""
    expected = _outputs(whole)
    rng, wrong = random.Random(0), 0
    for kill in range(kills):
        output = root / f"{source.name}{kill}"
        command = _command(source, output, 2, [*KILLED, "--resume"])
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, seconds))
        process.kill()
        process.wait()
        answer = subprocess.run(_command(source, output, 2, [*KILLED, "--resume"]), capture_output=True)
        wrong += answer.returncode != 0 or _outputs(output) != expected
    print(f"{source.name}: killed {kills} times, {wrong} wrong after the resume")
    return wrong


def _outputs(folder: Path) -> dict[Path, bytes]:
    """All outputs. The temporary file of a killed process is removed by a later run, when it is ten minutes old."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != NAME and not p.name.startswith(PART_PREFIX))
    return {p.relative_to(folder): p.read_bytes() for p in files}


def _memory(people: list[Card], root: Path) -> None:
    """Peak memory of a short and of a long clip."""
    for method in ("solid", "appearance"):
        peaks = []
        for length in (22, 222):
            clip = root / f"{length}.mp4"
            if not clip.exists():
                write_clip(clip, (p for p, _ in frames_of(bench(length), people, *SIZE)), sound=False)
            code = (
                "import resource, sys; from faceveil.pipelines.cli import main;"
                "main(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
            )
            flags = ["anonymize", str(clip), "-o", str(root / f"{method}{length}.mp4"), "--method", method]
            flags += ["--jobs", "1"]
            flags += QUICK if method == "appearance" else []
            answer = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
            peaks.append(int(answer.stdout.split()[-1]) / 1024)
        change = peaks[1] / peaks[0] - 1
        print(f"{method}: {peaks[0]:.0f} MiB for 198 frames, {peaks[1]:.0f} MiB for 1,998 frames ({change:+.1%})")


if __name__ == "__main__":
    sys.exit(main())
