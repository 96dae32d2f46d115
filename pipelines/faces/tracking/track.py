"""One person in an unbroken run of frames: a box for each frame, and landmarks where they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..face import SURE_SCORE, Face, Origin


@dataclass(frozen=True, slots=True)
class Sighting:
    """A tracked face in one frame.

    Attributes:
        box: ``(x1, y1, x2, y2)`` in pixels of the frame, float32.
        score: the detector's confidence; 0 where the face was not detected in this frame.
        points: the 68 landmarks ``(68, 2)`` in pixels, float32; None where they are not known.
        origin: see ``Face``.
    """

    box: np.ndarray
    score: float
    points: np.ndarray | None = None
    origin: Origin = "measured"

    @property
    def is_measured(self) -> bool:
        return self.origin == "measured"

    @property
    def center(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def size(self) -> float:
        """Longer side of the box in pixels."""
        return float((self.box[2:] - self.box[:2]).max())

    def face(self, track: int) -> Face:
        """As a face of a batch of one image. What is no sure face has no landmarks, so it is redacted."""
        x1, y1, x2, y2 = (float(v) for v in self.box)
        face = Face((x1, y1, x2, y2), score=min(self.score, 1.0), track=track, origin=self.origin)
        if self.points is None or (self.is_measured and self.score < SURE_SCORE):
            return face
        return face.with_points(self.points.astype(np.float64))


@dataclass
class Track:
    """One person in consecutive frames.

    Attributes:
        number: of the track in its video.
        sightings: frame number to what is known of the face there; the frames have no gap.
        first, last: numbers of its first and last frame.
    """

    number: int
    sightings: dict[int, Sighting] = field(default_factory=dict)
    first: int = field(init=False, default=0)
    last: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        if self.sightings:
            self.first, self.last = min(self.sightings), max(self.sightings)

    def add(self, frame: int, sighting: Sighting) -> None:
        """Note what is known in one more frame."""
        self.first = min(frame, self.first) if self.sightings else frame
        self.last = max(frame, self.last) if self.sightings else frame
        self.sightings[frame] = sighting

    def cut_last(self) -> Sighting:
        """Take the last frame away."""
        taken = self.sightings.pop(self.last)
        self.last -= 1
        return taken

    def measured(self) -> list[int]:
        """Frames in which the face was detected, in order."""
        return sorted(i for i, s in self.sightings.items() if s.is_measured)

    def runs(self) -> Iterator[list[int]]:
        """Unbroken runs of frames in which the landmarks are known."""
        run: list[int] = []
        for i in sorted(self.sightings):
            known = self.sightings[i].points is not None
            if run and (not known or i != run[-1] + 1):
                yield run
                run = []
            if known:
                run.append(i)
        if run:
            yield run

    def place(self, frame: int, **changes: object) -> None:
        """Change what is known in one frame."""
        self.sightings[frame] = replace(self.sightings[frame], **changes)  # type: ignore[arg-type]
