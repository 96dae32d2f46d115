"""Select which of the detected faces are processed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .face import SURE_SCORE, Face, Faces

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Rules to select faces.

    Attributes:
        which: ``all``, ``largest``, ``smallest``, ``left``, ``right``, or numbers such as ``0,2`` (0 is the first
            face of the image).
        min_size: minimum longer side of the box in pixels.
        min_score: minimum detector confidence, 0 to 1.
        allow_missing: whether numbers may be named that no image has a face of.

    Raises:
        InputError: ``which`` is neither a known word nor a list of numbers, or a minimum is out of range.
    """

    which: str = "all"
    min_size: float = 0.0
    min_score: float = 0.0
    allow_missing: bool = False

    def __post_init__(self) -> None:
        if self.which not in WORDS:
            _numbers(self.which)
        # An infinite or undefined minimum would silently keep every face.
        if not 0 <= self.min_size < math.inf:
            raise InputError(f"the minimum size must be 0 or more pixels, got {self.min_size}")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"the minimum score must be between 0 and 1, got {self.min_score}")

    def of(self, faces: Faces) -> Faces:
        """Select faces in each image separately.

        Raises:
            InputError: a face is named by a number that no image has.
        """
        images = [[f for f in faces if f.image == index] for index in sorted({face.image for face in faces})]
        self._check_numbers(images)
        return faces.only(face for image in images for face in self._of_image(image))

    def _of_image(self, faces: list[Face]) -> list[Face]:
        # Numbers count all faces of the image, as previews show them.
        numbers = set(range(len(faces))) if self.which in WORDS else _numbers(self.which)
        large = [
            face
            for number, face in enumerate(faces)
            if number in numbers and face.size >= self.min_size and face.score >= self.min_score
        ]
        if self.which not in _ORDERS or not large:
            return large
        # What only may be a face is chosen where nothing else is there.
        sure = [face for face in large if face.score >= SURE_SCORE]
        return [min(sure or large, key=_ORDERS[self.which])]

    def _check_numbers(self, images: list[list[Face]]) -> None:
        if self.which in WORDS or self.allow_missing or not images:
            return
        most = max(map(len, images))
        missing = sorted(number for number in _numbers(self.which) if number >= most)
        if missing:
            found = "1 was found" if most == 1 else f"{most} were found"
            raise InputError(
                f"there is no face {missing[0]}: {found}, numbered from 0; faceveil detect or Preview Faces"
                " shows them; --allow-missing goes on without it"
            )


def painted(faces: Faces, masks: Tensor) -> Faces:
    """Faces that a hand-painted mask marks: it lies on the middle of their box, or on a quarter of it.

    Args:
        masks: ``(B, 1, H, W)`` in [0, 1], one for each image that the faces were found in.

    Raises:
        InputError: a face lies in an image without a mask.
    """
    missing = [face.image for face in faces if face.image >= len(masks)]
    if missing:
        raise InputError(f"image {missing[0]} has no mask; connect one mask, or one per image")
    return faces.only(face for face in faces if _is_painted(face, masks[face.image, 0]))


def _is_painted(face: Face, mask: Tensor) -> bool:
    height, width = mask.shape
    x1, y1, x2, y2 = face.box
    left, right = (min(max(int(x), 0), width) for x in (x1, math.ceil(x2)))
    top, bottom = (min(max(int(y), 0), height) for y in (y1, math.ceil(y2)))
    inside = mask[top:bottom, left:right]
    if not inside.numel():
        return False
    middle = inside[inside.shape[0] // 2, inside.shape[1] // 2]
    return bool(middle >= _MARKED) or float((inside >= _MARKED).float().mean()) >= _MARKED_SHARE


_MARKED, _MARKED_SHARE = 0.5, 0.25
"""From this value on a pixel of a mask is painted; from this share of its box on a face is."""
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
