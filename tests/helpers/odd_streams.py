"""Corrupt and odd videos, made by PyAV at once: each kind with the number of frames that must come out of it, or None
where it must be refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from clips import rotate_tag
from faceveil.pipelines.core.threads import same_priority

COUNT = 6
"""Frames of a whole video."""


@dataclass(frozen=True)
class Odd:
    """One kind.

    Attributes:
        suffix: of the file.
        make: writes it.
        frames: that the result has; None where the file must be refused.
        target: suffix of the result; the same as the source's when omitted.
    """

    suffix: str
    make: Callable[[Path], None]
    frames: int | None = COUNT
    target: str = ""


@dataclass(frozen=True)
class Stream:
    """What PyAV is asked to write."""

    codec: str = "libx264"
    layout: str = "yuv420p"
    size: tuple[int, int] = (64, 48)
    rate: Fraction | int = 25
    count: int = COUNT
    options: dict[str, str] = field(default_factory=dict)
    pts: Callable[[int], int] = lambda i: 512 * i
    base: Fraction = Fraction(1, 12800)


def steady(codec: str, layout: str = "yuv420p", **more: Any) -> Stream:
    """For containers and codecs that know only a constant rate."""
    return Stream(codec, layout, pts=lambda i: i, base=Fraction(1, 25), **more)


def pictures(stream: Stream) -> Iterator[np.ndarray]:
    """Smooth pictures ``(H, W, 3)`` that move."""
    width, height = stream.size
    coarse = np.random.default_rng(0).integers(30, 220, (4, 5, 3)).astype(np.uint8)
    smooth = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    return (np.roll(smooth, i, 1) for i in range(stream.count))


def add(out: Any, stream: Stream) -> Any:
    """Add a stream to an open container."""
    added = out.add_stream(stream.codec, rate=stream.rate, options=stream.options)
    added.width, added.height, added.pix_fmt = *stream.size, stream.layout
    added.time_base = added.codec_context.time_base = stream.base
    return added


def encode(out: Any, added: Any, stream: Stream) -> None:
    """Encode all of its pictures."""
    for i, pixels in enumerate(pictures(stream)):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=stream.layout)
        frame.pts, frame.time_base = stream.pts(i), stream.base
        with same_priority():
            packets = added.encode(frame)
        out.mux(packets)
    out.mux(added.encode())


def written(stream: Stream, format: str | None = None, **options: Any) -> Callable[[Path], None]:
    """A writer of a video with this stream."""

    def make(path: Path) -> None:
        with av.open(str(path), "w", format=format, **options) as out:
            encode(out, add(out, stream), stream)

    return make


def sound(out: Any, codec: str = "aac", seconds: float = 0.25) -> None:
    """Add a sound to an open container."""
    voice = out.add_stream(codec, rate=48000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, int(48000 * seconds)), np.int16), format="s16", layout="mono")
    frame.rate, frame.pts = 48000, 0
    out.mux(voice.encode(frame))
    out.mux(voice.encode())


def _bytes(data: bytes) -> Callable[[Path], None]:
    return lambda path: void(path.write_bytes(data))


def void(_: object) -> None:
    """Forget a result."""


def _cut(make: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    """The first part of a file."""

    def cut(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return cut


def _without_index(path: Path) -> None:
    written(Stream())(path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])


def _overwritten(path: Path) -> None:
    """The second half of the compressed data is noise."""
    written(Stream(count=40))(path)
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    half = (start + end) // 2
    data[half:end] = np.random.default_rng(1).bytes(end - half)
    path.write_bytes(bytes(data))


def _sound_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        sound(out, "pcm_s16le" if path.suffix == ".avi" else "aac")


def _sound_first(path: Path) -> None:
    with av.open(str(path), "w") as out:
        voice = out.add_stream("aac", rate=48000, layout="mono")
        added = add(out, Stream())
        encode(out, added, Stream())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 12000), np.int16), format="s16", layout="mono")
        frame.rate, frame.pts = 48000, 0
        out.mux(voice.encode(frame))
        out.mux(voice.encode())


def _longer_sound(path: Path) -> None:
    with av.open(str(path), "w") as out:
        added = add(out, Stream())
        sound(out, "pcm_s16le", 3.0)
        encode(out, added, Stream())


def _no_frames(path: Path) -> None:
    with av.open(str(path), "w") as out:
        add(out, Stream())
        sound(out)


def _two_videos(path: Path) -> None:
    with av.open(str(path), "w") as out:
        small, large = Stream(size=(32, 24)), Stream()
        streams = [add(out, small), add(out, large)]
        encode(out, streams[0], small)
        encode(out, streams[1], large)


def _joined(path: Path) -> None:
    written(Stream(), "mpegts")(path)
    data = path.read_bytes()
    path.write_bytes(data + data)


def _two_sizes(path: Path) -> None:
    parts = []
    for size in ((64, 48), (80, 48)):
        written(Stream(size=size), "mpegts")(path)
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))


def _turned(turns: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        written(Stream())(path)
        rotate_tag(path, turns)

    return make


def _mirrored(path: Path) -> None:
    """A matrix that mirrors the picture, as some selfie cameras write it."""
    written(Stream())(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4
    matrix = place + 4 + (32 if data[place] else 20) + 16
    data[matrix : matrix + 36] = struct.pack(">9i", -1 << 16, 0, 0, 0, 1 << 16, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(bytes(data))


def _large_header(path: Path) -> None:
    """The container claims a picture of 60,000 x 60,000 pixels."""
    written(Stream())(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"avc1") + 4 + 24
    data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    path.write_bytes(bytes(data))


def _picture(path: Path) -> None:
    from PIL import Image

    Image.fromarray(next(pictures(Stream()))).save(path, "PNG")


def _interlaced(path: Path) -> None:
    written(Stream(options={"flags": "+ilme+ildct", "x264-params": "tff=1"}))(path)


def _anamorphic(path: Path) -> None:
    with av.open(str(path), "w") as out:
        added = add(out, Stream())
        added.codec_context.sample_aspect_ratio = Fraction(64, 45)
        encode(out, added, Stream())


GRAY10 = Stream("ffv1", "gray10le")
KINDS: dict[str, Odd] = {
    "empty": Odd(".mp4", _bytes(b""), None),
    "one byte": Odd(".mp4", _bytes(b"\x00"), None),
    "text": Odd(".mp4", _bytes(b"this is no video\n" * 40), None),
    "zeros": Odd(".mov", _bytes(bytes(4096)), None),
    "noise": Odd(".mkv", _bytes(np.random.default_rng(0).bytes(5000)), None),
    "subtitles": Odd(".mkv", _bytes(b"1\n00:00:01,000 --> 00:00:02,000\nHello\n"), None),
    "a PNG": Odd(".mp4", _picture, 1),
    "no index": Odd(".mp4", _without_index, None),
    "head only": Odd(".mp4", _cut(written(Stream()), 0.02), None),
    "cut MP4": Odd(".mp4", _cut(written(Stream(options={"crf": "1"}), options={"movflags": "+faststart"}), 0.9), None),
    "cut Matroska": Odd(".mkv", _cut(written(Stream("ffv1", "yuv420p")), 0.6), 3),
    "cut transport stream": Odd(".ts", _cut(written(steady("mpeg2video", options={"b": "4M"})), 0.6), 3),
    "cut AVI": Odd(".avi", _cut(written(steady("mjpeg", "yuvj420p")), 0.6), 1),
    "noise in the data": Odd(".mp4", _overwritten, None),
    "sound only": Odd(".mp4", _sound_only, None),
    "sound only in AVI": Odd(".avi", _sound_only, None),
    "no frames": Odd(".mp4", _no_frames, None),
    "one frame": Odd(".mp4", written(Stream(count=1)), 1),
    "one frame in Matroska": Odd(".mkv", written(Stream(count=1)), 1),
    "sound before video": Odd(".mp4", _sound_first),
    "sound that goes on": Odd(".mov", _longer_sound),
    "two videos": Odd(".mp4", _two_videos),
    "joined recordings": Odd(".ts", _joined, 2 * COUNT),
    "changing size": Odd(".ts", _two_sizes, None),
    "turned by 90 degrees": Odd(".mp4", _turned(1)),
    "turned by 180 degrees": Odd(".mov", _turned(2)),
    "mirrored": Odd(".mp4", _mirrored),
    "large header": Odd(".mp4", _large_header),
    "odd size": Odd(".mp4", written(Stream(layout="yuv444p", size=(63, 47)))),
    "tiny": Odd(".mkv", written(Stream("ffv1", "yuv420p", size=(2, 2)))),
    "one pixel": Odd(".mkv", written(Stream("ffv1", "bgr0", size=(1, 1)))),
    "a line": Odd(".mkv", written(Stream("ffv1", "yuv444p", size=(300, 1)))),
    "interlaced": Odd(".mp4", _interlaced),
    "wide pixels": Odd(".mp4", _anamorphic),
    "alpha in ProRes": Odd(".mov", written(Stream("prores_ks", "yuva444p10le"))),
    "alpha in FFV1": Odd(".mkv", written(Stream("ffv1", "bgra"))),
    "alpha in QuickTime Animation": Odd(".mov", written(Stream("qtrle", "argb"))),
    "alpha in PNG frames": Odd(".mov", written(Stream("png", "rgba"))),
    "gray": Odd(".mp4", written(Stream(layout="gray"))),
    "gray, 10 bits": Odd(".mkv", written(GRAY10)),
    "12 bits": Odd(".mkv", written(Stream("ffv1", "yuv422p12le"))),
    "16 bits": Odd(".mkv", written(Stream("ffv1", "gbrp16le"))),
    "raw": Odd(".avi", written(steady("rawvideo"))),
    "Motion JPEG": Odd(".avi", written(steady("mjpeg", "yuvj420p"))),
    "MPEG-2": Odd(".mpg", written(steady("mpeg2video"), "mpeg"), target=".mp4"),
    "Flash": Odd(".flv", written(Stream("flv1", "yuv420p")), target=".mp4"),
    "Windows Media": Odd(".wmv", written(Stream("wmv2", "yuv420p")), target=".mp4"),
    "MPEG-4 part 2": Odd(".avi", written(steady("mpeg4"))),
    "VP8": Odd(".webm", written(Stream("libvpx"))),
    "Matroska named MP4": Odd(".mp4", written(Stream(), "matroska")),
    "GIF named MP4": Odd(".mp4", written(Stream("gif", "rgb8", rate=10), "gif")),
    "irregular times": Odd(".mkv", written(Stream(pts=lambda i: (0, 300, 2000, 2100, 9000, 9600)[i]))),
    "one frame in ten seconds": Odd(".mp4", written(Stream(rate=Fraction(1, 10), pts=lambda i: 128000 * i))),
    "a thousand frames a second": Odd(".mp4", written(Stream(rate=1000, pts=lambda i: 13 * i))),
    "late start": Odd(".mp4", written(Stream(pts=lambda i: 640000 + 512 * i))),
    "negative times": Odd(".mkv", written(Stream(pts=lambda i: 512 * i - 1024))),
    "fragmented": Odd(".mp4", written(Stream(), options={"movflags": "+frag_keyframe+empty_moov"})),
}
