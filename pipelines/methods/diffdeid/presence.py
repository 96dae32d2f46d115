"""Where faces must be in frames in which no detector found them: between two frames, and at both ends.

A video leaks where detection fails for a moment. So each face is followed by its box, also one that cannot be replaced,
and also across cuts, because a flash looks like two cuts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...faces.face import Box
from .clips import RADIUS

MAX_GAP = RADIUS
"""Frames without the face that are bridged: as many as are read before a frame is drawn."""
HOLD = 4
"""Frames before the first and after the last detection in which the face is taken to be there."""
REACH = 1.0
"""Distance that a face can move in one frame, and at most twice that in a gap, in sizes of its box."""
COVERED = 0.3
"""Overlap with a face that was found, from which a place needs no redaction of its own."""


@dataclass
class _Trail:
    """Boxes of one face by frame number."""

    boxes: dict[int, Box] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(self.boxes)

    def add(self, number: int, box: Box) -> None:
        """Remember a frame, and forget those that no frame still needs."""
        self.boxes = {n: b for n, b in self.boxes.items() if n >= number - 3 * MAX_GAP} | {number: box}

    def at(self, number: int, cuts: set[int]) -> Box | None:
        """The box in a frame that lacks it; None where the face is not taken to be there.

        Args:
            cuts: frames that start a shot; beyond one, an end is not extended.
        """
        before = max((n for n in self.boxes if n < number), default=None)
        after = min((n for n in self.boxes if n > number), default=None)
        if number in self.boxes:
            return None
        if before is not None and after is not None:
            share = (number - before) / (after - before)
            start, end = np.array(self.boxes[before]), np.array(self.boxes[after])
            x1, y1, x2, y2 = (float(v) for v in (1 - share) * start + share * end)
            return x1, y1, x2, y2
        nearest = after if before is None else before
        if nearest is None or abs(number - nearest) > HOLD:
            return None
        first, last = sorted((nearest, number))
        return None if cuts & set(range(first + 1, last + 1)) else self.boxes[nearest]


class Presence:
    """Follows all faces of a video by their boxes."""

    def __init__(self) -> None:
        self._trails: list[_Trail] = []
        self._found: dict[int, list[Box]] = {}
        self._cuts: set[int] = set()

    def __len__(self) -> int:
        return len(self._trails)

    def add(self, number: int, boxes: list[Box], cut: bool) -> None:
        """Add the faces that were found in a frame; frames come in order, and ``cut`` says whether a shot starts."""
        oldest = number - 2 * MAX_GAP
        self._trails = [trail for trail in self._trails if trail.last >= oldest]
        self._found = {n: found for n, found in self._found.items() if n >= oldest} | {number: boxes}
        self._cuts = {n for n in self._cuts if n >= oldest} | ({number} if cut else set())
        free = [trail for trail in self._trails if number - trail.last <= MAX_GAP + 1]
        for box in boxes:
            trail = min(free, key=lambda t: distance(t.boxes[t.last], box), default=None)
            if trail is not None and distance(trail.boxes[trail.last], box) <= REACH * min(2, number - trail.last):
                free.remove(trail)
            else:
                trail = _Trail()
                self._trails.append(trail)
            trail.add(number, box)

    def missed(self, number: int) -> list[Box]:
        """Places of faces that were not found in a frame."""
        places = [box for trail in self._trails if (box := trail.at(number, self._cuts)) is not None]
        found = self._found.get(number, [])
        return [box for box in places if all(overlap(box, other) < COVERED for other in found)]


def distance(a: Box, b: Box) -> float:
    """Distance of the centers of two boxes, in sizes of the larger one; infinite where their sizes differ by half."""
    sizes = [max(x2 - x1, y2 - y1, 1e-9) for x1, y1, x2, y2 in (a, b)]
    if min(sizes) < 0.5 * max(sizes):
        return float("inf")
    x, y = ((a[i] + a[i + 2] - b[i] - b[i + 2]) / 2 for i in (0, 1))
    return float(np.hypot(x, y)) / max(sizes)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b))
    return shared / max(areas - shared, 1e-9)
