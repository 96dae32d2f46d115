"""Tell who is who: join the tracks of one person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...faces.tracking.track import Track
from ...recognition.base import FaceRecognizer
from .portraits import VIEWS, Portrait

SURE = 0.9
"""Share of a recognizer's threshold below which two tracks show one person: two people with one new face are worse than
one person with two."""


MAX_APART = 1.3
"""Mean distance of a view from the others, as a multiple of the median, at which it is left out."""


@dataclass
class Person:
    """One person of a video.

    Attributes:
        number: of the person.
        tracks: their tracks' numbers.
        portraits: the best views.
        embeddings: one ``(V, D)`` for each recognizer, of those views.
    """

    number: int
    tracks: list[int] = field(default_factory=list)
    portraits: list[Portrait] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)

    @property
    def means(self) -> tuple[np.ndarray, ...]:
        """The mean embedding ``(D,)`` for each recognizer, without views that are unlike the others."""
        alike = np.all([_alike(rows) for rows in self.embeddings], axis=0)
        return tuple(_mean(rows[alike] if alike.any() else rows) for rows in self.embeddings)

    def add(self, track: int, portraits: Sequence[Portrait], embeddings: Sequence[np.ndarray]) -> None:
        """Add a track with its views and their embeddings, one ``(V, D)`` for each recognizer."""
        known = self.embeddings or [rows[:0] for rows in embeddings]
        both = [np.concatenate(pair) for pair in zip(known, embeddings, strict=True)]
        views = [*self.portraits, *portraits]
        best = sorted(range(len(views)), key=lambda i: -views[i].quality)[:VIEWS]
        self.tracks.append(track)
        self.portraits = [views[i] for i in best]
        self.embeddings = [rows[best] for rows in both]


class Register:
    """The people of a video, in the order of their first track's end.

    Args:
        recognizers: two tracks are one person only where all of them agree.
    """

    def __init__(self, recognizers: Sequence[FaceRecognizer]) -> None:
        self._recognizers = recognizers
        self.people: list[Person] = []
        self._frames: dict[int, list[set[int]]] = {}

    def add(self, track: Track, portraits: Sequence[Portrait]) -> None:
        """Assign a finished track that has views to a person, known or new."""
        rows = [
            r.embed_many([p.pixels for p in portraits], [p.face.points for p in portraits]) for r in self._recognizers
        ]
        frames = set(track.measured())
        # Nobody is in two places in one frame.
        possible = [p for p in self.people if all(frames.isdisjoint(other) for other in self._frames[p.number])]
        near = [(self._distance(p, rows), p.number) for p in possible]
        distance, number = min(near, default=(np.inf, -1))
        if distance >= SURE:
            number = len(self.people)
            self.people.append(Person(number))
            self._frames[number] = []
        self.people[number].add(track.number, portraits, rows)
        self._frames[number].append(frames)

    def _distance(self, person: Person, rows: Sequence[np.ndarray]) -> float:
        """Distance to a person in thresholds, of the recognizer that finds them least alike."""
        return max(
            r.distance(mean, _mean(new)) / r.threshold
            for r, mean, new in zip(self._recognizers, person.means, rows, strict=True)
        )


def embedded(portraits: Sequence[Portrait], recognizers: Sequence[FaceRecognizer]) -> list[np.ndarray]:
    """The embeddings of some views, one ``(V, D)`` for each recognizer."""
    images, points = [p.pixels for p in portraits], [p.face.points for p in portraits]
    return [recognizer.embed_many(images, points) for recognizer in recognizers]


def _alike(rows: np.ndarray) -> np.ndarray:
    """Which of the embeddings ``(V, D)`` are not much farther from the others than is usual: a hand may hide a face."""
    if len(rows) < 3:
        return np.ones(len(rows), bool)
    others = np.linalg.norm(rows[:, None] - rows[None], axis=2).sum(1) / (len(rows) - 1)
    return np.asarray(others <= MAX_APART * np.median(others))


def _mean(rows: np.ndarray) -> np.ndarray:
    """As long as the embeddings are on average."""
    mean = rows.mean(0)
    return np.asarray(mean * (np.linalg.norm(rows, axis=1).mean() / np.linalg.norm(mean)))
