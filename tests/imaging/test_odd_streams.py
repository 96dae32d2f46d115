"""Corrupt and odd videos: each is treated whole, or refused with one sentence and nothing half-written."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from faceveil.pipelines.core.errors import FaceVeilError
from faceveil.pipelines.imaging.hdr import mastering_of
from faceveil.pipelines.imaging.video import VideoSource
from faceveil.pipelines.imaging.video_write import VideoFormat
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.video.job import VideoJob
from faceveil.pipelines.jobs.video.report import VideoReport
from odd_streams import COUNT, KINDS, Stream, steady, written

CUT_OFF = ("cut Matroska", "cut AVI")
"""Kinds whose head says how long the video should be."""
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
X265 = f"log-level=none:master-display={DISPLAY}:max-cll=999,401"
X264 = f"mastering-display={DISPLAY}:cll=999,401"
AV1 = "mastering-display=G(0.265,0.69)B(0.15,0.06)R(0.68,0.32)WP(0.3127,0.329)L(1000.0,0.005):content-light=999,401"
MASTERED = {
    "hevc": (".mp4", Stream("libx265", "yuv420p10le", (64, 64), options={"x265-params": X265})),
    "h264": (".mp4", Stream("libx264", "yuv420p10le", options={"x264-params": X264})),
    "av1": (".mkv", Stream("libsvtav1", "yuv420p10le", (64, 64), options={"svtav1-params": AV1})),
}
TRANSPARENT = {
    "ProRes": (".mov", "prores_ks", "yuva444p10le", 600),
    "FFV1": (".mkv", "ffv1", "bgra", 0),
    "FFV1, 16 bits": (".mkv", "ffv1", "gbrap16le", 0),
    "QuickTime Animation, as ProRes": (".mov", "qtrle", "argb", 600),
}


def treated(source: Path, target: Path) -> VideoReport:
    return VideoJob(Settings(method="solid", policy=Policy(no_face="pass"))).run(VideoSource(source), target)


@pytest.mark.parametrize("name", KINDS)
def test_odd_streams(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    source, target = tmp_path / f"in{kind.suffix}", tmp_path / f"out{kind.target or kind.suffix}"
    kind.make(source)
    if kind.frames is None:
        with pytest.raises(FaceVeilError) as error:
            treated(source, target)
        assert source.name in str(error.value) and "\n" not in str(error.value)
        assert [p.name for p in tmp_path.iterdir()] == [source.name]
        return
    report = treated(source, target)
    assert any("cut off" in note for note in report.notes) == (name in CUT_OFF)
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == kind.frames == report.frames
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, target.name])


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_stays(tmp_path: Path, name: str) -> None:
    suffix, codec, layout, tolerance = TRANSPARENT[name]
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    alpha = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    with av.open(str(source), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, layout
        for i in range(COUNT):
            pixels = np.dstack([np.full((48, 64, 3), 30000, np.uint16), np.roll(alpha, i, 1)])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba64le").reformat(format=layout)
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert treated(source, target).notes == []
    before, after = ([f.alpha for f in VideoSource(p).frames()] for p in (source, target))
    assert len(before) == len(after) == COUNT
    for a, b in zip(before, after, strict=True):
        assert a is not None and b is not None and np.ptp(a.astype(float)) > 0.9 * np.iinfo(a.dtype).max
        full = [v.astype(float) / np.iinfo(v.dtype).max * 65535 for v in (a, b)]
        assert np.abs(full[0] - full[1]).max() <= tolerance


def test_lost_transparency_is_said(tmp_path: Path) -> None:
    written(Stream("qtrle", "argb"))(tmp_path / "in.mov")
    assert "transparency is lost" in treated(tmp_path / "in.mov", tmp_path / "out.mp4").notes[0]


@pytest.mark.parametrize("name", MASTERED)
def test_hdr_metadata_stays(tmp_path: Path, name: str) -> None:
    suffix, stream = MASTERED[name]
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    written(stream)(source)
    treated(source, target)
    before, after = VideoSource(source).info.mastering, VideoSource(target).info.mastering
    assert before.content == after.content == (999, 401)
    assert before.primaries is not None and after.primaries is not None
    np.testing.assert_allclose(
        before.primaries, [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06), (0.3127, 0.329)], atol=2e-5
    )
    np.testing.assert_allclose(after.primaries, before.primaries, atol=2e-5)
    assert after.luminance == pytest.approx((0.005, 1000.0), rel=2e-2)


def test_frames_without_hdr_metadata(tmp_path: Path) -> None:
    written(steady("mpeg4"))(tmp_path / "a.avi")
    with av.open(str(tmp_path / "a.avi")) as container:
        found = mastering_of(next(container.decode(video=0)))
    assert (found.primaries, found.luminance, found.content) == (None, None, None)


def test_ten_bits_become_eight_where_the_encoder_has_no_more(tmp_path: Path) -> None:
    written(Stream("ffv1", "yuv420p10le"))(tmp_path / "in.mkv")
    report = treated(tmp_path / "in.mkv", tmp_path / "out.webm")
    deep = VideoSource(tmp_path / "out.webm").info.deep
    assert report.frames == COUNT and any("only 8 bits" in note for note in report.notes) != deep


@pytest.mark.parametrize("target", ["out.mp4", "out.webm", "out.mkv"])
def test_rgb_sources_get_a_matrix_of_yuv(tmp_path: Path, target: str) -> None:
    written(Stream("png", "rgb24"))(tmp_path / "in.mov")
    VideoJob(
        Settings(method="solid", policy=Policy(no_face="pass")), VideoFormat("vp9" if "webm" in target else "h264")
    ).run(VideoSource(tmp_path / "in.mov"), tmp_path / target)
    with av.open(str(tmp_path / target)) as container:
        assert int(container.streams.video[0].codec_context.colorspace) != 0
    both = (VideoSource(tmp_path / name).frames() for name in ("in.mov", target))
    for before, after in zip(*both, strict=True):
        assert np.abs(before.pixels.astype(int) - after.pixels).mean() < 6


def test_impossible_hdr_metadata_is_left_out() -> None:
    def data(numbers: list[tuple[int, int]]) -> bytes:
        return struct.pack("=22i", *(n for pair in numbers for n in pair), 1, 1)

    class Item:
        def __init__(self, name: str, content: bytes) -> None:
            self.type, self._content = type("Type", (), {"name": name}), content

        def __bytes__(self) -> bytes:
            return self._content

    class Frame:
        def __init__(self, primary: tuple[int, int], highest: tuple[int, int], content: int) -> None:
            display = data([primary] * 8 + [(1, 100), highest])
            light = struct.pack("=2I", content, 1)
            self.side_data = [Item("MASTERING_DISPLAY_METADATA", display), Item("CONTENT_LIGHT_LEVEL", light)]

    good = mastering_of(Frame((1, 3), (1000, 1), 900))
    assert good.primaries is not None and good.luminance == (0.01, 1000.0) and good.content == (900, 1)
    for primary, highest, content in (
        ((2, 1), (2_000_000_000, 1), 70_000),
        ((-1, 3), (0, 0), 0),
        ((1, 0), (-5, 1), 65_536),
    ):
        bad = mastering_of(Frame(primary, highest, content))
        assert (bad.primaries, bad.luminance) == (None, None)
        assert bad.content in (None, (0, 1))
