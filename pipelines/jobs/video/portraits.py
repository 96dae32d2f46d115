"""The best views of each tracked face: by them a recognizer tells who it is, and for them an identity is searched."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...faces.face import Face, inter_ocular, yaw_proxy
from ...faces.tracking.track import Sighting
from ...imaging.resample import resize
from ...imaging.uint8 import to_tensor

VIEWS = 3
"""Views of a track, and of a person."""
SPACING_SECONDS = 0.4
"""Time between two views of one track: neighbors tell nothing new."""
BETTER = 1.2
"""Factor of the quality from which a view replaces a worse one."""
MIN_SCORE = 0.6
SIDE_VIEW = 0.6
"""Yaw, in inter-ocular distances, at which a view is of little use."""
REACH = 3.0
"""Half side of a view in inter-ocular distances: what methods cut out."""
FAULT_POWER = 4
"""Of the detector's score, which falls where something hides the face, and of the share that lies in the frame."""
DARK = 0.25
"""Mean brightness, in [0, 1], below which a view tells less."""
MAX_IOD = 200.0
"""Pixels between the eyes of a stored view; larger ones are shrunk."""


@dataclass(frozen=True)
class Portrait:
    """One view of a face.

    Attributes:
        frame: number of its frame.
        quality: its size in pixels between the eyes, less for a turned, hidden or dark face.
        image: the face and its surroundings, ``(h, w, 3)``, uint8 or uint16.
        points: its landmarks ``(68, 2)`` in pixels of ``image``.
    """

    frame: int
    quality: float
    image: np.ndarray
    points: np.ndarray

    @property
    def pixels(self) -> Tensor:
        """``(1, 3, h, w)`` in [0, 1], with at most ``MAX_IOD`` pixels between the eyes."""
        image, scale = to_tensor(self.image), self.scale
        return image if scale == 1 else resize(image, *(max(8, round(n * scale)) for n in image.shape[-2:]))

    @property
    def scale(self) -> float:
        return min(1.0, MAX_IOD / inter_ocular(self.points))

    @property
    def face(self) -> Face:
        """The face in ``pixels``."""
        height, width = self.image.shape[:2]
        scaled = [max(8, round(n * self.scale)) / n if self.scale < 1 else 1.0 for n in (width, height)]
        points = self.points * scaled
        low, high = points.min(0), points.max(0)
        return Face((float(low[0]), float(low[1]), float(high[0]), float(high[1]))).with_points(points)


class Portraits:
    """Collects the best views of one track.

    Args:
        rate: frames per second.
    """

    def __init__(self, rate: float) -> None:
        self._spacing = max(1, round(SPACING_SECONDS * rate))
        self.views: list[Portrait] = []

    def offer(self, frame: int, pixels: np.ndarray, sighting: Sighting) -> None:
        """Keep a view of a frame ``(H, W, 3)`` if it is among the best."""
        quality = quality_of(sighting)
        if quality <= 0:
            return
        points = np.asarray(sighting.points, dtype=np.float64)
        quality *= _inside(points, pixels) ** FAULT_POWER * _light(points, pixels)
        near = [v for v in self.views if frame - v.frame < self._spacing]
        rivals = near or (self.views if len(self.views) >= VIEWS else [])
        if rivals:
            worst = min(rivals, key=lambda v: v.quality)
            if quality < BETTER * worst.quality:
                return
            self.views.remove(worst)
        self.views.append(_cut_out(frame, quality, pixels, points))


def quality_of(sighting: Sighting) -> float:
    """How much a view tells: the pixels between the eyes, less for a turned or hidden head; 0 for none."""
    if sighting.points is None or not sighting.is_measured or sighting.score < MIN_SCORE:
        return 0.0
    points = sighting.points.astype(np.float64)
    return inter_ocular(points) * max(0.1, 1 - abs(yaw_proxy(points)) / SIDE_VIEW) * sighting.score**FAULT_POWER


def _inside(points: np.ndarray, pixels: np.ndarray) -> float:
    """Share of the landmarks that lie in the frame."""
    height, width = pixels.shape[:2]
    return float(((points >= 0) & (points < [width, height])).all(1).mean())


def _light(points: np.ndarray, pixels: np.ndarray) -> float:
    """1 for a face that is bright enough, less for a darker one."""
    height, width = pixels.shape[:2]
    columns, rows = np.clip(points.astype(int), 0, [width - 1, height - 1]).T
    brightness = float(pixels[rows, columns].mean()) / np.iinfo(pixels.dtype).max
    return min(1.0, brightness / DARK)


def _cut_out(frame: int, quality: float, pixels: np.ndarray, points: np.ndarray) -> Portrait:
    reach, center = REACH * inter_ocular(points), points[27:36].mean(0)
    height, width = pixels.shape[:2]
    x1, y1 = (int(np.clip(v, 0, n - 1)) for v, n in zip(center - reach, (width, height), strict=True))
    x2, y2 = (int(np.clip(np.ceil(v), 1, n)) for v, n in zip(center + reach, (width, height), strict=True))
    return Portrait(frame, quality, pixels[y1:y2, x1:x2].copy(), points - [x1, y1])
