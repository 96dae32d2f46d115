"""First pass over a video: find, track and recognize its faces. Frames stream through; only numbers are kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...core.parallel import ahead
from ...core.progress import Progress, silent
from ...faces.detectors import Detector, open_detector
from ...faces.names import SensitivityName
from ...faces.tracking.finder import FaceFinder, Shrunk, measure
from ...faces.tracking.smooth import finish
from ...faces.tracking.track import Track
from ...faces.tracking.tracker import Tracker
from ...imaging.video import VideoFrame
from ...recognition.base import FaceRecognizer
from .people import Person, Register
from .portraits import Portraits

SEARCHED = 2
"""Frames that are searched while earlier ones wait to be measured."""


@dataclass(frozen=True)
class Scan:
    """What was found in a video.

    Attributes:
        frames: how many there are.
        tracks: all tracks, smoothed.
        people: those whom a recognizer knows; tracks that belong to nobody are redacted.
        cuts: numbers of the frames with which a scene begins.
    """

    frames: int
    tracks: tuple[Track, ...]
    people: tuple[Person, ...]
    cuts: tuple[int, ...]


def scan(
    frames: Iterable[VideoFrame],
    rate: float,
    recognizers: Sequence[FaceRecognizer],
    detector: Detector | None = None,
    sensitivity: SensitivityName = "normal",
    landmarks: bool = True,
    expected: int = 0,
    progress: Progress = silent,
) -> Scan:
    """Scan a video.

    Args:
        rate: frames per second.
        recognizers: tell people apart.
        sensitivity: as in ``detect_faces``.
        landmarks: False where all faces are redacted, which needs neither landmarks nor people.
        expected: number of frames, for the progress.
        progress: called before each frame; it may raise to interrupt.

    Raises:
        InputError: the video is damaged.
    """
    finder = FaceFinder(detector or open_detector(), sensitivity)
    tracker = Tracker(finder, rate, measure if landmarks else None)
    register, waiting, count = Register(recognizers), dict[int, tuple[Track, Portraits]](), 0
    # A frame is searched in a thread while the faces of the one before are measured.
    for frame, shrunk in ahead(_shrunk(frames, finder), SEARCHED):
        progress(count, max(expected, count + 1), "finding faces")
        tracker.add(frame.pixels, shrunk)
        for track in tracker.active if landmarks else ():
            sighting = track.sightings.get(count)
            if sighting is not None and sighting.points is not None:
                waiting.setdefault(track.number, (track, Portraits(rate)))[1].offer(count, frame.pixels, sighting)
        running = {track.number for track in tracker.active}
        for number in [n for n in waiting if n not in running]:
            _register(register, *waiting.pop(number))
        count += 1
    for track, portraits in waiting.values():
        _register(register, track, portraits)
    for track in tracker.tracks:
        finish(track, rate)
    return Scan(count, tuple(tracker.tracks), tuple(register.people), tuple(tracker.cuts))


def _shrunk(frames: Iterable[VideoFrame], finder: FaceFinder) -> Iterator[tuple[VideoFrame, Shrunk]]:
    for number, frame in enumerate(frames):
        yield frame, finder.shrunk(frame.pixels, Tracker.is_searched(number))


def _register(register: Register, track: Track, portraits: Portraits) -> None:
    if portraits.views:
        register.add(track, portraits.views)
