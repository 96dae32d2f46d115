"""Select which of the detected faces are processed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.errors import InputError
from .face import Face, Faces


@dataclass(frozen=True)
class Selection:
    """Rules to select faces.

    Attributes:
        which: ``all``, ``largest``, ``smallest``, ``left``, ``right``, or numbers such as ``0,2`` (0 is the first
            face of the image).
        min_size: minimum longer side of the box in pixels.
        min_score: minimum detector confidence, 0 to 1.

    Raises:
        InputError: ``which`` is neither a known word nor a list of numbers.
    """

    which: str = "all"
    min_size: float = 0.0
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if self.which not in WORDS:
            _numbers(self.which)

    def of(self, faces: Sequence[Face]) -> Faces:
        """Select faces in each image separately."""
        chosen: list[Face] = []
        for index in sorted({face.image for face in faces}):
            candidates = [
                f for f in faces if f.image == index and f.size >= self.min_size and f.score >= self.min_score
            ]
            chosen += self._of_image(candidates)
        return Faces(chosen)

    def _of_image(self, faces: list[Face]) -> list[Face]:
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
        raise InputError(
            f"face selection {text!r} is not one of {', '.join(WORDS)}, and not a list of numbers such as 0,2"
        )
    return numbers
