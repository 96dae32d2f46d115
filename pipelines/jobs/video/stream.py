"""Render a plan with a method that draws each frame by those around it; the frames stream through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ...core.errors import InputError, PolicyStop
from ...core.progress import Progress, silent
from ...faces.face import Face
from ...imaging.uint8 import to_tensor, to_uint8, to_uint16
from ...imaging.video import VideoFrame, VideoSource
from ...imaging.video_write import VideoFormat, VideoTarget
from ...methods.base import StreamedFrame, StreamingMethod
from ...recognition.base import FaceRecognizer
from ..settings import Settings
from .plan import FrameIndex, VideoPlan
from .render import PREVIEW_EVERY, ShowFrame, conclude
from .report import VideoReport


def stream(
    source: VideoSource,
    plan: VideoPlan,
    settings: Settings,
    method: StreamingMethod,
    recognizers: Sequence[FaceRecognizer],
    target: Path,
    format: VideoFormat,
    progress: Progress = silent,
    show: ShowFrame | None = None,
) -> VideoReport:
    """Write a video with its planned faces drawn by a streaming method.

    Raises:
        InputError: the video has other frames than the plan, or the strength is 0.
        OutputError: the target cannot be written.
        PolicyStop: the policy is ``stop`` and a face was redacted.
    """
    if settings.strength <= 0:
        raise InputError("a reenacted video needs a strength above 0")
    if settings.same_person or plan.limits or any(planned.limits for planned in plan.tracks):
        raise InputError(
            "a reenacted video takes no --same-person and no limits of frames; leave out the network for clips"
        )
    report, index = VideoReport(settings.method, kept=plan.untreated), plan.by_frame()
    stops = "stop" in (settings.policy.out_of_range, settings.policy.failed, settings.policy.still_similar)
    waiting: deque[VideoFrame] = deque()
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:

        def report_progress(*_: object) -> None:
            progress(report.frames, plan.frames, "replacing faces")

        frames = _read(source, out, index, waiting)
        drawn = method.stream(frames, recognizers, settings.seed, settings.strength, report_progress)
        for done in drawn:
            frame = waiting.popleft()
            report_progress()
            if done.redacted and stops:
                raise PolicyStop(
                    f"a face of frame {frame.index} cannot be replaced, so nothing was handed on (policy stop)"
                )
            result = replace(frame, pixels=_changed(frame.pixels, done))
            out.write(result)
            report.add_frame(result)
            report.tally("replaced", done.replaced)
            report.tally("redacted", done.redacted)
            if show is not None and frame.index % PREVIEW_EVERY == 0:
                show(result.pixels)
        conclude(report, source, plan, out)
    report_progress()
    return report


def _read(
    source: VideoSource, out: VideoTarget, index: FrameIndex, waiting: deque[VideoFrame]
) -> Iterator[tuple[Tensor, Sequence[Face]]]:
    """The frames with their planned faces; packets of other streams are copied at once."""
    for item in source.items(out.copied):
        if not isinstance(item, VideoFrame):
            out.copy(item)
            continue
        waiting.append(item)
        yield to_tensor(item.pixels), [planned.face for planned in index[item.index]]


def _changed(before: np.ndarray, done: StreamedFrame) -> np.ndarray:
    """The new frame in the source's own type; what the method did not change stays bit for bit."""
    if not done.replaced and not done.redacted:
        return before
    changed = (done.image != to_tensor(before)).any(1)[0].numpy()
    after = to_uint16(done.image) if before.dtype == np.uint16 else to_uint8(done.image)
    return np.where(changed[..., None], after, before)
