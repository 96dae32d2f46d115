"""Write a video like its source: same times, colors, sound, subtitles and chapters, and no tag of the source."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.errors import FaceVeilError, InputError, OutputError
from ..core.files import Unfinished, short_reason
from ..core.threads import same_priority
from .convert import converted
from .encoders import ENCODERS, TRANSPARENT, WITH_ALPHA, codec_for
from .formats import VIDEO_CODECS, VIDEO_OUTPUTS
from .hdr import encoder_options
from .headers import without_tags
from .patch import FULL_RANGE, can_patch, patched
from .video import COPIED, RGB, StreamPacket, VideoFrame, VideoSource, is_cover

if TYPE_CHECKING:
    import av


RGB_MATRIX = 0
"""Number of the color matrix of RGB in H.273."""
_WITHOUT_TIMES = (".avi",)
"""Containers that store no times: frames follow each other at a constant rate, in the order they are shown."""
_APPLE = (".mp4", ".m4v", ".mov")
FULL_CHROMA = {"yuv420p": "yuv444p", "yuv420p10le": "yuv444p10le"}
"""Where a side is odd, chroma cannot be halved."""


@dataclass(frozen=True)
class VideoFormat:
    """How a video is written.

    Attributes:
        codec: one of ``VIDEO_CODECS``.
        hardware: whether an encoder of a graphics chip is used where there is one.

    Raises:
        InputError: the codec is unknown.
    """

    codec: str = "auto"
    hardware: bool = False

    def __post_init__(self) -> None:
        if self.codec not in VIDEO_CODECS:
            raise InputError(f"video codec {self.codec!r} is not one of {', '.join(VIDEO_CODECS)}")


class VideoTarget:
    """Writes one video beside reading another; use it in a ``with`` statement.

    The file appears under its name when it is complete; where an error is raised, nothing is left of it.

    Args:
        path: of the file; its suffix names the container.
        source: the video whose times, colors and other streams are taken over.
        container: the opened source, from which packets are copied.

    Raises:
        InputError: the container cannot hold the codec or one of the copied streams.
        OutputError: the file cannot be written, or this FFmpeg has no such encoder.
    """

    def __init__(
        self, path: Path, source: VideoSource, container: av.container.InputContainer, format: VideoFormat
    ) -> None:
        self._path, self._source = path, source
        self._stream_in = source.stream(container)
        suffix = path.suffix.lower()
        if suffix not in VIDEO_OUTPUTS:
            raise OutputError(f"{path.name} has no known video suffix; use {', '.join(VIDEO_OUTPUTS)}")
        codec = codec_for(format.codec, suffix, self._stream_in.codec_context.name, path, source.info)
        self._file = Unfinished(path)
        try:
            self._out = _create(self._file.path, suffix)
            self._add_streams(suffix, codec, format, container)
        except BaseException as error:
            self._abandon()
            if isinstance(error, Exception) and not isinstance(error, FaceVeilError):
                raise self._failed(error) from None
            raise

    def _add_streams(
        self, suffix: str, codec: str, format: VideoFormat, container: av.container.InputContainer
    ) -> None:
        self._constant = suffix in _WITHOUT_TIMES
        self._video = _add_video(self._out, codec, suffix, self._source, self._stream_in, format.hardware)
        self._alpha = self._video.pix_fmt in ENCODERS[codec].alpha
        if self._constant:
            self._video.time_base = self._video.codec_context.time_base = 1 / self._source.info.rate
        if codec == "hevc" and suffix in _APPLE:
            # Apple's players know only this tag.
            self._video.codec_context.codec_tag = "hvc1"
        self._copied: dict[int, Any] = {}
        for stream in container.streams:
            if stream.type in COPIED and not is_cover(stream):
                self._copied[stream.index] = add_copy(self._out, stream, self._source.name, suffix)
        if self._source.span.whole:
            add_chapters(self._out, container)

    @property
    def copied(self) -> tuple[int, ...]:
        """Indices of the source's streams whose packets ``copy`` takes."""
        return tuple(self._copied)

    @property
    def losses(self) -> list[str]:
        """Sentences on what of the source this file cannot hold."""
        lost = []
        if self._source.info.deep and not any(bits in self._video.pix_fmt for bits in ("10", "12", "14", "16")):
            lost.append("only 8 bits a channel were written, because this encoder has no more; choose another codec")
        # FFmpeg decodes VP8 and VP9 without the transparency that a tag announces.
        transparent = self._source.info.alpha or self._stream_in.metadata.get("alpha_mode") == "1"
        if transparent and not self._alpha:
            lost.append("the transparency is lost; write prores into a .mov file, or ffv1 into a .mkv file, to keep it")
        return lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            for packet in self._video.encode():
                self._out.mux(packet)
            self._out.close()
            self._file.finish()
        except Exception as failure:
            self._file.discard()
            raise self._failed(failure) from None

    def write(self, frame: VideoFrame) -> None:
        """Append an upright frame.

        Raises:
            OutputError: the disk is full, or the encoder failed.
        """
        import av

        info = self._source.info
        context = self._video.codec_context
        if frame.decoded is not None and can_patch(frame.decoded, context.pix_fmt):
            picture = patched(frame.decoded, frame.pixels, info.matrix)
        else:
            layout, pixels = RGB[self._alpha][frame.pixels.dtype == np.uint16], frame.pixels
            if self._alpha:
                assert frame.alpha is not None
                pixels = np.dstack([pixels, frame.alpha])
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout)
            # Without the source's matrix and range the colors would shift.
            matrix = None if context.pix_fmt.startswith(("bgr", "gbr")) else info.matrix
            picture = converted(picture, context.pix_fmt, matrix)
        picture.pts, picture.time_base = frame.pts, context.time_base
        if self._constant:
            picture.pts = frame.index
        elif frame.duration:
            with suppress(AttributeError):  # read-only in older versions of PyAV
                picture.duration = frame.duration
        try:
            with same_priority():
                packets = self._video.encode(picture)
            for packet in packets:
                self._out.mux(packet)
        except Exception as error:
            raise self._failed(error) from None

    def copy(self, item: StreamPacket) -> None:
        """Append a packet of a copied stream, unchanged.

        Raises:
            OutputError: the disk is full, or the container cannot hold the packet.
        """
        info, packet = self._source.info, item.packet
        if not self._source.span.whole:
            # The frames' times begin at 0 here, and those of some files do not.
            shift = round(info.origin * info.base / packet.time_base)
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.pts = None if packet.pts is None else packet.pts - shift
        packet.stream = self._copied[item.stream]
        try:
            self._out.mux(packet)
        except Exception as error:
            raise self._failed(error) from None

    def _abandon(self) -> None:
        """Close and delete the unfinished file."""
        # The container may not be open, or its file full.
        with suppress(Exception):
            self._out.close()
        self._file.discard()

    def _failed(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self._path.name} could not be written ({short_reason(error)}); free some space, or choose another"
            " --video-codec or another suffix"
        )


def _create(path: Path, suffix: str) -> av.container.OutputContainer:
    import av

    return av.open(str(path), "w", format=muxer(suffix), options=muxer_options(suffix))


def muxer(suffix: str) -> str:
    """FFmpeg's name of a container, which it cannot tell from a temporary file's name."""
    names = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
    return names.get(suffix, "mpegts")


def muxer_options(suffix: str) -> dict[str, str]:
    """Options of a container: a browser can play an MP4 file before it has all of it."""
    return {"movflags": "+faststart"} if suffix in _APPLE else {}


def add_copy(out: Any, stream: Any, name: str, suffix: str) -> Any:
    """Add a stream to a container whose packets are copied; of its tags only the language stays.

    Raises:
        InputError: the container cannot hold it, or its header is damaged.
    """
    try:
        # Opaque: without an encoder of its codec, such as AV1 that was decoded by dav1d, the stream could not be made.
        added = out.add_stream_from_template(stream, opaque=True)
    except Exception:  # FFmpeg's errors differ with the container
        raise InputError(
            f"a stream of {name} ({stream.type}, {stream.codec_context.name}) does not fit into {suffix} files; write a"
            " .mkv file"
        ) from None
    header = stream.codec_context.extradata
    if header:
        try:
            added.codec_context.extradata = without_tags(stream.codec_context.name, header)
        except ValueError as error:
            raise InputError(f"a stream of {name} is damaged ({error}); get a fresh copy") from None
    language = stream.metadata.get("language")
    added.metadata.clear()
    if language:
        added.metadata["language"] = language
    return added


def add_chapters(out: Any, container: Any) -> None:
    """Copy the chapters' times; their titles are tags of the source."""
    # Older versions of PyAV have no chapters.
    if not hasattr(container, "chapters"):
        return
    chapters: Any = [{**chapter, "metadata": {}} for chapter in container.chapters()]
    if chapters:
        out.set_chapters(chapters)


def _add_video(
    out: Any,
    codec: str,
    suffix: str,
    source: VideoSource,
    stream_in: av.VideoStream,
    hardware: bool,
) -> Any:
    import av

    encoder, info = ENCODERS[codec], source.info
    transparent = info.alpha and codec in TRANSPARENT.get(suffix, ())
    formats, more = (encoder.alpha, WITH_ALPHA.get(codec, {})) if transparent else (encoder.formats, {})
    # Many builds of libvpx have 8 bits only.
    known = {f.name for f in av.Codec(encoder.name, "w").video_formats or ()}
    pixel_format = formats[info.deep and formats[True] in known]
    if encoder.even and (info.width % 2 or info.height % 2):
        pixel_format = FULL_CHROMA[pixel_format]
    name = next((n for n in encoder.hardware if hardware and _opens(n, pixel_format)), encoder.name)
    if name == "libsvtav1" and (info.width % 2 or info.height % 2):
        raise InputError(
            f"av1 cannot hold the odd size {info.width} x {info.height} of {source.name}; choose --video-codec vp9"
        )
    options = {**encoder.options, **more} if name == encoder.name else {"bf": "0"}
    for option, value in encoder_options(info.mastering, name).items():
        options[option] = f"{options[option]}:{value}" if option in options else value
    stream = out.add_stream(name, rate=info.rate, options=options)
    stream.width, stream.height, stream.pix_fmt = info.width, info.height, pixel_format
    base = stream_in.time_base or Fraction(1, 1000)
    stream.time_base = stream.codec_context.time_base = base
    context, given = stream.codec_context, stream_in.codec_context
    if not pixel_format.startswith(("bgr", "gbr")):
        # The matrix of an RGB source is no matrix of YUV.
        context.colorspace = given.colorspace if given.colorspace != RGB_MATRIX else info.matrix
    context.color_primaries, context.color_trc = given.color_primaries, given.color_trc
    context.color_range = given.color_range if given.color_range != FULL_RANGE else 1
    ratio = stream_in.sample_aspect_ratio
    if ratio is not None and ratio > 0 and ratio != 1:
        context.sample_aspect_ratio = 1 / ratio if info.turns % 2 else ratio
    return stream


def _opens(name: str, pixel_format: str) -> bool:
    """Whether an encoder of a graphics chip works here."""
    import av

    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, pixel_format
        context.time_base = Fraction(1, 25)
        context.framerate = Fraction(25)
        context.encode(av.VideoFrame(256, 256, pixel_format))
        return True
    except Exception:  # FFmpeg's errors differ with the driver
        return False
