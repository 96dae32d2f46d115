"""Select which of the detected faces are processed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .face import SURE_SCORE, Face, Faces

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Rules to select faces; of tracked faces, rules to select people in all images.

    Attributes:
        which: ``all``, ``largest``, ``smallest``, ``left``, ``right``, or numbers such as ``0,2`` (0 is the first
            face of the image, or the first track). Tracks are compared by the median of their boxes.
        min_size: minimum longer side of the box in pixels; of a track, in at least one image.
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
        """Select faces in each image separately, or tracks in all images.

        Raises:
            InputError: a face is named by a number that no image has.
        """
        if any(face.track is not None for face in faces):
            return self._of_tracks(faces)
        images = [[f for f in faces if f.image == index] for index in sorted({face.image for face in faces})]
        if images:
            self._check_numbers(set(range(max(map(len, images)))))
        return faces.only(face for image in images for face in self._of_image(image))

    def _of_tracks(self, faces: Faces) -> Faces:
        """Chosen anew in each image, one person would be bare in some of them."""
        tracks: dict[int, list[Face]] = {}
        for face in faces:
            if face.track is not None:
                tracks.setdefault(face.track, []).append(face)
        self._check_numbers(set(tracks))
        large = {n: track for n, track in tracks.items() if max(face.size for face in track) >= self.min_size}
        chosen = replace(self, min_size=0.0)._chosen({number: _typical(track) for number, track in large.items()})
        # What belongs to no track cannot be told from the people who are selected.
        return faces.only(face for face in faces if face.track is None or face.track in chosen)

    def _chosen(self, faces: dict[int, Face]) -> set[int]:
        """Numbers of the selected ones among numbered faces."""
        named = set(faces) if self.which in WORDS else _numbers(self.which) & set(faces)
        large = {n for n in named if faces[n].size >= self.min_size and faces[n].score >= self.min_score}
        if self.which not in _ORDERS or not large:
            return large
        # What only may be a face is chosen where nothing else is there.
        sure = {n for n in large if faces[n].score >= SURE_SCORE}
        return {min(sorted(sure or large), key=lambda n: _ORDERS[self.which](faces[n]))}

    def _of_image(self, faces: list[Face]) -> list[Face]:
        # Numbers count all faces of the image, as previews show them.
        chosen = self._chosen(dict(enumerate(faces)))
        return [face for number, face in enumerate(faces) if number in chosen]

    def _check_numbers(self, known: set[int]) -> None:
        if self.which in WORDS or self.allow_missing:
            return
        missing = sorted(_numbers(self.which) - known)
        if missing:
            found = "1 was found" if len(known) == 1 else f"{len(known)} were found"
            raise InputError(
                f"there is no face {missing[0]}: {found}, numbered from 0; faceveil detect or Preview Faces"
                " shows them; --allow-missing goes on without it"
            )


def _typical(faces: Sequence[Face]) -> Face:
    """A face with the median box of a track, and its best score."""
    left, top, right, bottom = (median(face.box[i] for face in faces) for i in range(4))
    return Face((left, top, right, bottom), score=max(face.score for face in faces))


def painted(faces: Faces, masks: Tensor) -> Faces:
    """Faces that a hand-painted mask marks: it lies on the middle of their box, or on a quarter of it.

    A tracked face is selected in all images if it is marked in one.

    Args:
        masks: ``(B, 1, H, W)`` in [0, 1], one for each image that the faces were found in.

    Raises:
        InputError: a face lies in an image without a mask.
    """
    missing = [face.image for face in faces if face.image >= len(masks)]
    if missing:
        raise InputError(f"image {missing[0]} has no mask; connect one mask, or one per image")
    marked = [face for face in faces if _is_painted(face, masks[face.image, 0])]
    direct, tracks = set(map(id, marked)), {face.track for face in marked} - {None}
    return faces.only(face for face in faces if id(face) in direct or face.track in tracks)


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
