"""Scan a long video in parts, in several processes or on several machines.

A part holds the scenes that begin in it: a scene begins with no knowledge of the one before, so what is found is the
same as in one pass. Each process begins a moment before its part, because a cut is known by the frames before it, and
goes on to the first cut behind it. A long scene is searched by one process.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ...core.parallel import Workers, ahead, result
from ...core.progress import Progress, silent
from ...faces.detectors import open_detector
from ...faces.names import SensitivityName
from ...faces.tracking.finder import FaceFinder
from ...faces.tracking.scenes import MEMORY, Scenes, Shrunk
from ...faces.tracking.smooth import finish
from ...faces.tracking.track import Track
from ...imaging.video import Span, VideoFrame, VideoSource
from ...recognition.base import FaceRecognizer
from .people import Register
from .scan import SEARCHED, Ended, Scan, Tracking

log = logging.getLogger(__name__)
PART_SECONDS = 60.0
"""Length of a part."""
LEAD_SECONDS = 1.0
"""Time before a part from which a process looks at the frames; more where they are rare."""


@dataclass(frozen=True)
class PartJob:
    """One part of a video to scan.

    Attributes:
        file: of the video.
        span: of the whole scan.
            number, seconds: the part begins ``number * seconds`` after the span's start.
        last: whether it is the last one.
        sensitivity, landmarks: as for ``scan``.
    """

    file: Path
    span: Span
    number: int
    seconds: float
    last: bool
    sensitivity: SensitivityName
    landmarks: bool


@dataclass(frozen=True)
class Part:
    """What was found in the scenes that begin in one part; frames and tracks are numbered from 0.

    Attributes:
        begin: time of its first frame in the file, in units of the video's time base.
        end: time of the frame with which the next part begins; None at the end of the video.
        frames: how many it has.
        tracks: all, smoothed.
        ended: those with views, in the order in which they ended.
        cuts: numbers of the frames with which its scenes begin, without the first.
    """

    begin: int
    end: int | None
    frames: int
    tracks: tuple[Track, ...]
    ended: tuple[Ended, ...]
    cuts: tuple[int, ...]


def scan_in_parts(
    source: VideoSource,
    recognizers: Sequence[FaceRecognizer],
    workers: Workers,
    sensitivity: SensitivityName = "normal",
    landmarks: bool = True,
    seconds: float = PART_SECONDS,
    progress: Progress = silent,
) -> Scan | None:
    """Scan a video in parts.

    Args:
        workers: that scan them; they must see the file under the same path.
        seconds: length of a part.
        progress: called while parts are scanned; it may raise to interrupt.

    Returns:
        What ``scan`` finds; None where the file's times do not fit together, so that it must be scanned in one pass.
    """
    if not isinstance(source.file, Path):
        return None
    count = max(1, int(source.info.duration // seconds))
    file = source.file.absolute()
    jobs = [PartJob(file, source.span, i, seconds, i == count - 1, sensitivity, landmarks) for i in range(count)]
    joined = _Joined(recognizers)
    try:
        for done, part in enumerate(_scanned(jobs, workers, progress)):
            progress(done + 1, count, "finding faces")
            if part is not None:
                joined.add(part)
        return joined.scan()
    except (InputError, _Apart) as error:
        log.debug("%s is scanned in one pass: %s", source.name, error)
        return None


class _Apart(Exception):
    """The parts are not those of one pass."""


class _Joined:
    """Puts the parts together, in order."""

    def __init__(self, recognizers: Sequence[FaceRecognizer]) -> None:
        self._register = Register(recognizers)
        self._frames, self._tracks, self._cuts = 0, list[Track](), list[int]()
        self._last: Part | None = None

    def add(self, part: Part) -> None:
        if self._last is not None and part.begin != self._last.end:
            raise _Apart(f"a part begins at {part.begin}, but the one before ends at {self._last.end}")
        frames, first = self._frames, len(self._tracks)
        if self._last is not None:
            self._cuts.append(frames)
        self._cuts += [frames + cut for cut in part.cuts]
        moved = {track.number: _moved(track, first, frames) for track in part.tracks}
        self._tracks += moved.values()
        for track, views in part.ended:
            self._register.add(moved[track.number], [replace(v, frame=v.frame + frames) for v in views])
        self._frames += part.frames
        self._last = part

    def scan(self) -> Scan:
        if self._last is None or self._last.end is not None:
            raise _Apart("the last scene is missing")
        return Scan(self._frames, tuple(self._tracks), tuple(self._register.people), tuple(self._cuts))


def _moved(track: Track, first: int, frames: int) -> Track:
    return Track(track.number + first, {i + frames: sighting for i, sighting in track.sightings.items()})


def _scanned(jobs: Sequence[PartJob], workers: Workers, progress: Progress) -> Iterator[Part | None]:
    """The parts in order; two for each process are under way."""
    waiting: deque[Future[Part | None]] = deque()
    for done in range(len(jobs)):
        while len(waiting) < 2 * workers.count and done + len(waiting) < len(jobs):
            waiting.append(workers.submit(scan_part, jobs[done + len(waiting)]))
        yield result(waiting.popleft(), partial(progress, done, len(jobs), "finding faces"))


def scan_part(job: PartJob) -> Part | None:
    """Scan the scenes that begin in one part; None where none does.

    Raises:
        InputError: the video is damaged.
    """
    whole = VideoSource(job.file, job.span)
    source, rate = whole, float(whole.info.rate)
    if job.number:
        lead = max(LEAD_SECONDS, (MEMORY + 1) / rate)
        start = max(0.0, job.span.start + job.number * job.seconds - lead)
        source = VideoSource(job.file, Span(start, job.span.end))
    # The times of a source begin at its span.
    shift = 0 if source.span.whole else source.info.origin
    first, behind = (whole.info.origin + round(n * job.seconds / whole.info.base) for n in (job.number, job.number + 1))
    finder = FaceFinder(open_detector(), job.sensitivity)
    scenes, tracking, ended = Scenes(finder), Tracking(finder, rate, job.landmarks), list[Ended]()
    if job.number:
        frames = _from_first_cut(source, scenes, first - shift, np.inf if job.last else behind - shift)
    else:
        frames = ((frame, scenes.next(frame.pixels)) for frame in source.frames())
    begin: int | None = None
    end: int | None = None
    with closing(ahead(frames, SEARCHED)) as found:
        for frame, shrunk in found:
            time = frame.pts + shift
            if shrunk.is_cut and time >= behind and not job.last:
                end = time
                break
            # The cut with which the part begins is none for its tracker.
            ended += tracking.add(frame.pixels, replace(shrunk, is_cut=shrunk.is_cut and begin is not None))
            begin = time if begin is None else begin
    if source.went_back:
        # The span of a part can miss such frames. The last part reads to the end, so it sees them.
        raise InputError(f"the times of {source.name} go back")
    if begin is None:
        return None
    ended += tracking.rest()
    tracker = tracking.tracker
    for track in tracker.tracks:
        finish(track, rate)
    return Part(begin, end, tracking.frames, tuple(tracker.tracks), tuple(ended), tuple(tracker.cuts))


def _from_first_cut(
    source: VideoSource, scenes: Scenes, first: int, behind: float
) -> Iterator[tuple[VideoFrame, Shrunk]]:
    """The frames from the first cut in ``[first, behind)`` on, in units of the video's time base."""
    begun = False
    for frame in source.frames():
        if begun:
            yield frame, scenes.next(frame.pixels)
            continue
        if frame.pts >= behind:
            return
        shrunk = scenes.next_cut(frame.pixels)
        if shrunk is not None and frame.pts >= first:
            begun = True
            yield frame, shrunk
