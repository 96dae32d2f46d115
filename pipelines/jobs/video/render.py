"""Second pass over a video: change the planned faces of each frame, and write everything else as it was."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ...core.parallel import Workers, ahead, streamed
from ...core.progress import Progress, silent
from ...imaging.video import StreamPacket, VideoFrame, VideoSource
from ...imaging.video_write import VideoFormat, VideoTarget
from ..render import FILL
from ..vault import UNKNOWN, Sealed, VaultWriter
from .frames import REACH, REDACTION_REACH, Done, FrameTreatment, Studio, Work, cut_out, treat_elsewhere
from .plan import FrameIndex, VideoPlan
from .report import VideoReport
from .roles import Cast

AHEAD = 3
"""Frames for each process that wait for it."""
WRITTEN = 2
"""Treated frames that wait to be encoded."""
PREVIEW_EVERY = 10
"""Frames between two previews."""
ShowFrame = Callable[[np.ndarray], None]
"""Shows a finished frame ``(H, W, 3)`` to the user."""


def render(
    source: VideoSource,
    plan: VideoPlan,
    studio: Studio,
    cast: Cast,
    target: Path,
    format: VideoFormat,
    treatment: FrameTreatment | None = None,
    workers: Workers | None = None,
    progress: Progress = silent,
    show: ShowFrame | None = None,
    vault: VaultWriter | None = None,
) -> VideoReport:
    """Write a video with its planned faces treated.

    Args:
        studio: how they are treated.
        cast: what is shown on whom.
        target: file to write.
        treatment: an opened one for this process; opened from ``studio`` when omitted.
        workers: processes that treat frames; none when omitted.
        progress: called before each frame; it may raise to interrupt, and nothing is left of the target.
        show: called with some of the finished frames.
        vault: gets the original pixels of all faces; the caller finishes it.

    Raises:
        InputError: the plan is of another video, or has other frames.
        OutputError: the target cannot be written.
        PolicyStop: the policy is ``stop`` and a face would not be protected.
    """
    plan.check(source)
    workers = workers or Workers(1)
    report = VideoReport(studio.settings.method, kept=plan.untreated)
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:
        # Frames are treated in a thread while earlier ones are encoded.
        for item, done in ahead(_rendered(source, plan, studio, cast, out.copied, treatment, workers, vault), WRITTEN):
            if not isinstance(item, VideoFrame):
                out.copy(item)
                continue
            progress(item.index, plan.frames, "replacing faces")
            out.write(item)
            report.add_frame(item)
            if done is not None:
                report.add(done.rows)
            if show is not None and item.index % PREVIEW_EVERY == 0:
                show(item.pixels)
        conclude(report, source, plan, out)
    progress(plan.frames, plan.frames, "replacing faces")
    return report


def conclude(report: VideoReport, source: VideoSource, plan: VideoPlan, out: VideoTarget) -> None:
    """Note what was lost, before the file gets its name.

    Raises:
        InputError: the video has other frames than the plan.
    """
    report.notes += out.losses
    if report.frames != plan.frames:
        raise InputError(f"{source.name} has {report.frames} frames, but {plan.frames} were planned; plan it again")
    report.compare(source)


def _rendered(
    source: VideoSource,
    plan: VideoPlan,
    studio: Studio,
    cast: Cast,
    copied: Sequence[int],
    treatment: FrameTreatment | None,
    workers: Workers,
    vault: VaultWriter | None,
) -> Iterator[tuple[VideoFrame | StreamPacket, Done | None]]:
    """All frames with their faces treated, and the packets in between, in order."""
    index = plan.by_frame()
    opened = treatment
    if opened is None and workers.count == 1:
        opened = FrameTreatment.opened(studio)
    packed = b"" if workers.count == 1 else pickle.dumps(studio)

    def here(_: bytes, work: Work) -> Done:
        assert opened is not None
        return opened.treat(work)

    reach = REDACTION_REACH if studio.settings.redacts_only else REACH
    jobs = _jobs(source, index, cast, tuple(copied), packed, reach)
    treat = treat_elsewhere if workers.count > 1 else here
    for (item, place), done in streamed(treat, jobs, workers, AHEAD * workers.count):
        if done is None or place is None or not isinstance(item, VideoFrame):
            yield item, done
            continue
        if vault is not None:
            seal(vault, item, place, done)
        pixels = item.pixels.copy()
        pixels[place] = done.pixels
        yield replace(item, pixels=pixels), done


def seal(vault: VaultWriter, frame: VideoFrame, place: tuple[slice, slice], done: Done) -> None:
    """Seal the original pixels of each face of a frame."""
    for number, (person, _) in enumerate(done.rows):
        mask = np.zeros(frame.pixels.shape[:2], bool)
        mask[place] = done.owners == number
        if mask.any():
            vault.add(UNKNOWN if person is None else person, frame.index, Sealed.of(frame.pixels, mask))


_Place = tuple[slice, slice] | None


def _jobs(
    source: VideoSource, index: FrameIndex, cast: Cast, copied: tuple[int, ...], packed: bytes, reach: float
) -> Iterator[tuple[tuple[VideoFrame | StreamPacket, _Place], tuple[bytes, Work] | None]]:
    """Each item of the video, and the work that it makes."""
    for item in source.items(copied):
        faces = index[item.index] if isinstance(item, VideoFrame) else []
        if not isinstance(item, VideoFrame) or not faces:
            yield (item, None), None
            continue
        work, place = cut_out(item, faces, cast, reach)
        yield (item, place), (packed, work)


def redacted_whole(source: VideoSource, target: Path, format: VideoFormat, progress: Progress = silent) -> VideoReport:
    """Write a gray video with the source's times and sound: the policy for a video without a face."""
    report = VideoReport("solid")
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:
        for item in source.items(out.copied):
            if not isinstance(item, VideoFrame):
                out.copy(item)
                continue
            progress(item.index, max(source.info.frames, item.index + 1), "redacting frames")
            gray = np.iinfo(item.pixels.dtype).max * FILL
            out.write(replace(item, pixels=np.full_like(item.pixels, round(gray))))
            report.add_frame(item)
        report.notes += out.losses
    return report
