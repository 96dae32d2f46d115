"""Find the faces of one video frame: quickly in every frame, and thoroughly now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...imaging.uint8 import to_tensor
from ..align import apply, box_transform, crop, five_points, invert
from ..detectors import Detection, Detector
from ..landmarks import fit_landmarks
from ..names import SensitivityName
from ..search import LOOK, SENSITIVITIES, search

QUICK_SIDES: dict[SensitivityName, int] = {"normal": 640, "high": 1280, "maximum": 1920}
"""Longer side, in pixels, at which every frame is searched."""
LOW = 0.1
"""Score from which a detection continues a track; those of ``faces.search`` start one."""
LOOK_FACE = 40
"""Size, in pixels, of the expected face in a second look."""
LOOKED = 0.3
"""Score from which a second look at a tracked face has found it."""
MAX_LOOKS = 6
"""Uncertain detections of a frame that are looked at again."""
SAME_PLACE = 0.3
"""Intersection over union of the expected face with what the second look finds."""
WINDOW = 1.2
"""Around a face that is analyzed, as a share of its size."""


class FaceFinder:
    """Finds faces in the frames of a video.

    Args:
        detector: of upright faces.
        sensitivity: as in ``detect_faces``.
    """

    def __init__(self, detector: Detector, sensitivity: SensitivityName = "normal") -> None:
        self._detector, self._level = detector, SENSITIVITIES[sensitivity]
        self._side = QUICK_SIDES[sensitivity]

    def small(self, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """A frame ``(H, W, 3)`` of 8 or 16 bits at the size of the quick search, uint8, and the factor to it."""
        import cv2

        height, width = pixels.shape[:2]
        scale = min(1.0, self._side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shrunk = pixels if scale == 1 else np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
        return (shrunk // 257).astype(np.uint8) if shrunk.dtype == np.uint16 else shrunk, scale

    def quick(self, small: np.ndarray, scale: float) -> list[Detection]:
        """Detections with a score of at least ``LOW`` in a shrunk frame, in pixels of the frame itself."""
        image = to_tensor(small)
        height, width = small.shape[:2]
        padded = torch.nn.functional.pad(image, (0, max(0, 64 - width), 0, max(0, 64 - height)), value=0.5)
        found = self._detector(padded, LOW)
        in_frame = [
            Detection(d.box / scale, d.score, None if d.five is None else d.five / scale)
            for d in sorted(found, key=lambda d: -d.score)
        ]
        return _distinct(in_frame)

    def thorough(self, pixels: np.ndarray) -> list[Detection]:
        """What ``detect_faces`` finds in a frame: small, rotated and hidden faces too."""
        return search(to_tensor(pixels), [self._detector], self._level)

    def accepts(self, score: float) -> bool:
        """Whether a detection with this score starts a track."""
        return score >= self._level.accepted

    def look(self, pixels: np.ndarray, box: np.ndarray, roll: float = 0.0) -> Detection | None:
        """Search again around a box, upright and at the size that the detector knows best.

        Args:
            roll: of the expected face, in radians, clockwise in the frame.
        """
        side = float((box[2:] - box[:2]).max())
        if side < 1:
            return None
        area, origin = window(pixels, box)
        place = box - np.tile(origin, 2)
        transform = _turned(box_transform(tuple(place), LOOK, LOOK / LOOK_FACE - 1), roll)  # type: ignore[arg-type]
        half = LOOK_FACE / 2
        middle = np.array([LOOK / 2 - half, LOOK / 2 - half, LOOK / 2 + half, LOOK / 2 + half])
        found = [d for d in self._detector(crop(area, transform, LOOK), LOW) if iou(d.box, middle) > SAME_PLACE]
        if not found:
            return None
        best = max(found, key=lambda d: d.score)
        back = invert(transform)
        center = apply(back, ((best.box[:2] + best.box[2:]) / 2)[None])[0] + origin
        extent = (best.box[2:] - best.box[:2]) / 2 * np.linalg.norm(back[0, :2])
        five = None if best.five is None else apply(back, best.five) + origin
        return Detection(np.concatenate([center - extent, center + extent]), best.score, five)


def measure(pixels: np.ndarray, found: Detection, rounds: int = 1) -> np.ndarray | None:
    """The 68 landmarks ``(68, 2)`` of a detected face, in pixels of the frame."""
    area, origin = window(pixels, found.box)
    five = None if found.five is None else found.five - origin
    points = fit_landmarks(area, found.box - np.tile(origin, 2), five, rounds if five is not None else rounds + 1)
    return None if points is None else points + origin


def roll_of(points: np.ndarray) -> float:
    """Angle of the line between the eyes, in radians; points are 5 or 68."""
    five = points if len(points) == 5 else five_points(points)
    across = five[1] - five[0]
    return float(np.arctan2(across[1], across[0]))


def window(pixels: np.ndarray, box: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The surroundings of a box as a tensor ``(1, 3, h, w)``, and the ``(x, y)`` of their corner in the frame."""
    height, width = pixels.shape[:2]
    pad = WINDOW * float((box[2:] - box[:2]).max())
    x1, y1 = (int(np.clip(v - pad, 0, n - 1)) for v, n in zip(box[:2], (width, height), strict=True))
    x2, y2 = (int(np.clip(np.ceil(v + pad), 1, n)) for v, n in zip(box[2:], (width, height), strict=True))
    return to_tensor(pixels[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]), np.array([x1, y1], float)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes ``(4,)``."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = float(np.prod(np.maximum(high - low, 0)))
    return both / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - both, 1e-6)


def _distinct(found: Sequence[Detection]) -> list[Detection]:
    """Each face once; the better detections come first."""
    kept: list[Detection] = []
    for d in found:
        if all(iou(d.box, k.box) < SAME_PLACE for k in kept):
            kept.append(d)
    return kept


def _turned(transform: np.ndarray, roll: float) -> np.ndarray:
    """A transform into a square of ``LOOK`` pixels, followed by a rotation that makes the face upright."""
    if roll == 0:
        return transform
    c, s = np.cos(-roll), np.sin(-roll)
    rotation, center = np.array([[c, -s], [s, c]]), np.array([LOOK / 2, LOOK / 2])
    return np.concatenate([rotation @ transform[:, :2], (rotation @ (transform[:, 2] - center) + center)[:, None]], 1)
