"""What was done to each person of a video, in numbers and words: no image, no embedding, no path."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...imaging.video import VideoFrame, VideoSource
from ..report import OUTCOMES, FaceReport, Outcome

FORMAT = "faceveil.video-report/1"
_PROTECTED = ("replaced", "redacted")
_DECIMALS = 4
COMPLETE = 0.95
"""Share of the expected frames below which a video seems to be cut off; containers only estimate their number."""


@dataclass
class PersonReport:
    """One person; ``person`` None stands for all faces that nobody knows.

    Attributes:
        outcomes: how many faces had each outcome.
        reasons: why faces were not replaced, and how often.
        seed: of the person's identity.
        margins: recognizer to the smallest distance from the original, in its thresholds, over all replaced frames.
    """

    person: int | None
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    seed: int | None = None
    margins: dict[str, float] = field(default_factory=dict)

    def add(self, row: FaceReport) -> None:
        """Count one face of one frame."""
        self.outcomes[row.outcome] += 1
        if row.reason:
            self.reasons[row.reason] += 1
        if row.outcome != "replaced":
            return
        self.seed = row.seed
        for check in row.checks:
            self.margins[check.recognizer] = min(check.margin, self.margins.get(check.recognizer, check.margin))


@dataclass
class VideoReport:
    """All people of a video.

    Attributes:
        frames: how many were written.
        end: of the last one, in units of the video's time base.
        method: that was asked for.
        kept: people, and unknown faces, that were left as they are on purpose.
        notes: sentences about the whole video.
    """

    method: str
    frames: int = 0
    end: int = 0
    kept: int = 0
    notes: list[str] = field(default_factory=list)
    people: dict[int | None, PersonReport] = field(default_factory=dict)

    def add_frame(self, frame: VideoFrame) -> None:
        """Count a written frame."""
        self.frames += 1
        self.end = frame.pts + frame.duration

    def compare(self, source: VideoSource) -> None:
        """Note that a video ended early."""
        info, end = source.info, float(self.end * source.info.base)
        if not source.span.whole:
            return
        if info.counted and self.frames < COMPLETE * info.frames:
            self.notes.append(f"only {self.frames} of {info.frames} frames could be read; the file may be cut off")
        elif not info.counted and end < COMPLETE * info.duration - float(1 / info.rate):
            self.notes.append(f"only {end:.1f} of {info.duration:.1f} s could be read; the file may be cut off")

    def add(self, rows: Sequence[tuple[int | None, FaceReport]]) -> None:
        """Count the faces of one frame."""
        for person, row in rows:
            self.people.setdefault(person, PersonReport(person)).add(row)

    def tally(self, outcome: Outcome, count: int) -> None:
        """Count faces of one frame of which only the outcome is known."""
        if count:
            self.people.setdefault(None, PersonReport(None)).outcomes[outcome] += count

    def count(self, outcome: Outcome) -> int:
        """How many faces, counted in every frame, had an outcome."""
        return sum(p.outcomes[outcome] for p in self.people.values())

    @property
    def safe(self) -> bool:
        """Whether every treated face was replaced or redacted in every frame."""
        return self.exposed == 0

    @property
    def exposed(self) -> int:
        """Number of faces, counted in every frame, that were neither replaced nor redacted."""
        counts = (item for p in self.people.values() for item in p.outcomes.items())
        return sum(count for outcome, count in counts if outcome not in _PROTECTED)

    def summary(self) -> str:
        """One sentence."""
        frames = f"{self.frames} frame{'s' * (self.frames != 1)}"
        kept = f"; {self.kept} {'person was' if self.kept == 1 else 'people were'} kept by choice" if self.kept else ""
        if not self.people:
            return f"{frames}: no face was {'treated' if self.kept else 'found'}{kept}"
        known = [p for p in self.people if p is not None]
        words = [f"{self.count(o)} {o}" for o in OUTCOMES if self.count(o)]  # type: ignore[arg-type]  # the outcomes
        people = f"{len(known)} {'person' if len(known) == 1 else 'people'}, " if known else ""
        return f"{frames}: {people}faces in all frames: {', '.join(words)}{kept}"

    def text(self) -> str:
        """The summary, and a line for each person whose face was not replaced in all frames, with the main reason."""
        lines = [self.summary()]
        for person in self._sorted():
            if not person.reasons:
                continue
            reason, count = person.reasons.most_common(1)[0]
            name = "faces that nobody knows" if person.person is None else f"person {person.person}"
            total, more = sum(person.outcomes.values()), len(person.reasons) - 1
            others = f" (and {more} other reason{'s' * (more > 1)})" if more else ""
            lines.append(
                f"{name}: not replaced in {person.reasons.total()} of {total} frames; {reason}: {count}{others}"
            )
        return "\n".join([*lines, *self.notes])

    def to_json(self) -> str:
        people: list[dict[str, Any]] = [
            {
                "person": p.person,
                "outcomes": dict(p.outcomes),
                "reasons": dict(p.reasons),
                "seed": p.seed,
                "margins": {name: round(value, _DECIMALS) for name, value in p.margins.items()},
            }
            for p in self._sorted()
        ]
        document = {"format": FORMAT, "summary": self.summary(), "method": self.method, "frames": self.frames}
        return json.dumps({**document, "kept": self.kept, "notes": self.notes, "people": people}, indent=2)

    def _sorted(self) -> list[PersonReport]:
        return sorted(self.people.values(), key=lambda p: (p.person is None, p.person or 0))
