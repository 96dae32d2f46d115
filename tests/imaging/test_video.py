"""Videos are read and written like their source: times, sound, colors, size; and without its tags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import TIME_BASE, rotate_tag, write_clip
from faceveil.pipelines.core.errors import InputError, OutputError
from faceveil.pipelines.imaging import video_write
from faceveil.pipelines.imaging.video import Span, VideoFrame, VideoSource
from faceveil.pipelines.imaging.video_copy import copy_without_tags
from faceveil.pipelines.imaging.video_write import VideoFormat, VideoTarget

AUTO = VideoFormat()
SECRETS = (b"SECRET", b"+48.1234")


def pictures(count: int = 24, height: int = 96, width: int = 128) -> Iterator[np.ndarray]:
    coarse = np.random.default_rng(0).integers(30, 220, (4, 5, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return (np.roll(smooth, i, 1) for i in range(count))


def passed_through(source: VideoSource, target: Path, format: VideoFormat = AUTO) -> None:
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:
        for item in source.items(out.copied):
            if isinstance(item, VideoFrame):
                out.write(item)
            else:
                out.copy(item)


def times(path: Path) -> list[float]:
    with closing(av.open(str(path))) as container:
        return [float(f.pts * f.time_base) for f in container.decode(video=0)]


def sound(path: Path) -> list[bytes]:
    with closing(av.open(str(path))) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.dts is not None]


CASES = {
    "h264": (".mp4", "libx264", "yuv420p", {"crf": "12"}, 3.0),
    "ten bits": (".mp4", "libx264", "yuv420p10le", {"crf": "12"}, 3.0),
    "hevc": (".mp4", "libx265", "yuv420p", {"crf": "12", "x265-params": "log-level=none"}, 3.0),
    "vp9": (".webm", "libvpx-vp9", "yuv420p", {"crf": "12", "b:v": "0"}, 3.5),
    "prores": (".mov", "prores_ks", "yuv422p10le", {}, 1.5),
    "lossless": (".mkv", "ffv1", "bgr0", {}, 0.0),
    "full range": (".mp4", "libx264", "yuvj420p", {"crf": "12"}, 3.0),
    "full chroma": (".mp4", "libx264", "yuv444p", {"crf": "12"}, 3.0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_video_comes_out_as_it_went_in(tmp_path: Path, case: str) -> None:
    suffix, codec, layout, options, tolerance = CASES[case]
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_clip(source, pictures(), variable=True, codec=codec, layout=layout, options=options)
    passed_through(VideoSource(source), target)
    assert times(target) == pytest.approx(times(source), abs=1e-6)
    assert sound(target) == sound(source)
    assert not any(secret in target.read_bytes() for secret in SECRETS)
    with closing(av.open(str(source))) as a, closing(av.open(str(target))) as b:
        first, second = a.streams.video[0].codec_context, b.streams.video[0].codec_context
        assert first.name == second.name
        assert (first.width, first.height) == (second.width, second.height)
    drifts = []
    for before, after in zip(VideoSource(source).frames(), VideoSource(target).frames(), strict=True):
        scale = np.iinfo(before.pixels.dtype).max / 255
        difference = (after.pixels.astype(float) - before.pixels) / scale
        assert np.abs(difference).mean() <= tolerance
        drifts.append(difference.mean((0, 1)))
    # The colors must not drift: each generation would be darker than the one before.
    assert np.abs(np.mean(drifts, axis=0)).max() < 0.6


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: str) -> None:
    """Else an output that was written just before a kill could not be told from another file."""
    rng, smooth = np.random.default_rng(0), list(pictures(60, 270, 480))
    noisy = [(p + rng.normal(0, 3, p.shape)).clip(0, 255).astype(np.uint8) for p in smooth]
    write_clip(tmp_path / "a.mp4", noisy, sound=False)
    written = set()
    for i in range(6):
        passed_through(VideoSource(tmp_path / "a.mp4"), tmp_path / f"{i}.mp4", VideoFormat(codec))
        written.add((tmp_path / f"{i}.mp4").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(("width", "height"), [(129, 97), (130, 97), (16, 16)])
def test_odd_sizes(tmp_path: Path, width: int, height: int) -> None:
    source = tmp_path / "a.mkv"
    write_clip(source, pictures(6, height, width), codec="ffv1", layout="bgr0", sound=False)
    passed_through(VideoSource(source), tmp_path / "b.mp4", VideoFormat("h264"))
    info = VideoSource(tmp_path / "b.mp4").info
    assert (info.width, info.height) == (width, height)


def test_a_rotation_tag_is_applied(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    write_clip(source, pictures(6))
    upright = [f.pixels for f in VideoSource(source).frames()]
    rotate_tag(source, 1)
    found = VideoSource(source)
    assert (found.info.width, found.info.height) == (96, 128)
    with closing(av.open(str(source))) as container:
        turns = round(next(container.decode(video=0)).rotation / 90)
    for before, frame in zip(upright, found.frames(), strict=True):
        assert (np.rot90(before, turns) == frame.pixels).all()
    passed_through(found, tmp_path / "b.mp4")
    written = VideoSource(tmp_path / "b.mp4").info
    assert (written.width, written.height, written.turns) == (96, 128, 0)


def test_a_span(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    ticks = write_clip(source, pictures(50))
    inside = [float(t * TIME_BASE) for t in ticks if 0.5 <= float(t * TIME_BASE) < 1.3]
    passed_through(VideoSource(source, Span(0.5, 1.3)), target)
    found = times(target)
    assert len(found) == len(inside)
    gaps = [b - a for a, b in pairwise(inside)]
    assert [b - a for a, b in pairwise(found)] == pytest.approx(gaps, abs=1e-4)
    assert 0 < len(sound(target)) < len(sound(source))
    with pytest.raises(InputError, match="empty"):
        Span(2.0, 1.0)


def test_a_copy_has_no_tags(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / "b.mkv"
    write_clip(source, pictures())
    copy_without_tags(VideoSource(source), target)
    assert not any(secret in target.read_bytes() for secret in SECRETS)
    pairs = zip(VideoSource(source).frames(), VideoSource(target).frames(), strict=True)
    assert all((a.pixels == b.pixels).all() for a, b in pairs)
    assert sound(target) == sound(source)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_packets_without_decoding_times_are_copied(tmp_path: Path, suffix: str) -> None:
    """Matroska stores none for the first packets where frames are reordered."""
    source, target = tmp_path / "a.mkv", tmp_path / f"b{suffix}"
    write_clip(source, pictures(40), options={"crf": "20", "bf": "3", "g": "12"}, sound=False)
    copy_without_tags(VideoSource(source), target)
    assert len(times(target)) == 40


@pytest.mark.parametrize(
    ("before", "after", "span"),
    [
        (".ts", ".mp4", Span(1.0)),
        (".ts", ".mkv", Span(1.0)),
        (".ts", ".ts", Span(1.0)),
        (".ts", ".mp4", Span()),
        (".mkv", ".avi", Span()),
    ],
)
def test_sound_stays_in_sync_where_a_file_begins_at_10_seconds(
    tmp_path: Path, before: str, after: str, span: Span
) -> None:
    write_clip(tmp_path / "a.mp4", pictures(75))
    late, target = tmp_path / f"late{before}", tmp_path / f"b{after}"
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(late), "w", options={"output_ts_offset": "10"}) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in (source.streams.video[0], source.streams.audio[0])}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    passed_through(VideoSource(late, span), target)
    starts = []
    for kind in ("video", "audio"):
        with closing(av.open(str(target))) as written:
            frame = next(iter(written.decode(**{kind: 0})))
            starts.append(float(frame.pts * frame.time_base))
    # Transport streams put several packets of sound together.
    assert starts[0] == pytest.approx(starts[1], abs=0.1)


@pytest.mark.parametrize("bf", ["0", "2"])
def test_frames_of_an_avi_file_are_shown_one_after_the_other(tmp_path: Path, bf: str) -> None:
    """It stores no times, so those of B-frames would go back and forth."""
    source = tmp_path / "a.avi"
    write_clip(source, pictures(75), options={"crf": "18", "bf": bf, "g": "20"})
    passed_through(VideoSource(source), tmp_path / "b.mp4")
    found = times(tmp_path / "b.mp4")
    # In the file, the second frame of some encoders is a little late.
    assert np.diff(found)[1:] == pytest.approx(np.full(73, 1 / 25), abs=0.002)
    assert 0.03 < found[1] - found[0] < 0.07
    frames = [f.pixels.astype(float) for f in VideoSource(source).frames()]
    assert all(np.abs(a - b).mean() < 4 for a, b in zip(frames, pictures(75), strict=True))


def test_a_missing_encoder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4", pictures(3), sound=False)
    encoders = {"h264": replace(video_write.ENCODERS["h264"], name="libmissing264")}
    monkeypatch.setattr(video_write, "ENCODERS", encoders)
    with pytest.raises(OutputError, match=r"b\.mp4 could not be written .*choose another"):
        passed_through(VideoSource(tmp_path / "a.mp4"), tmp_path / "b.mp4", VideoFormat("h264"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".avi", ".webm", ".mp4"])
def test_spans_in_all_containers(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a{suffix}"
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    write_clip(source, pictures(75), codec=codec, options={"g": "12", "bf": "0"}, sound=False)
    assert len(list(VideoSource(source, Span(1.0, 2.0)).frames())) in (25, 26)


def test_joined_recordings(tmp_path: Path) -> None:
    """Their times start again."""
    write_clip(tmp_path / "a.ts", pictures(20), sound=False)
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    passed_through(VideoSource(tmp_path / "b.ts"), tmp_path / "c.mp4")
    assert len(times(tmp_path / "c.mp4")) == 40


@pytest.mark.parametrize(
    ("suffix", "codec", "layout", "target"),
    [
        (".mov", "prores_ks", "yuv422p10le", ".mp4"),
        (".mp4", "libx265", "yuv420p", ".avi"),
        (".mkv", "ffv1", "bgr0", ".mov"),
        (".webm", "libvpx-vp9", "yuv420p", ".mov"),
        (".mp4", "libx264", "yuv420p", ".avi"),
    ],
)
def test_the_codec_fits_the_container(tmp_path: Path, suffix: str, codec: str, layout: str, target: str) -> None:
    source, again = tmp_path / f"a{suffix}", tmp_path / f"c{target}"
    write_clip(source, pictures(24), codec=codec, layout=layout, sound=False, options={"bf": "2"})
    passed_through(VideoSource(source), again)
    # An AVI file has no times of its own, so it can start late.
    first, second = (np.array(times(p)) for p in (source, again))
    assert second - second[0] == pytest.approx(first - first[0], abs=0.03)
    passed_through(VideoSource(again), tmp_path / "d.mp4")
    assert len(times(tmp_path / "d.mp4")) == 24


def test_av1_is_copied(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", pictures(8), codec="libsvtav1", options={"preset": "12"}, sound=False)
    copy_without_tags(VideoSource(tmp_path / "a.mp4"), tmp_path / "b.mkv")
    assert len(times(tmp_path / "b.mkv")) == 8


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="only Linux has priorities of threads")
def test_av1_leaves_the_priority_as_it_was(tmp_path: Path) -> None:
    """As root, SVT-AV1 makes its caller a real-time thread, and other programs then hardly run."""
    write_clip(tmp_path / "a.mp4", pictures(8), sound=False)
    passed_through(VideoSource(tmp_path / "a.mp4"), tmp_path / "b.mp4", VideoFormat("av1"))
    assert {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()} == {os.SCHED_OTHER}


def test_a_container_that_cannot_hold_the_codec(tmp_path: Path) -> None:
    source = tmp_path / "a.mp4"
    write_clip(source, pictures(4))
    with pytest.raises(InputError, match="cannot hold h264"):
        passed_through(VideoSource(source), tmp_path / "b.webm", VideoFormat("h264"))
    with pytest.raises(InputError, match=r"write a \.mkv file"):
        passed_through(VideoSource(source), tmp_path / "b.webm")
    with pytest.raises(OutputError, match="no known video suffix"):
        passed_through(VideoSource(source), tmp_path / "b.gif")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    source = VideoSource(_clip(tmp_path))
    with (
        pytest.raises(KeyboardInterrupt),
        closing(source.open()) as container,
        VideoTarget(tmp_path / "b.mp4", source, container, VideoFormat()) as out,
    ):
        out.write(next(source.frames()))
        raise KeyboardInterrupt
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def _clip(folder: Path) -> Path:
    write_clip(folder / "a.mp4", pictures(8))
    return folder / "a.mp4"


def damaged(folder: Path) -> dict[str, Path]:
    """Files that are no usable video, by what is wrong with them."""
    whole = _clip(folder).read_bytes()
    files = {
        "empty": b"",
        "text": b"this is no video",
        "zeros": bytes(4096),
        "no index": whole[: whole.index(b"moov") - 4] if whole.index(b"moov") > whole.index(b"mdat") else whole[:300],
        "head only": whole[:64],
        "one byte": b"\x00",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    paths = {}
    for name, data in files.items():
        paths[name] = folder / f"{name.replace(' ', '_')}.mp4"
        paths[name].write_bytes(data)
    paths["sound only"] = folder / "sound.mp4"
    with av.open(str(paths["sound only"]), "w") as out:
        voice = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = 48000, 0
        out.mux(voice.encode(frame))
        out.mux(voice.encode())
    return paths


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    for name, path in damaged(tmp_path).items():
        with pytest.raises(InputError) as error:
            list(VideoSource(path).frames())
        assert path.name in str(error.value) and "\n" not in str(error.value), name
    with pytest.raises(InputError, match="does not exist"):
        VideoSource(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="is no file"):
        VideoSource(tmp_path)


def test_changing_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    parts = []
    for size in (96, 112):
        part = tmp_path / f"{size}.ts"
        write_clip(part, pictures(6, size, 128), sound=False)
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    with pytest.raises(InputError, match="change their size"):
        list(VideoSource(path).frames())


def test_one_frame(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", pictures(1), sound=False)
    passed_through(VideoSource(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    assert len(times(tmp_path / "b.mp4")) == 1
