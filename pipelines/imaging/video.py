"""Read videos frame by frame, in constant memory: upright, in RGB, with the times of the source."""

from __future__ import annotations

import io
import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import FaceVeilError, InputError
from ..core.files import exists, short_reason
from ..core.parallel import ahead
from .convert import converted
from .hdr import UNKNOWN, Mastering, mastering_of
from .patch import Decoded

if TYPE_CHECKING:
    import av

MAX_SECONDS = 1e7
MAX_FRAME_PIXELS = 70_000_000
"""Larger frames (8K has 33 megapixels) are refused."""
MILLISECOND = Fraction(1, 1000)
"""Time base of streams that name none."""
RGB = (("rgb24", "rgb48le"), ("rgba", "rgba64le"))
"""FFmpeg's names of RGB without and with alpha, of 8 and of 16 bits."""
AHEAD = 4
"""Frames that are decoded while earlier ones are treated."""
HD_HEIGHT = 720
"""Rows from which a video without a color matrix is taken for BT.709, below for BT.601."""
BT709, BT601 = 1, 5
"""Numbers of color matrices in H.273, which FFmpeg uses."""
MATRICES = (BT709, 4, BT601, 6, 7, 9)
"""Those that can be converted; others, and videos that name none, are guessed."""
WITHOUT_TIMES = ("avi",)
"""FFmpeg's names of containers that store no times at which frames are shown."""
COPIED = ("audio", "subtitle")
"""Kinds of streams that are copied. Data streams (GPS, telemetry), attachments and cover images are not."""


@dataclass(frozen=True)
class Span:
    """Part of a video in seconds; ``end`` None is the end of the video."""

    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        end = math.inf if self.end is None else self.end
        if not 0 <= self.start <= MAX_SECONDS or not end > self.start:
            raise InputError(f"the span from {self.start:g} to {end:g} s is empty; give 0 <= start < end, in seconds")

    @property
    def whole(self) -> bool:
        return self.start == 0 and self.end is None


WHOLE = Span()
"""The whole video."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video without decoding it.

    Attributes:
        width, height: of upright frames, in pixels.
        turns: quarter turns, counter-clockwise, that make stored frames upright.
        rate: average frames per second.
        frames: expected number of frames in the span; 0 where it is unknown.
        duration: of the span in seconds; 0 where it is unknown.
        deep: whether a channel has more than 8 bits.
        alpha: whether frames have transparency.
        base: unit of the frames' times, in seconds.
        origin: time of the span's first moment in the file, in this unit.
        matrix: number of the color matrix by which frames are converted to RGB and back.
        counted: whether ``frames`` was counted by the container, not computed from the average rate.
        mastering: HDR metadata.
    """

    width: int
    height: int
    turns: int
    rate: Fraction
    frames: int
    duration: float
    deep: bool
    alpha: bool
    base: Fraction
    matrix: int
    origin: int = 0
    counted: bool = False
    mastering: Mastering = UNKNOWN


@dataclass(frozen=True)
class VideoFrame:
    """One upright frame.

    Attributes:
        index: its number within the span.
        pixels: ``(H, W, 3)``, RGB, uint8, or uint16 for a deep video.
        pts: its time in units of the video stream's time base, from the start of the span.
        duration: in the same units; 0 where it is unknown.
        alpha: ``(H, W)`` of the same type; None where there is no transparency.
        decoded: what the pixels were before anything was changed; None where they are not those of a file, or were
            turned.
    """

    index: int
    pixels: np.ndarray
    pts: int
    duration: int
    alpha: np.ndarray | None = None
    decoded: Decoded | None = None


@dataclass(frozen=True)
class StreamPacket:
    """A packet of another stream than the video's.

    Attributes:
        stream: index of its stream; the packet itself must not be asked once its file is closed.
    """

    stream: int
    packet: av.Packet


class VideoSource:
    """A video file that can be read several times.

    Args:
        file: a path, or the bytes of a file.
        span: the part that is read.

    Attributes:
        name: for messages.
        info: see ``VideoInfo``.
        went_back: whether times of frames read so far went back, as in recordings that were joined byte by byte.

    Raises:
        InputError: the file is missing, damaged, or has no video stream.
    """

    def __init__(self, file: Path | io.BytesIO, span: Span = WHOLE) -> None:
        self.file, self.span, self.went_back = file, span, False
        self.name = file.name if isinstance(file, Path) else "the video"
        if isinstance(file, Path) and not exists(file):
            raise InputError(f"{file.name} does not exist; check its name and folder")
        if isinstance(file, Path) and not file.is_file():
            raise InputError(f"{file.name or file.absolute()} is no file, so it is no video")
        try:
            with closing(self.open()) as container:
                self.info = self._info(container)
        except FaceVeilError:
            raise
        except Exception as error:  # PyAV raises FFmpeg's errors, OSError, ValueError and others
            raise self._damaged(error) from None

    def open(self) -> av.container.InputContainer:
        """Open the file for reading; the caller closes it."""
        import av

        quiet()
        source: str | io.BytesIO = str(self.file) if isinstance(self.file, Path) else io.BytesIO(self.file.getbuffer())
        return av.open(source, "r", metadata_errors="ignore")

    def stream(self, container: av.container.InputContainer) -> av.VideoStream:
        """The video stream; cover images are none.

        Raises:
            InputError: there is no video stream.
        """
        streams = [s for s in container.streams.video if not is_cover(s)]
        if not streams:
            raise InputError(f"{self.name} has no video stream; give a video")
        # The largest is the video; others can be previews.
        return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height)

    def frames(self) -> Iterator[VideoFrame]:
        """All frames of the span; some are decoded ahead in a thread.

        Raises:
            InputError: the file is damaged, or frames have different sizes.
        """
        return (item for item in self.items() if isinstance(item, VideoFrame))

    def items(self, copied: tuple[int, ...] = ()) -> Iterator[VideoFrame | StreamPacket]:
        """Frames, and the packets of the streams with these indices, in the order of the file.

        Raises:
            InputError: as for ``frames``.
        """
        return ahead(self._items(copied), AHEAD)

    def _items(self, copied: tuple[int, ...]) -> Iterator[VideoFrame | StreamPacket]:
        count, last, step = 0, -1, 1
        latest: int | None = None
        try:
            with closing(self.open()) as container:
                stream = self.stream(container)
                stream.thread_type = "AUTO"
                wanted = [s for s in container.streams if s is stream or s.index in copied]
                start = self._start(container)
                # MPEG-TS has no index: FFmpeg lands behind the key frame.
                if self.span.start > 0 and container.format.name != "mpegts":
                    container.seek(int((self.span.start + start) * 1_000_000), backward=True)
                video_ended = False
                # An AVI file tells in which order frames are decoded. They are shown at the same times, in their own
                # order; FFmpeg would show B-frames when they are decoded.
                without_times, shown = container.format.name in WITHOUT_TIMES, deque[int]()
                for packet in container.demux(wanted):
                    if packet.stream is not stream:
                        if self._is_inside(packet, start):
                            yield StreamPacket(packet.stream.index, packet)
                        continue
                    if video_ended:
                        continue
                    if without_times and packet.dts is not None and packet.size:
                        shown.append(packet.dts)
                    for frame in packet.decode():
                        assert isinstance(frame, _frame_type())
                        if shown:
                            frame.pts = shown.popleft()
                        if frame.pts is not None:
                            self.went_back |= latest is not None and frame.pts < latest
                            latest = frame.pts
                        found = self._frame(frame, stream, count, start)
                        if found == "before":
                            continue
                        if found == "after":
                            video_ended = True
                            break
                        assert isinstance(found, VideoFrame)
                        # Joined recordings start again at 0; no container can hold times that go back.
                        if count and found.pts <= last:
                            found = replace(found, pts=last + step)
                        step = found.pts - last if count else 1
                        count, last = count + 1, found.pts
                        yield found
        except FaceVeilError:
            raise
        except Exception as error:  # see __init__
            if count:
                seconds = float(last * self.info.base)
                raise InputError(
                    f"{self.name} is damaged after {seconds:.1f} s; get a fresh copy, or give --end"
                ) from None
            raise self._damaged(error) from None
        if count == 0:
            raise InputError(f"no frame of {self.name} can be read in this span; check the file and --start and --end")

    def _frame(self, frame: Any, stream: av.VideoStream, index: int, start: float) -> VideoFrame | str:
        base = stream.time_base or MILLISECOND
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            pts = round(index / float(self.info.rate) / base)
        seconds = float(pts * base) - start
        if seconds < self.span.start - float(base) / 2:
            return "before"
        if self.span.end is not None and seconds >= self.span.end - float(base) / 2:
            return "after"
        if frame.is_corrupt:
            raise InputError(f"{self.name} is damaged at {seconds:.1f} s; get a fresh copy, or give --end")
        turned = self.info.turns % 2
        size = (self.info.height, self.info.width) if turned else (self.info.width, self.info.height)
        if (frame.width, frame.height) != size:
            raise InputError(f"the frames of {self.name} change their size at {seconds:.1f} s; convert it first")
        shift = 0 if self.span.whole else self.info.origin
        pixels, alpha = to_rgb(frame, self.info)
        # Nobody can change them in place: a change is what differs from them.
        pixels.flags.writeable = False
        decoded = None if self.info.turns else Decoded(frame, pixels)
        return VideoFrame(index, pixels, int(pts) - shift, int(getattr(frame, "duration", 0) or 0), alpha, decoded)

    def _is_inside(self, packet: av.Packet, start: float) -> bool:
        """Whether a packet of another stream has a time within the span."""
        # The end of a stream is announced by an empty packet. A packet without a decoding time is no such thing.
        if packet.size == 0:
            return False
        if self.span.whole:
            return True
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            return False
        seconds = float(ticks * packet.time_base) - start
        return seconds >= self.span.start and (self.span.end is None or seconds < self.span.end)

    def _start(self, container: av.container.InputContainer) -> float:
        """Time of the file's first moment, in seconds."""
        return (container.start_time or 0) / 1_000_000

    def _info(self, container: av.container.InputContainer) -> VideoInfo:
        stream = self.stream(container)
        context = stream.codec_context
        first = next(iter(container.decode(stream)), None)
        if first is None or first.width == 0 or first.height == 0:
            raise InputError(f"{self.name} has no frame that can be read; get a fresh copy")
        if first.width * first.height > MAX_FRAME_PIXELS:
            raise InputError(f"the frames of {self.name} have {first.width} x {first.height} pixels; make it smaller")
        rate = stream.average_rate or stream.guessed_rate or context.framerate or Fraction(25)
        if not 0 < rate <= 1000:
            rate = Fraction(25)
        seconds = self._seconds(container, stream)
        counted = self.span.whole and stream.frames > 0
        frames = stream.frames if counted else round(seconds * rate)
        matrix = int(first.colorspace)
        if matrix not in MATRICES:
            matrix = BT709 if first.height >= HD_HEIGHT else BT601
        turns = round(getattr(first, "rotation", 0) / 90) % 4
        width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
        return VideoInfo(
            width=width,
            height=height,
            turns=turns,
            rate=rate,
            frames=int(frames),
            duration=seconds,
            deep=any(component.bits > 8 for component in first.format.components),
            alpha=any(component.is_alpha for component in first.format.components),
            base=stream.time_base or MILLISECOND,
            matrix=matrix,
            origin=round((self.span.start + self._start(container)) / (stream.time_base or MILLISECOND)),
            counted=counted,
            mastering=mastering_of(first),
        )

    def _seconds(self, container: av.container.InputContainer, stream: av.VideoStream) -> float:
        whole = 0.0
        if stream.duration is not None and stream.time_base is not None:
            whole = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            whole = container.duration / 1_000_000
        if whole <= 0:
            return 0.0
        end = whole if self.span.end is None else min(self.span.end, whole)
        return max(0.0, end - self.span.start)

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"{self.name} is damaged or no video of a known format ({short_reason(error)})")


def quiet() -> None:
    """Let FFmpeg say nothing.

    PyAV's own handler of messages waits for Python's lock. Where a thread that holds the lock waits for FFmpeg's
    decoders, and one of these has a message, both would wait forever.
    """
    import av

    # SVT-AV1 has messages of its own.
    os.environ.setdefault("SVT_LOG", "0")
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def is_cover(stream: Any) -> bool:
    """Whether a video stream is a still image beside the video, such as a cover: it can show a face."""
    return "attached_pic" in str(stream.disposition).lower()


def to_rgb(frame: Any, info: VideoInfo) -> tuple[np.ndarray, np.ndarray | None]:
    """A decoded frame as an upright array ``(H, W, 3)``, by the matrix of ``info``, and its alpha ``(H, W)``."""
    layout = RGB[info.alpha][info.deep]
    array: np.ndarray = converted(frame, layout, info.matrix).to_ndarray()
    if info.turns:
        array = np.ascontiguousarray(np.rot90(array, info.turns))
    if not info.alpha:
        return array, None
    return np.ascontiguousarray(array[..., :3]), np.ascontiguousarray(array[..., 3])


def _frame_type() -> type[Any]:
    import av

    return av.VideoFrame
