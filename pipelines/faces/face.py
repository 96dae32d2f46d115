"""Faces of an image (box, landmarks, score) and the plan: a JSON file of faces that a user can inspect and edit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from .fingerprint import digests, fingerprints, same_scene

Origin = Literal["measured", "interpolated", "manual"]
Box = tuple[float, float, float, float]
ORIGINS: tuple[str, ...] = get_args(Origin)

PLAN_FORMAT = "faceveil.faces/1"

# Index of the mirrored landmark for each of the 68 iBUG landmarks, for flipped faces.
MIRROR = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    + [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
JAW, BROWS, NOSE = slice(0, 17), slice(17, 27), slice(27, 36)
EYE_A, EYE_B = slice(36, 42), slice(42, 48)
MOUTH = slice(48, 68)
LANDMARKS = 68
MAX_COORDINATE = 1e6
SURE_SCORE = 0.45
"""Score from which a detection is surely a face; less sure ones are redacted, not replaced."""
MIN_INTER_OCULAR = 1.0
"""Pixels. Landmarks of a plan that lie closer together are damaged."""


@dataclass(frozen=True)
class Face:
    """One face in one image.

    Attributes:
        box: ``(x1, y1, x2, y2)`` in pixels of the image; the center of a pixel is at index + 0.5.
        landmarks: the 68 iBUG points ``(x, y)`` in pixels; empty when only the box is known.
        score: the detector's confidence, 0 to 1.
        image: index of the image in its batch.
        track: number of the person across several images; None when it is unknown.
        origin: ``measured`` by a detector, ``interpolated`` between frames, or set by hand (``manual``).

    Raises:
        InputError: the box is empty, a number is not finite, or the number of landmarks is neither 0 nor 68.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[tuple[float, float], ...] = ()
    score: float = 1.0
    image: int = 0
    track: int | None = None
    origin: Origin = "measured"

    def __post_init__(self) -> None:
        values = [*self.box, *(v for point in self.landmarks for v in point), self.score]
        if len(self.box) != 4 or not all(math.isfinite(v) for v in values):
            raise InputError("a face needs a box of four finite numbers and finite landmarks; detect the face again")
        if self.box[2] <= self.box[0] or self.box[3] <= self.box[1]:
            raise InputError(f"the face box {self.box} is empty; give x1 < x2 and y1 < y2")
        if len(self.landmarks) not in (0, 68):
            raise InputError(f"a face has 68 landmarks or none, got {len(self.landmarks)}")
        if self.origin not in ORIGINS:
            raise InputError(f"face origin {self.origin!r} is not one of {', '.join(ORIGINS)}")

    @property
    def points(self) -> np.ndarray:
        """The landmarks as a float64 array ``(68, 2)``.

        Raises:
            InputError: the face has no landmarks.
        """
        if not self.landmarks:
            raise InputError("this face has no landmarks, so it can be redacted but not replaced")
        return np.asarray(self.landmarks, dtype=np.float64)

    @property
    def size(self) -> float:
        """Longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])

    def with_points(self, points: np.ndarray) -> Face:
        """Return a copy with the landmarks ``(68, 2)``."""
        return replace(self, landmarks=tuple((float(x), float(y)) for x, y in points))

    def in_image(self, index: int) -> Face:
        """Return a copy that belongs to image ``index`` of a batch."""
        return replace(self, image=index)

    def stretched(self, x: float, y: float) -> Face:
        """The same face in an image that is ``x`` times as wide and ``y`` times as high."""
        x1, y1, x2, y2 = self.box
        landmarks = tuple((px * x, py * y) for px, py in self.landmarks)
        return replace(self, box=(x1 * x, y1 * y, x2 * x, y2 * y), landmarks=landmarks)

    def moved(self, dx: float, dy: float) -> Face:
        """Return a copy whose box and landmarks are shifted by ``(dx, dy)`` pixels."""
        x1, y1, x2, y2 = self.box
        landmarks = tuple((x + dx, y + dy) for x, y in self.landmarks)
        return replace(self, box=(x1 + dx, y1 + dy, x2 + dx, y2 + dy), landmarks=landmarks)


@dataclass(frozen=True)
class ImageSet:
    """The images that faces were detected in.

    Attributes:
        count: of the batch.
        width, height: in pixels.
        fingerprints: one for each image, see ``faces.fingerprint``.
        digests: one for each image; empty where they are not known.
        places: image and box of every face that was found, selected or not.
    """

    count: int
    width: int
    height: int
    fingerprints: tuple[int, ...]
    digests: tuple[str, ...] = ()
    places: tuple[tuple[int, Box], ...] = ()

    def __post_init__(self) -> None:
        if len(self.fingerprints) != self.count or len(self.digests) not in (0, self.count):
            raise InputError(f"the face plan describes {self.count} images incompletely; detect the faces again")

    @classmethod
    def of(cls, images: Tensor, faces: Sequence[Face] = ()) -> ImageSet:
        """Of a batch ``(B, 3, H, W)`` and the faces that were found in it."""
        places = tuple((face.image, face.box) for face in faces)
        return cls(len(images), images.shape[-1], images.shape[-2], fingerprints(images), digests(images), places)


class Faces(tuple[Face, ...]):
    """The faces of one or more images in a fixed order, with conversion to and from JSON: the plan of a job.

    Attributes:
        images: that they were detected in; None for faces that were drawn by hand.
    """

    images: ImageSet | None

    def __new__(cls, faces: Iterable[Face] = (), images: ImageSet | None = None) -> Faces:
        made = super().__new__(cls, tuple(faces))
        made.images = images
        return made

    def __reduce__(self) -> tuple[type[Faces], tuple[tuple[Face, ...], ImageSet | None]]:
        return Faces, (tuple(self), self.images)

    def of_image(self, index: int) -> Faces:
        """The faces of one image, still counted in the batch."""
        return self.only(face for face in self if face.image == index)

    def only(self, faces: Iterable[Face]) -> Faces:
        """Other faces of the same images."""
        return Faces(faces, self.images)

    def check(self, images: Tensor) -> None:
        """Refuse to be used with other images than those of the detection.

        Args:
            images: ``(B, 3, H, W)``.

        Raises:
            InputError: the number, the size or the scene differs, or a face lies in an image that is not there.
        """
        count, (height, width) = len(images), images.shape[-2:]
        outside = [face.image for face in self if not 0 <= face.image < count]
        if outside:
            raise InputError(
                f"the plan has a face in image {outside[0]}, but there {'is' if count == 1 else 'are'}"
                f" {count} image{'s' * (count != 1)}; use the images that the faces were detected in"
            )
        if self.images is None:
            return
        if (self.images.width, self.images.height) != (width, height):
            raise InputError(
                f"the faces were detected in images of {self.images.width} x {self.images.height} pixels, but these are"
                f" {width} x {height}; use the same images, or adapt the faces with Scale Faces"
            )
        if self.images.count != count:
            raise InputError(
                f"the faces were detected in {self.images.count} images, but there are {count}; use the same images"
            )
        different = [
            index
            for index, (a, b) in enumerate(zip(self.images.fingerprints, fingerprints(images), strict=True))
            if not same_scene(a, b)
        ]
        if different:
            raise InputError(
                f"the faces were detected in another image than image {different[0]} of these; detect them again"
            )

    def changed_images(self, images: Tensor) -> tuple[int, ...]:
        """Indices of images ``(B, 3, H, W)`` whose pixels are not known to be exactly those of the detection."""
        known = self.images.digests if self.images is not None else ()
        if not known:
            return tuple(range(len(images)))
        return tuple(i for i, (a, b) in enumerate(zip(known, digests(images), strict=True)) if a != b)

    def scaled(self, images: Tensor) -> Faces:
        """The same faces in the same images at another size, ``(B, 3, H, W)``.

        Raises:
            InputError: the number of images or a scene differs, or the faces were drawn by hand.
        """
        if self.images is None:
            raise InputError(
                "these faces were drawn by hand, so the size of their images is not known; detect them again"
            )
        x, y = images.shape[-1] / self.images.width, images.shape[-2] / self.images.height
        places = tuple((image, (x1 * x, y1 * y, x2 * x, y2 * y)) for image, (x1, y1, x2, y2) in self.images.places)
        moved = Faces(
            (face.stretched(x, y) for face in self),
            replace(self.images, width=images.shape[-1], height=images.shape[-2], digests=(), places=places),
        )
        moved.check(images)
        return moved

    def to_json(self) -> str:
        """As a text that ``from_json`` reads."""
        rows = []
        for face in self:
            row: dict[str, Any] = {
                "box": [round(v, 3) for v in face.box],
                "landmarks": [[round(x, 3), round(y, 3)] for x, y in face.landmarks],
                "score": round(face.score, 4),
                "image": face.image,
                "origin": face.origin,
            }
            if face.track is not None:
                row["track"] = face.track
            rows.append(row)
        document: dict[str, Any] = {"format": PLAN_FORMAT, "faces": rows}
        if self.images is not None:
            prints = [f"{value:064x}" for value in self.images.fingerprints]
            size = {"count": self.images.count, "width": self.images.width, "height": self.images.height}
            places = [[image, *(round(v, 3) for v in box)] for image, box in self.images.places]
            known = {"fingerprints": prints, "digests": list(self.images.digests), "places": places}
            document["images"] = size | known
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Faces:
        """Read a plan from JSON.

        Raises:
            InputError: the text is not JSON, is not a plan of this version, or contains an invalid face.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the face plan is not JSON ({error}); save it again from Detect Faces") from None
        if not isinstance(document, dict) or document.get("format") != PLAN_FORMAT:
            raise InputError(f"the face plan is not of format {PLAN_FORMAT}; save it again from Detect Faces")
        try:
            return cls((_face_from_row(row) for row in document["faces"]), _image_set(document.get("images")))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"the face plan contains an invalid face ({error}); correct or remove it") from None


def _image_set(row: dict[str, Any] | None) -> ImageSet | None:
    if row is None:
        return None
    prints = tuple(int(value, 16) for value in row["fingerprints"])
    known = tuple(str(value) for value in row.get("digests", ()))
    places = tuple(
        (int(image), (float(x1), float(y1), float(x2), float(y2))) for image, x1, y1, x2, y2 in row.get("places", ())
    )
    return ImageSet(int(row["count"]), int(row["width"]), int(row["height"]), prints, known, places)


def _face_from_row(row: dict[str, Any]) -> Face:
    landmarks = tuple((float(x), float(y)) for x, y in row.get("landmarks", []))
    return Face(
        box=tuple(float(v) for v in row["box"]),  # type: ignore[arg-type]  # length is checked by Face
        # Without landmarks a face is redacted, not replaced.
        landmarks=landmarks if _are_usable(landmarks) else (),
        score=float(row.get("score", 1.0)),
        image=int(row.get("image", 0)),
        track=None if row.get("track") is None else int(row["track"]),
        origin=row.get("origin", "manual"),
    )


def _are_usable(landmarks: tuple[tuple[float, float], ...]) -> bool:
    """Whether 68 points have the extent of a face; other numbers of points are for Face to refuse."""
    if len(landmarks) != LANDMARKS:
        return True
    points = np.array(landmarks)
    return bool(np.abs(points).max() < MAX_COORDINATE and inter_ocular(points) >= MIN_INTER_OCULAR)


def eye_centers(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean of the eyelid landmarks of each eye, ``(2,)`` each, image-left eye first."""
    return points[EYE_A].mean(0), points[EYE_B].mean(0)


def inter_ocular(points: np.ndarray) -> float:
    """Compute the inter-ocular distance (IOD), the distance between the eye centers, in pixels."""
    left, right = eye_centers(points)
    return float(np.linalg.norm(right - left))


def yaw_proxy(points: np.ndarray) -> float:
    """Estimate the yaw from the horizontal offset between the nose bridge and the midpoint of the jaw ends, in IOD.

    0 is frontal, about +-0.5 is 35 degrees.
    """
    left, right = eye_centers(points)
    across = (right - left) / np.linalg.norm(right - left)
    ends = (points[0:3].mean(0) + points[14:17].mean(0)) / 2
    return float((points[27:31].mean(0) - ends) @ across / np.linalg.norm(right - left))


def mouth_gap(points: np.ndarray) -> float:
    """Compute the distance between the inner lips, in IOD."""
    return float(np.linalg.norm(points[65:68].mean(0) - points[61:64].mean(0)) / inter_ocular(points))


def brow_height(points: np.ndarray) -> float:
    """Compute the mean height of the brows above the eye centers, in IOD."""
    left, right = eye_centers(points)
    across = (right - left) / np.linalg.norm(right - left)
    down = np.array([-across[1], across[0]])
    return float(((left + right) / 2 - points[BROWS].mean(0)) @ down / np.linalg.norm(right - left))


def eye_opening(points: np.ndarray) -> float:
    """Compute the mean height-to-width ratio of the two eye openings."""
    ratios = []
    for eye in (points[EYE_A], points[EYE_B]):
        height = (np.linalg.norm(eye[1] - eye[5]) + np.linalg.norm(eye[2] - eye[4])) / 2
        ratios.append(height / max(float(np.linalg.norm(eye[3] - eye[0])), 1e-6))
    return float(np.mean(ratios))
