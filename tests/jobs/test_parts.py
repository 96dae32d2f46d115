"""A video that is scanned in parts, or rendered by other processes, is the same as in one go."""

from __future__ import annotations

from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Card, Pose, Shot, frames_of, wave, write_clip
from faceveil.pipelines.core.parallel import Workers
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.uint8 import to_uint8
from faceveil.pipelines.imaging.video import WHOLE, Span, VideoSource
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.video import job as job_module
from faceveil.pipelines.jobs.video.job import VideoJob
from faceveil.pipelines.jobs.video.parts import scan_in_parts
from faceveil.pipelines.jobs.video.plan import VideoPlan
from faceveil.pipelines.jobs.video.scan import Scan, scan
from faceveil.pipelines.methods.appearance.spec import AppearanceOptions
from faceveil.pipelines.recognition.catalog import built_in_recognizers
from torch import Tensor
from worker_jobs import masks

SIZE = (320, 180)
QUICK = AppearanceOptions(search=1)
RATE = 25


@pytest.fixture(scope="module")
def cards(portrait: Tensor) -> list[Card]:
    face = detect_faces(portrait)[0]
    pixels = to_uint8(portrait)
    width = pixels.shape[1]
    flipped = np.array([width - face.box[2], face.box[1], width - face.box[0], face.box[3]])
    return [
        Card("a", pixels, np.array(face.box), face.points),
        Card("b", pixels[:, ::-1].copy(), flipped, face.points * [-1, 1] + [width, 0]),
    ]


def drawn(path: Path, cards: list[Card], lengths: list[int], variable: bool = False) -> Path:
    """Shots of these lengths in frames, with a person in all but the third."""

    def pose(shift: float):
        return lambda t: Pose(0.7 + shift + 0.2 * t, 0.5, 0.95, 8 * wave(t))

    shots = [Shot(n, [] if i == 2 else [(i % 2, pose(0.1 * (i % 3)))]) for i, n in enumerate(lengths)]
    write_clip(path, (pixels for pixels, _ in frames_of(shots, cards, *SIZE)), variable=variable)
    return path


@pytest.fixture(scope="module")
def clip(cards: list[Card], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("parts") / "clip.mp4", cards, [14, 22, 9, 40, 6, 25], variable=True)


def in_one_pass(source: VideoSource) -> Scan:
    return scan(source.frames(), float(source.info.rate), built_in_recognizers())


def same(source: VideoSource, a: Scan, b: Scan) -> bool:
    views = [[(v.frame, v.quality) for p in s.people for v in p.portraits] for s in (a, b)]
    means = [[m for p in s.people for m in p.means] for s in (a, b)]
    alike = all(np.array_equal(m, n) for m, n in zip(*means, strict=True))
    plans = [VideoPlan.of(source, s).to_json() for s in (a, b)]
    return plans[0] == plans[1] and a.cuts == b.cuts and views[0] == views[1] and alike


@pytest.mark.parametrize("seconds", [0.4, 1.1])
@pytest.mark.parametrize("span", [WHOLE, Span(0.9, 3.5)])
def test_parts_find_what_one_pass_finds(clip: Path, seconds: float, span: Span) -> None:
    source = VideoSource(clip, span)
    with Workers(2) as workers:
        parts = scan_in_parts(source, built_in_recognizers(), workers, seconds=seconds)
    once = in_one_pass(source)
    assert len(once.cuts) >= 2 and len(once.tracks) >= 2
    assert parts is not None and same(source, parts, once)


def test_a_video_of_one_scene_is_scanned_by_one_process(cards: list[Card], tmp_path: Path) -> None:
    source = VideoSource(drawn(tmp_path / "one.mp4", cards, [50]))
    with Workers(2) as workers:
        parts = scan_in_parts(source, built_in_recognizers(), workers, seconds=0.5)
    assert parts is not None and same(source, parts, in_one_pass(source))


class Forgetful(Workers):
    """Loses what was found in the second part."""

    calls = 0

    def submit(self, work: Any, *arguments: Any) -> Future[Any]:
        self.calls += 1
        if self.calls != 2:
            return super().submit(work, *arguments)
        lost: Future[Any] = Future()
        lost.set_result(None)
        return lost


def test_parts_that_do_not_fit_together_are_not_used(clip: Path) -> None:
    with Forgetful(2) as workers:
        assert scan_in_parts(VideoSource(clip), built_in_recognizers(), workers, seconds=1.1) is None


def test_a_video_in_memory_is_scanned_in_one_pass(clip: Path) -> None:
    source = VideoSource(BytesIO(clip.read_bytes()))
    with Workers(2) as workers:
        assert scan_in_parts(source, built_in_recognizers(), workers, seconds=1.0) is None


def test_a_job_scans_a_long_video_in_parts(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, used = VideoSource(clip), []
    expected = VideoJob(Settings(), processes=1).plan(source)[0]

    def counted(*arguments: Any, **named: Any) -> Scan | None:
        used.append(scan_in_parts(*arguments, **named))
        return used[-1]

    monkeypatch.setattr(job_module, "PART_SECONDS", 1.0)
    monkeypatch.setattr(job_module, "scan_in_parts", counted)
    assert VideoJob(Settings(), processes=3).plan(source)[0].to_json() == expected.to_json()
    assert len(used) == 1 and used[0] is not None


@pytest.fixture(scope="module")
def long_clip(cards: list[Card], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long enough for two processes."""
    return drawn(tmp_path_factory.mktemp("long") / "clip.mp4", cards, [70, 60])


@pytest.fixture(scope="module")
def rendered(long_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("one") / "out.mp4"
    VideoJob(Settings(), options=QUICK, processes=1).run(VideoSource(long_clip), target)
    return target.read_bytes()


def test_two_processes_write_the_bytes_of_one(long_clip: Path, rendered: bytes, tmp_path: Path) -> None:
    report = VideoJob(Settings(), options=QUICK, processes=2).run(VideoSource(long_clip), tmp_path / "out.mp4")
    assert report.count("replaced") > 100
    assert (tmp_path / "out.mp4").read_bytes() == rendered


@pytest.mark.slow
def test_a_cluster_writes_the_bytes_of_one_process(long_clip: Path, rendered: bytes, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from faceveil.pipelines.jobs.cluster import Cluster, ClusterWorkers

    with ClusterWorkers(Cluster(2)) as workers:
        VideoJob(Settings(), options=QUICK, workers=workers).run(VideoSource(long_clip), tmp_path / "out.mp4")
        assert workers.used
    assert (tmp_path / "out.mp4").read_bytes() == rendered


def test_the_model_is_the_same_in_another_process() -> None:
    with Workers(1) as workers:
        assert workers.submit(masks).result() == masks()


def test_recordings_that_were_joined_byte_by_byte_are_scanned_in_one_pass(cards: list[Card], tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.ts", cards, [13, 1, 2, 30, 25, 9, 40, 12])
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    source = VideoSource(tmp_path / "two.ts")
    once = in_one_pass(source)
    assert once.frames == 2 * 132
    with Workers(2) as workers:
        parts = scan_in_parts(source, built_in_recognizers(), workers, seconds=1.05)
    assert parts is None or same(source, parts, once)
