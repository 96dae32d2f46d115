"""What was done to each face, in numbers and words: no image, no embedding, no path."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, get_args

Outcome = Literal["replaced", "redacted", "kept", "passed", "unverified"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
"""``replaced``: no recognizer matches it any more. ``redacted``: removed. ``kept``: not selected, or strength 0.
``passed``: selected, but the policy or the strength let it through. ``unverified``: changed, but a recognizer could not
compare it."""
_PROTECTED = ("replaced", "redacted")
FORMAT = "faceveil.report/1"
_DECIMALS = 4


class AnyReport(Protocol):
    """What was done in an image or a video.

    Attributes:
        exposed: number of selected faces that are not protected.
    """

    @property
    def exposed(self) -> int: ...

    @property
    def safe(self) -> bool: ...

    def text(self) -> str: ...

    def to_json(self) -> str: ...


@dataclass(frozen=True)
class Check:
    """One recognizer's comparison of the original face with the result; a smaller distance is more alike."""

    recognizer: str
    threshold: float
    distance: float
    same_person: bool

    @property
    def margin(self) -> float:
        """Distance in thresholds: below 1 the recognizer takes both for one person."""
        return self.distance / self.threshold


@dataclass(frozen=True)
class Utility:
    """How much of what should stay has changed: absolute differences between the original and the result.

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
        image: index of its image in the batch.
        number: its place in the image's list of faces.
        box: ``(x1, y1, x2, y2)`` in pixels.
        origin: ``measured``, ``interpolated`` or ``manual``.
        outcome: see ``OUTCOMES``.
        selected: whether it was to be replaced or redacted.
        method: the method or redaction style that changed its pixels; empty where none did.
        strength: of the method.
        seed: of the face's own random stream.
        tries: identities that were rendered.
        reason: why it was not replaced; empty where it was.
        checks: one for each recognizer.
        utility: of a replaced face.
    """

    image: int
    number: int
    box: tuple[float, float, float, float]
    origin: str
    outcome: Outcome
    selected: bool
    method: str
    strength: float
    seed: int
    tries: int = 0
    reason: str = ""
    checks: tuple[Check, ...] = ()
    utility: Utility | None = None


@dataclass(frozen=True)
class Report:
    """All faces of a job, and sentences about whole images."""

    faces: tuple[FaceReport, ...] = ()
    notes: tuple[str, ...] = ()

    def count(self, outcome: Outcome) -> int:
        return sum(face.outcome == outcome for face in self.faces)

    @property
    def safe(self) -> bool:
        """Whether every selected face was replaced or redacted."""
        return self.exposed == 0

    @property
    def exposed(self) -> int:
        """Number of selected faces that were neither replaced nor redacted."""
        return sum(face.outcome not in _PROTECTED for face in self.faces if face.selected)

    def summary(self) -> str:
        """One sentence."""
        if not self.faces:
            return "; ".join(self.notes) or "no face was found"
        counts = {outcome: sum(face.outcome == outcome for face in self.faces) for outcome in OUTCOMES}
        words = [f"{count} {outcome}" for outcome, count in counts.items() if count]
        return f"{len(self.faces)} face{'s' if len(self.faces) != 1 else ''}: {', '.join(words)}"

    def text(self) -> str:
        """The summary, and a line for each selected face that was not replaced as asked, and for each note."""
        several = len({face.image for face in self.faces}) > 1
        lines = [self.summary()] if self.faces else []
        for face in self.faces:
            if face.selected and face.reason:
                where = f"image {face.image}, " if several else ""
                lines.append(f"{where}face {face.number} {face.outcome}: {face.reason}")
        return "\n".join([*lines, *self.notes]) or self.summary()

    def to_json(self) -> str:
        document = {"format": FORMAT, "summary": self.summary(), **asdict(self)}
        return json.dumps(_rounded(document), indent=2)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
