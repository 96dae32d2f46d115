"""What was done to each face: numbers and words, no picture, no embedding, no path."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

Outcome = Literal["replaced", "redacted", "passed", "kept"]


@dataclass(frozen=True)
class Check:
    """One recogniser's view of original against result; smaller distance = more alike."""

    recogniser: str
    threshold: float
    distance: float
    same_person: bool


@dataclass(frozen=True)
class Utility:
    """How much of what should stay has changed: absolute differences of original and result.

    Attributes:
        yaw: of the yaw proxy, in inter-ocular distances.
        mouth_gap: in inter-ocular distances.
        eye_opening: of the height-to-width ratio.
    """

    yaw: float
    mouth_gap: float
    eye_opening: float


@dataclass(frozen=True)
class FaceReport:
    """One face.

    Attributes:
        number: its place in the picture's list of faces.
        outcome: replaced by a new identity, redacted, passed unchanged by the policy, or kept because it was not
            selected.
        reason: why it was not replaced; empty when it was.
    """

    image: int
    number: int
    box: tuple[float, float, float, float]
    origin: str
    outcome: Outcome
    method: str
    strength: float
    seed: int
    tries: int = 0
    reason: str = ""
    checks: tuple[Check, ...] = ()
    utility: Utility | None = None


@dataclass(frozen=True)
class Report:
    """All faces of a job."""

    faces: tuple[FaceReport, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def count(self, outcome: Outcome) -> int:
        return sum(face.outcome == outcome for face in self.faces)

    @property
    def safe(self) -> bool:
        """No selected face was handed on unchanged or still recognisable."""
        return all(face.outcome != "passed" for face in self.faces)

    def summary(self) -> str:
        """One sentence."""
        if not self.faces:
            return "; ".join(self.notes) or "no face was found"
        words = [f"{self.count(o)} {o}" for o in ("replaced", "redacted", "passed", "kept") if self.count(o)]
        return f"{len(self.faces)} face{'s' if len(self.faces) != 1 else ''}: {', '.join(words)}"

    def to_json(self) -> str:
        document = {"format": "faceveil.report/1", "summary": self.summary(), **_rounded(asdict(self))}
        return json.dumps(document, indent=2)


def _rounded(value: object) -> dict[str, object]:
    def walk(v: object) -> object:
        if isinstance(v, float):
            return round(v, 4)
        if isinstance(v, dict):
            return {k: walk(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [walk(x) for x in v]
        return v

    return walk(value)  # type: ignore[return-value]
