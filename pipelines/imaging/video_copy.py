"""Copy a video without its tags: the streams stay bit for bit, and only what can be seen and heard is kept."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from ..core.errors import InputError, OutputError
from ..core.files import Unfinished, short_reason
from ..core.progress import Progress, silent
from .formats import VIDEO_OUTPUTS
from .video import COPIED, VideoFrame, VideoSource, is_cover
from .video_write import VideoFormat, VideoTarget, add_chapters, add_copy, muxer, muxer_options

STEP = 200
"""Packets between two calls of the progress callback."""


def copy_without_tags(source: VideoSource, target: Path, progress: Progress = silent) -> None:
    """Write a video again without tags, cover images, attachments and data streams.

    The video is encoded again only where a part of it is wanted, or a rotation tag must be applied.

    Raises:
        InputError: the video is damaged, or the container cannot hold one of its streams.
        OutputError: the file cannot be written.
    """
    if target.suffix.lower() not in VIDEO_OUTPUTS:
        raise OutputError(f"{target.name} has no known video suffix; use {', '.join(VIDEO_OUTPUTS)}")
    if not source.span.whole or source.info.turns:
        _encoded(source, target, progress)
        return
    unfinished = Unfinished(target)
    try:
        _remuxed(source, unfinished.path, target.suffix.lower(), progress)
    except BaseException:
        unfinished.discard()
        raise
    unfinished.finish()


def _encoded(source: VideoSource, target: Path, progress: Progress) -> None:
    with closing(source.open()) as container, VideoTarget(target, source, container, VideoFormat()) as out:
        for item in source.items(out.copied):
            if isinstance(item, VideoFrame):
                progress(item.index, max(source.info.frames, item.index + 1), "saving")
                out.write(item)
            else:
                out.copy(item)


def _remuxed(source: VideoSource, path: Path, suffix: str, progress: Progress) -> None:
    import av

    try:
        with closing(source.open()) as container:
            out: Any = av.open(str(path), "w", format=muxer(suffix), options=muxer_options(suffix))
            try:
                video = source.stream(container)
                kept = [s for s in container.streams if s is video or (s.type in COPIED and not is_cover(s))]
                streams = {s.index: add_copy(out, s, source.name, suffix) for s in kept}
                add_chapters(out, container)
                for count, packet in enumerate(container.demux(kept)):
                    if count % STEP == 0:
                        progress(min(count, source.info.frames), max(source.info.frames, count + 1), "saving")
                    if packet.size > 0:
                        packet.stream = streams[packet.stream.index]
                        out.mux(packet)
            finally:
                with suppress(Exception):
                    out.close()
    except InputError:
        raise
    except av.FFmpegError as error:
        raise OutputError(
            f"{source.name} could not be copied into a {suffix} file ({short_reason(error)}); choose another format"
        ) from None
