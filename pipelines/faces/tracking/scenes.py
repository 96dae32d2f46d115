"""Shrink the frames of a video for the search of faces, and find its cuts. A scene begins with no knowledge of the one
before, so scenes can be searched apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..detectors import Detection
from .finder import FaceFinder

CUT = 0.09
"""Mean absolute difference of two frames in [0, 1], shrunk to a thumbnail, at which the scene changes."""
CUT_RISE = 2.5
"""The difference at a cut, as a multiple of the one before: a fast pan has large differences, too."""
THUMBNAIL = (32, 18)
MEMORY = 2
"""Frames before a cut by which it is known."""
SEARCHED_EVERY = 2
"""The first frame of a scene and every second one are searched as a whole, the others where faces are known to be."""


@dataclass(frozen=True)
class Shrunk:
    """A frame at the size of the quick search.

    Attributes:
        pixels: ``(h, w, 3)``, uint8.
        scale: factor from the frame to it.
        is_cut: whether a scene begins with it; never true of the first frame.
        may_be_cut: whether it differs as much from the frame before, and that one from the one before it: a shot of one
            frame, a flash, or a fast pan.
        found: what the quick search finds in it; None in frames that are searched only where faces are known to be.
    """

    pixels: np.ndarray
    scale: float
    is_cut: bool
    found: list[Detection] | None
    may_be_cut: bool = False


class Scenes:
    """Takes the frames of a video one after the other.

    Args:
        finder: shrinks and searches them.
    """

    def __init__(self, finder: FaceFinder) -> None:
        self._finder = finder
        self._thumbnail: np.ndarray | None = None
        self._difference = 0.0
        self._restless = False
        self._number = -1

    def next(self, pixels: np.ndarray) -> Shrunk:
        """Shrink the next frame ``(H, W, 3)``, uint8 or uint16, and search it."""
        small, scale = self._finder.small(pixels)
        return self._searched(small, scale, *self._changes(small))

    def next_cut(self, pixels: np.ndarray) -> Shrunk | None:
        """The same where a scene begins with the next frame; None for other frames, which are not searched."""
        small, scale = self._finder.small(pixels)
        is_cut, _ = self._changes(small)
        return self._searched(small, scale, True, False) if is_cut else None

    def _searched(self, small: np.ndarray, scale: float, is_cut: bool, may_be_cut: bool) -> Shrunk:
        self._number = 0 if is_cut or may_be_cut else self._number + 1
        found = self._finder.quick(small, scale) if self._number % SEARCHED_EVERY == 0 else None
        return Shrunk(small, scale, is_cut, found, may_be_cut)

    def _changes(self, small: np.ndarray) -> tuple[bool, bool]:
        """Whether a scene begins with the next frame, and whether one may begin with it."""
        import cv2

        before, last = self._thumbnail, self._difference
        self._thumbnail = cv2.resize(small, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if before is None:
            return False, False
        self._difference = float(np.abs(self._thumbnail - before).mean())
        is_large = self._difference > CUT
        is_cut = is_large and self._difference > CUT_RISE * last
        may_be_cut = is_large and not is_cut and self._restless
        self._restless = is_cut or may_be_cut
        return is_cut, may_be_cut
