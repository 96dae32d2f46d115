"""First pass over a video: find, track and recognize its faces. Frames stream through; only numbers are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...core.parallel import ahead
from ...core.progress import Progress, silent
from ...faces.detectors import Detector, open_detector
from ...faces.names import SensitivityName
from ...faces.tracking.finder import FaceFinder, measure
from ...faces.tracking.scenes import Scenes, Shrunk
from ...faces.tracking.smooth import finish
from ...faces.tracking.track import Track
from ...faces.tracking.tracker import Tracker
from ...imaging.video import VideoFrame
from ...recognition.base import FaceRecognizer
from .people import Person, Register
from .portraits import Portrait, Portraits

SEARCHED = 2
"""Frames that are searched while earlier ones wait to be measured."""
Ended = tuple[Track, list[Portrait]]
"""A track that is complete, and its views."""


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
    finder, register = FaceFinder(detector or open_detector(), sensitivity), Register(recognizers)
    tracking, scenes = Tracking(finder, rate, landmarks), Scenes(finder)
    # A frame is searched in a thread while the faces of the one before are measured.
    for frame, shrunk in ahead(((frame, scenes.next(frame.pixels)) for frame in frames), SEARCHED):
        progress(tracking.frames, max(expected, tracking.frames + 1), "finding faces")
        for track, views in tracking.add(frame.pixels, shrunk):
            register.add(track, views)
    for track, views in tracking.rest():
        register.add(track, views)
    tracker = tracking.tracker
    for track in tracker.tracks:
        finish(track, rate)
    return Scan(tracking.frames, tuple(tracker.tracks), tuple(register.people), tuple(tracker.cuts))


class Tracking:
    """Tracks the faces of a video, and collects the best views of each track.

    Args:
        rate: frames per second.
        landmarks: False where neither landmarks nor views are needed.

    Attributes:
        frames: how many there were.
    """

    def __init__(self, finder: FaceFinder, rate: float, landmarks: bool) -> None:
        self.tracker = Tracker(finder, rate, measure if landmarks else None)
        self.frames = 0
        self._rate, self._landmarks = rate, landmarks
        self._waiting: dict[int, tuple[Track, Portraits]] = {}

    def add(self, pixels: np.ndarray, shrunk: Shrunk) -> list[Ended]:
        """Take the next frame; returns the tracks with views that ended before it."""
        self.tracker.add(pixels, shrunk)
        active = self.tracker.active if self._landmarks else []
        for track in active:
            sighting = track.sightings.get(self.frames)
            if sighting is not None and sighting.points is not None:
                portraits = self._waiting.setdefault(track.number, (track, Portraits(self._rate)))[1]
                portraits.offer(self.frames, pixels, sighting)
        self.frames += 1
        running = {track.number for track in active}
        return self._taken([number for number in self._waiting if number not in running])

    def rest(self) -> list[Ended]:
        """Call it after the last frame; returns the tracks with views that go on to it."""
        self.tracker.end_scene()
        return self._taken(list(self._waiting))

    def _taken(self, numbers: Sequence[int]) -> list[Ended]:
        ended = [self._waiting.pop(number) for number in numbers]
        return [(track, portraits.views) for track, portraits in ended if portraits.views]
