"""Connect the faces of consecutive frames to tracks, so that no frame between two detections is left out.

As in ByteTrack (Zhang et al. 2022), sure detections are assigned to tracks first, then unsure ones. A track without a
detection is looked for where it should be, then followed by optical flow. A new track is followed back, too: a detector
often finds a face some frames late. Where two faces overlap, their tracks end, and others begin: who is who afterwards
is for the recognizer to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..detectors import Detection
from .finder import LOOKED, MAX_LOOKS, FaceFinder, iou, roll_of
from .flow import follow
from .scenes import Shrunk
from .track import Sighting, Track

MIN_OVERLAP = 0.2
"""Intersection over union from which a detection continues a track."""
TANGLED = 0.15
"""Intersection over union from which two faces could be taken for each other."""
LOST_SECONDS = 1.0
"""Time for which a face that is no longer detected is followed, and for which a new one is followed back."""
HOLD_SECONDS = 0.25
"""Time for which the last box stays where not even the optical flow finds the face."""
THOROUGH_SECONDS = 2.0
"""Time between two thorough searches, and for which a face that only they find is followed back."""
KNOWN_SECONDS = max(LOST_SECONDS, THOROUGH_SECONDS)
"""Time after which nothing that is known of a frame changes any more."""
MAX_KNOWN = 3
"""Faces up to which looking at each is faster than a search of the frame."""
SAME_SCORE = 0.85
"""Share of a face's last score at which it is found again by looking where it must be."""
MAX_HELD_SHIFT = 0.5
"""Speed of a box that is kept for a lost face, as a share of its size per frame."""
Measure = Callable[[np.ndarray, Detection], np.ndarray | None]
"""Landmarks ``(68, 2)`` of a detection in a frame."""


@dataclass
class _Active:
    """A track that goes on.

    Attributes:
        box: in the last frame.
        velocity: of the box, in pixels per frame.
        roll: of the face in radians.
        score: of its last detection.
        lost: frames since the last detection.
        blind: frames since it was last detected or followed.
        tangled: whether it overlaps another track.
    """

    track: Track
    box: np.ndarray
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(4))
    roll: float = 0.0
    score: float = 0.0
    lost: int = 0
    blind: int = 0
    tangled: bool = False

    @property
    def expected(self) -> np.ndarray:
        return self.box + self.velocity


class Tracker:
    """Takes the frames of a video one after the other.

    Args:
        finder: searches a frame.
        rate: frames per second.
        measure: computes landmarks; None where none are needed.

    Attributes:
        tracks: all tracks so far; complete after the last frame.
        cuts: numbers of the frames with which a scene begins.
    """

    def __init__(self, finder: FaceFinder, rate: float, measure: Measure | None = None) -> None:
        self._finder, self._measure = finder, measure
        self._lost = max(1, round(LOST_SECONDS * rate))
        self._hold = max(1, round(HOLD_SECONDS * rate))
        self._every = max(1, round(THOROUGH_SECONDS * rate))
        self.tracks: list[Track] = []
        self.cuts: list[int] = []
        self._active: list[_Active] = []
        self._grays: deque[np.ndarray] = deque(maxlen=max(self._lost, self._every) + 1)
        self._number = -1
        self._scale = 1.0
        self._since_thorough = 0
        self._last: np.ndarray | None = None

    @property
    def delay(self) -> int:
        """Frames after which nothing that is known of a frame changes any more."""
        return max(self._lost, self._every) + 1

    @property
    def active(self) -> list[Track]:
        """Tracks that the next frame may continue."""
        return [a.track for a in self._active]

    def add(self, pixels: np.ndarray, shrunk: Shrunk) -> None:
        """Search the next frame ``(H, W, 3)``, uint8 or uint16.

        Args:
            shrunk: the frame from ``Scenes`` with the same finder.
        """
        import cv2

        if shrunk.is_cut:
            self.end_scene()
        self._number += 1
        self._scale, self._last = shrunk.scale, pixels
        gray = cv2.cvtColor(shrunk.pixels, cv2.COLOR_RGB2GRAY)
        if shrunk.is_cut:
            self._active = []
            self._grays.clear()
            self.cuts.append(self._number)
        self._grays.append(gray)
        self._since_thorough += 1
        # A scene begins with no knowledge of its faces.
        thorough = len(self._grays) == 1 or shrunk.may_be_cut or self._since_thorough >= self._every
        looked = None if thorough or shrunk.found is not None else self._look_at_all(pixels)
        quick, more = list[Detection](), list[Detection]()
        if looked is None:
            quick = shrunk.found if shrunk.found is not None else self._finder.quick(shrunk.pixels, self._scale)
            if thorough:
                more = self._finder.thorough(pixels)
                self._since_thorough = 0
            found = _merged(quick, more)
        else:
            found = looked
        sure = [q for q in quick if self._finder.accepts(q.score)]
        hard = [d for d in more if all(iou(d.box, q.box) < MIN_OVERLAP for q in sure)]
        free = self._assign(pixels, found)
        self._recover(pixels)
        for detection in self._confirmed(pixels, free):
            # What the quick search does not see can have been there since the thorough search before.
            missed = any(iou(detection.box, d.box) >= MIN_OVERLAP for d in hard)
            self._start(pixels, detection, self._every if missed else self._lost)
        if shrunk.may_be_cut:
            # Who is at a place after it need not be who was there before.
            for active in self._active:
                self._renew(active)
        self._untangle()

    def end_scene(self) -> None:
        """Search the last frame thoroughly, because no later one can show that a face was there; also call it in the
        end."""
        pixels, self._last = self._last, None
        if pixels is None or self._since_thorough == 0:
            return
        self._since_thorough = 0
        for detection in self._confirmed(pixels, self._finder.thorough(pixels)):
            self._start(pixels, detection, self._every)
        self._untangle()

    def _look_at_all(self, pixels: np.ndarray) -> list[Detection] | None:
        """Look only where faces are known to be; None where one of them is not found.

        A face that is new in this frame is found in the next one, and followed back.
        """
        if len(self._active) > MAX_KNOWN or any(a.lost or a.tangled for a in self._active):
            return None
        found = []
        for active in self._active:
            seen = self._finder.look(pixels, active.expected, active.roll)
            if seen is None or seen.score < SAME_SCORE * active.score:
                return None
            found.append(seen)
        return found

    def _assign(self, pixels: np.ndarray, found: Sequence[Detection]) -> list[Detection]:
        """Continue tracks with detections, sure ones first; returns those that are left over."""
        free = list(found)
        waiting = list(self._active)
        for sure in (True, False):
            some = [d for d in free if self._finder.accepts(d.score) == sure]
            for active, detection in _matched(waiting, some):
                self._continue(pixels, active, detection)
                waiting.remove(active)
                free = [d for d in free if d is not detection]
        return free

    def _recover(self, pixels: np.ndarray) -> None:
        """Look for the tracks without a detection, then follow them, then keep their boxes for a moment."""
        for active in [a for a in self._active if a.track.last < self._number]:
            followed = self._followed(active.box)
            expected = active.expected if followed is None else followed
            seen = self._finder.look(pixels, expected, active.roll)
            taken = [a.box for a in self._active if a is not active and a.track.last == self._number]
            if seen is not None and seen.score >= LOOKED and all(iou(seen.box, box) < MIN_OVERLAP for box in taken):
                self._continue(pixels, active, seen)
                continue
            active.lost += 1
            active.blind = 0 if followed is not None else active.blind + 1
            limit = MAX_HELD_SHIFT * float((active.box[2:] - active.box[:2]).max())
            moved = followed if followed is not None else active.box + np.clip(active.velocity, -limit, limit)
            gone = active.lost > self._lost or active.blind > self._hold or not _is_inside(moved, pixels)
            if gone:
                self._active.remove(active)
                continue
            if followed is None:
                active.velocity = active.velocity * 0.5
            active.box = moved
            active.track.add(self._number, Sighting(moved.astype(np.float32), 0.0, None, "interpolated"))

    def _followed(self, box: np.ndarray) -> np.ndarray | None:
        """Where the optical flow takes a box of the frame before."""
        if len(self._grays) < 2:
            return None
        moved = follow(self._grays[-2], self._grays[-1], box * self._scale)
        return None if moved is None else moved.astype(float) / self._scale

    def _continue(self, pixels: np.ndarray, active: _Active, detection: Detection) -> None:
        if active.lost:
            _fill(active.track, self._number, detection.box)
        steps = active.lost + 1
        change = np.tile(((detection.box[:2] + detection.box[2:]) - (active.box[:2] + active.box[2:])) / 2, 2)
        active.velocity = 0.5 * active.velocity + 0.5 * change / steps
        active.box, active.lost, active.blind = detection.box, 0, 0
        self._see(pixels, active, detection)

    def _see(self, pixels: np.ndarray, active: _Active, detection: Detection) -> None:
        points = None
        if self._measure is not None:
            points = self._measure(pixels, detection)
        if points is not None:
            active.roll = roll_of(points)
        elif detection.five is not None:
            active.roll = roll_of(detection.five)
        active.score = detection.score
        kept = None if points is None else points.astype(np.float32)
        active.track.add(self._number, Sighting(detection.box.astype(np.float32), detection.score, kept))

    def _confirmed(self, pixels: np.ndarray, free: Sequence[Detection]) -> list[Detection]:
        """Detections that start a track: those that are sure, at once or at a second look."""
        known = [a.box for a in self._active if a.track.last == self._number]
        sure, looks = [], 0
        for detection in free:
            if any(iou(detection.box, box) >= MIN_OVERLAP for box in known):
                continue
            best: Detection | None = detection
            if not self._finder.accepts(detection.score):
                looks += 1
                best = self._finder.look(pixels, detection.box) if looks <= MAX_LOOKS else None
            if best is not None and self._finder.accepts(best.score):
                sure.append(best)
                known.append(best.box)
        return sure

    def _start(self, pixels: np.ndarray, detection: Detection, back_to: int) -> None:
        """Begin a track, and follow it back over at most ``back_to`` frames."""
        track = Track(len(self.tracks))
        self.tracks.append(track)
        active = _Active(track, detection.box)
        self._active.append(active)
        self._see(pixels, active, detection)
        box = detection.box * self._scale
        grays = list(self._grays)
        for back in range(1, min(len(grays), back_to + 1)):
            moved = follow(grays[-back], grays[-back - 1], box)
            number = self._number - back
            if moved is None and back == 1:
                # The frame before may not have been searched: fail closed.
                moved = box
            if moved is None or not _is_inside(moved / self._scale, pixels) or self._is_known(number, moved):
                return
            box = moved
            track.add(number, Sighting((box / self._scale).astype(np.float32), 0.0, None, "interpolated"))

    def _is_known(self, number: int, small_box: np.ndarray) -> bool:
        """Whether another track has a face at a place of an earlier frame, in pixels of the shrunk frame."""
        box = small_box / self._scale
        there = (t.sightings.get(number) for t in self.tracks[:-1])
        return any(s is not None and iou(s.box, box) >= MIN_OVERLAP for s in there)

    def _untangle(self) -> None:
        """Begin new tracks where two faces start to overlap, and where they stop."""
        now = [a for a in self._active if a.track.last == self._number]
        for i, active in enumerate(now):
            tangled = any(iou(active.box, other.box) > TANGLED for j, other in enumerate(now) if j != i)
            if tangled != active.tangled:
                self._renew(active)
            active.tangled = tangled

    def _renew(self, active: _Active) -> None:
        """Let the last sighting begin a new track."""
        if active.track.last == self._number and len(active.track.sightings) > 1:
            active.track = Track(len(self.tracks), {self._number: active.track.cut_last()})
            self.tracks.append(active.track)


def _matched(actives: Sequence[_Active], found: Sequence[Detection]) -> list[tuple[_Active, Detection]]:
    """The assignment of detections to tracks with the largest overlap in total."""
    if not actives or not found:
        return []
    overlaps = np.array([[max(iou(a.expected, d.box), iou(a.box, d.box)) for d in found] for a in actives])
    if min(overlaps.shape) == 1:
        # The usual case needs no solver, whose import takes 0.3 s.
        place = int(overlaps.argmax())
        rows, columns = np.array([place // len(found)]), np.array([place % len(found)])
    else:
        from scipy.optimize import linear_sum_assignment

        rows, columns = linear_sum_assignment(-overlaps)
    return [(actives[r], found[c]) for r, c in zip(rows, columns, strict=True) if overlaps[r, c] >= MIN_OVERLAP]


def _merged(found: Sequence[Detection], more: Sequence[Detection]) -> list[Detection]:
    """What the thorough search finds, and the rest of what the quick one does."""
    rest = [d for d in found if all(iou(d.box, m.box) < MIN_OVERLAP for m in more)]
    return [*more, *rest]


def _fill(track: Track, number: int, box: np.ndarray) -> None:
    """Move the followed boxes of a gap so that they end at the box that was found at last.

    The flow's error grows with time, so each box of the gap is the hull of the followed and the interpolated one.
    """
    start = number - 1
    while start > track.first and not (start in track.sightings and track.sightings[start].is_measured):
        start -= 1
    first = track.sightings[start].box
    for i in range(start + 1, number):
        share = (i - start) / (number - start)
        straight = first + (box - first) * share
        known = track.sightings[i].box if i in track.sightings else straight
        hull = np.concatenate([np.minimum(known[:2], straight[:2]), np.maximum(known[2:], straight[2:])])
        track.add(i, Sighting(hull.astype(np.float32), 0.0, None, "interpolated"))


def _is_inside(box: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a visible part of a box lies in the frame."""
    height, width = pixels.shape[:2]
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], [width, height])
    return bool((high - low > 1).all())
