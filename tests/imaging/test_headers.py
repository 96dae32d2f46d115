"""Tags in the headers of copied streams are removed; what is needed to play them stays."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from clips import write_clip
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.imaging.headers import without_tags
from faceveil.pipelines.imaging.video import VideoSource
from faceveil.pipelines.imaging.video_copy import copy_without_tags

COMMENT = b"\x03vorbis" + (4).to_bytes(4, "little") + b"none" + (1).to_bytes(4, "little")
COMMENT += (300).to_bytes(4, "little") + b"TITLE=SECRET".ljust(300, b"!") + b"\x01"
SUBTITLES = """[Script Info]
; made by SECRET
Title: SECRET
Original Script: SECRET
ScriptType: v4.00+
PlayResX: 640

[Aegisub Project Garbage]
Video File: SECRET.mp4

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Text
Dialogue: 0,0:00:00.10,0:00:00.30,Default,hello
"""


def laced(parts: list[bytes]) -> bytes:
    sizes = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in parts[:-1])
    return bytes([len(parts) - 1]) + sizes + b"".join(parts)


def sized(parts: list[bytes]) -> bytes:
    return b"".join(len(p).to_bytes(2, "big") + p for p in parts)


def vorbis(path: Path) -> list[bytes]:
    """Write sound, and return its three headers."""
    with av.open(str(path), "w") as out:
        voice = out.add_stream("vorbis", rate=48000, layout="stereo", options={"strict": "-2"})
        samples = np.sin(np.arange(48000) / 17).astype(np.float32)[None].repeat(2, 0) * 0.2
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.rate, frame.pts = 48000, 0
        out.mux(voice.encode(frame))
        out.mux(voice.encode())
    with closing(av.open(str(path))) as container:
        header = container.streams.audio[0].codec_context.extradata
    first = 1 + 1 + 1  # the number of headers, and two sizes below 255
    assert header[0] == 2 and header[1] < 255 and header[2] < 255
    a, b = first + header[1], first + header[1] + header[2]
    return [header[first:a], header[a:b], header[b:]]


def joined(target: Path, clip: Path, other: Path, header: bytes | None) -> None:
    """Put the first stream of ``other``, with another header, beside a clip's video."""
    with av.open(str(clip)) as a, av.open(str(other)) as b, av.open(str(target), "w") as out:
        video = out.add_stream_from_template(a.streams.video[0])
        added = out.add_stream_from_template(b.streams[0], opaque=True)
        if header is not None:
            added.codec_context.extradata = header
        for source, stream in ((a, video), (b, added)):
            for packet in source.demux(source.streams[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    write_clip(path, [np.full((64, 64, 3), 9 * i, np.uint8) for i in range(20)], sound=False, tags=False)
    return path


def test_vorbis_comments(tmp_path: Path, clip: Path) -> None:
    first, _, setup = vorbis(tmp_path / "a.mka")
    joined(tmp_path / "a.mkv", clip, tmp_path / "a.mka", laced([first, COMMENT, setup]))
    assert b"SECRET" in (tmp_path / "a.mkv").read_bytes()
    copy_without_tags(VideoSource(tmp_path / "a.mkv"), tmp_path / "b.mkv")
    assert b"SECRET" not in (tmp_path / "b.mkv").read_bytes()
    with closing(av.open(str(tmp_path / "b.mkv"))) as container:
        assert sum(f.samples for f in container.decode(audio=0)) == 48000


@pytest.mark.parametrize("join", [laced, sized])
def test_both_ways_to_join_vorbis_headers(join) -> None:
    first, setup = b"\x01vorbis".ljust(30, b"1"), b"\x05vorbis" + b"2" * 700
    clean = without_tags("vorbis", join([first, COMMENT, setup]))
    assert b"SECRET" not in clean and first in clean and clean.endswith(setup)
    assert without_tags("vorbis", clean) == clean
    for size in (0, 1, 3, 40, 200):
        with pytest.raises(ValueError, match="Vorbis"):
            without_tags("vorbis", join([first, COMMENT, setup])[:size])


def test_a_damaged_header_is_one_sentence(tmp_path: Path, clip: Path) -> None:
    vorbis(tmp_path / "a.mka")
    joined(tmp_path / "a.mkv", clip, tmp_path / "a.mka", b"\x02\x03\x04damaged")
    with pytest.raises(InputError, match=r"a stream of a\.mkv is damaged"):
        copy_without_tags(VideoSource(tmp_path / "a.mkv"), tmp_path / "b.mkv")
    assert not (tmp_path / "b.mkv").exists()


def test_makers_of_subtitles(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "a.ass").write_text(SUBTITLES)
    joined(tmp_path / "a.mkv", clip, tmp_path / "a.ass", None)
    assert b"SECRET" in (tmp_path / "a.mkv").read_bytes()
    copy_without_tags(VideoSource(tmp_path / "a.mkv"), tmp_path / "b.mkv")
    data = (tmp_path / "b.mkv").read_bytes()
    assert b"SECRET" not in data
    for kept in (b"ScriptType: v4.00+", b"PlayResX: 640", b"Style: Default,Arial,20", b"Format: Layer", b"hello"):
        assert kept in data


def test_other_headers_stay() -> None:
    assert without_tags("aac", b"\x11\x90") == b"\x11\x90"
