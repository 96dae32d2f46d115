"""Redact all faces of a video in one pass: a frame is written as soon as nothing that is known of it can change.

Frames wait in memory for about two seconds, because a new face is followed back that far. Where they need too much
memory, the video is read twice instead, as for a replacement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ...core.errors import InputError, PolicyStop
from ...core.parallel import ahead
from ...core.progress import Progress, silent
from ...faces.detectors import Detector, open_detector
from ...faces.tracking.finder import FaceFinder
from ...faces.tracking.scenes import Scenes
from ...faces.tracking.track import Track
from ...faces.tracking.tracker import KNOWN_SECONDS, Tracker
from ...imaging.video import StreamPacket, VideoFrame, VideoSource
from ...imaging.video_write import VideoFormat, VideoTarget
from ..policy import Policy
from ..settings import Settings
from ..vault import VaultWriter
from .frames import REDACTION_REACH, FrameTreatment, cut_out
from .plan import PlannedFace
from .render import PREVIEW_EVERY, WRITTEN, ShowFrame, redacted_whole, seal
from .report import VideoReport

MAX_WAITING = 600 << 20
"""Bytes of the frames that wait."""
PIXEL_BYTES = 3 + 1.5
"""Of a waiting frame with 8 bits: its RGB pixels, and the decoded planes."""


def fits_one_pass(source: VideoSource) -> bool:
    """Whether the waiting frames fit into memory."""
    info = source.info
    frame = info.width * info.height * PIXEL_BYTES * (2 if info.deep else 1)
    return frame * (KNOWN_SECONDS * float(info.rate) + 2) <= MAX_WAITING


def redact_in_one_pass(
    source: VideoSource,
    target: Path,
    settings: Settings,
    format: VideoFormat,
    detector: Detector | None = None,
    progress: Progress = silent,
    show: ShowFrame | None = None,
    vault: VaultWriter | None = None,
) -> VideoReport:
    """Redact all faces of a video.

    Raises:
        InputError: the video is damaged.
        OutputError: the target cannot be written.
        PolicyStop: the policy is ``stop`` and there is no face.
    """
    try:
        return _redacted_faces(source, target, settings, format, detector, progress, show, vault)
    except _NoFace:
        return redacted_whole(source, target, format, progress)


class _NoFace(Exception):
    """There is no face, so the whole video is to be redacted. Raised before the untouched one gets its name."""


def _redacted_faces(
    source: VideoSource,
    target: Path,
    settings: Settings,
    format: VideoFormat,
    detector: Detector | None,
    progress: Progress,
    show: ShowFrame | None,
    vault: VaultWriter | None,
) -> VideoReport:
    finder = FaceFinder(detector or open_detector(), settings.sensitivity)
    tracker = Tracker(finder, float(source.info.rate))
    treatment, report = FrameTreatment(settings, None, ()), VideoReport(settings.method)
    with closing(source.open()) as container, VideoTarget(target, source, container, format) as out:
        # Frames are searched in a thread while earlier ones are redacted and encoded.
        for item, faces in ahead(_searched(source, out.copied, tracker, Scenes(finder)), WRITTEN):
            if isinstance(item, StreamPacket):
                out.copy(item)
                continue
            progress(item.index, max(source.info.frames, item.index + 1), "redacting faces")
            frame = item
            if faces:
                work, place = cut_out(item, faces, {}, REDACTION_REACH)
                done = treatment.treat(work)
                report.add(done.rows)
                if vault is not None:
                    seal(vault, item, place, done)
                pixels = item.pixels.copy()
                pixels[place] = done.pixels
                frame = replace(item, pixels=pixels)
            out.write(frame)
            report.add_frame(item)
            if show is not None and item.index % PREVIEW_EVERY == 0:
                show(frame.pixels)
        report.notes += out.losses
        if not tracker.tracks:
            check_empty(source, settings.policy, vault is not None)
            if settings.policy.no_face == "redact":
                raise _NoFace
    report.compare(source)
    return report


def check_empty(source: VideoSource, policy: Policy, sealed: bool) -> None:
    """Raise where a video without a face must not be handed on.

    Raises:
        PolicyStop: the policy says so.
        InputError: there is nothing to seal.
    """
    if policy.no_face == "stop":
        raise PolicyStop(f"no face was found in {source.name}, so nothing was handed on (policy stop)")
    if policy.no_face == "redact" and sealed:
        raise InputError(f"no face was found in {source.name}, so there is nothing to seal; use --no-face pass")


def _searched(
    source: VideoSource, copied: tuple[int, ...], tracker: Tracker, scenes: Scenes
) -> Iterator[tuple[VideoFrame | StreamPacket, list[PlannedFace]]]:
    """Packets, and frames with their faces, in order; frames come when their faces are final."""
    waiting: deque[VideoFrame] = deque()
    recent: list[Track] = []
    known = 0
    for item in source.items(copied):
        if isinstance(item, StreamPacket):
            yield item, []
            continue
        tracker.add(item.pixels, scenes.next(item.pixels))
        waiting.append(item)
        recent += tracker.tracks[known:]
        known = len(tracker.tracks)
        if len(waiting) > tracker.delay:
            frame = waiting.popleft()
            yield frame, _faces(recent, frame.index)
            recent = [t for t in recent if t.last > frame.index]
    tracker.end_scene()
    recent += tracker.tracks[known:]
    for frame in waiting:
        yield frame, _faces(recent, frame.index)


def _faces(tracks: list[Track], frame: int) -> list[PlannedFace]:
    there = ((t.number, t.sightings.get(frame)) for t in tracks)
    found = [PlannedFace(s.face(number), None) for number, s in there if s is not None]
    return sorted(found, key=lambda p: p.face.area)
