"""Choose which of the found faces are worked on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import InputError
from .face import Face, Faces


@dataclass(frozen=True)
class Selection:
    """Which faces to take.

    Attributes:
        which: ``all``, ``largest``, ``smallest``, ``left``, ``right``, or numbers such as ``0,2`` (0 is the first
            found).
        min_size: least longer side of the box in pixels.
        least_score: least detector confidence.
    """

    which: str = "all"
    min_size: float = 0.0
    least_score: float = 0.0

    def __post_init__(self) -> None:
        if self.which not in WORDS:
            _numbers(self.which)

    def of(self, faces: Sequence[Face]) -> Faces:
        """Apply to the faces of each picture on its own."""
        chosen: list[Face] = []
        for image in sorted({face.image for face in faces}):
            here = [f for f in faces if f.image == image and f.size >= self.min_size and f.score >= self.least_score]
            chosen += self._of_picture(here)
        return Faces(chosen)

    def _of_picture(self, faces: list[Face]) -> list[Face]:
        if self.which == "all" or not faces:
            return faces
        if self.which in _ORDERS:
            return [min(faces, key=_ORDERS[self.which])]
        wanted = _numbers(self.which)
        return [face for number, face in enumerate(faces) if number in wanted]


_ORDERS: dict[str, Callable[[Face], float]] = {
    "largest": lambda f: -f.area,
    "smallest": lambda f: f.area,
    "left": lambda f: f.box[0] + f.box[2],
    "right": lambda f: -f.box[0] - f.box[2],
}
WORDS = ("all", *_ORDERS)


def _numbers(text: str) -> set[int]:
    try:
        numbers = {int(part) for part in text.split(",")}
    except ValueError:
        numbers = {-1}
    if min(numbers) < 0:
        raise InputError(f"faces {text!r} is not one of {', '.join(WORDS)} or numbers such as 0,2")
    return numbers
