"""Follow a box from one frame to the next by optical flow: Median Flow (Kalal et al. 2010), on the points that can be
followed back to where they came from."""

from __future__ import annotations

import numpy as np

GRID = 9
"""Points along each side of the box."""
MIN_POINTS = 8
MAX_BACK_ERROR = 1.5
"""Largest distance, in pixels, of a point that was followed there and back from its start."""
WINDOW = 15
"""Side, in pixels, of what is compared around a point."""
LEVELS = 3
"""Of the image pyramid: the largest motion is about ``WINDOW / 2 * 2 ** LEVELS`` pixels."""
MAX_SCALE = 1.25
"""Largest growth of a box from one frame to the next."""
MIN_SIDE = 3.0
"""Pixels: smaller boxes cannot be followed."""


def follow(before: np.ndarray, after: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Where a box of one frame lies in another.

    Args:
        before: gray frame ``(H, W)``, uint8.
        after: another one of the same size.
        box: ``(4,)`` in pixels of ``before``.

    Returns:
        ``(4,)`` in pixels of ``after``; None where too few points can be followed.
    """
    import cv2

    height, width = before.shape
    x1, y1 = np.maximum(box[:2], 0)
    x2, y2 = np.minimum(box[2:], [width - 1, height - 1])
    if x2 - x1 < MIN_SIDE or y2 - y1 < MIN_SIDE:
        return None
    grid = np.meshgrid(np.linspace(x1, x2, GRID), np.linspace(y1, y2, GRID))
    start = np.stack(grid, -1).reshape(-1, 1, 2).astype(np.float32)
    options = {"winSize": (WINDOW, WINDOW), "maxLevel": LEVELS}
    there, found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(after, before, there, None, **options)  # type: ignore[call-overload]
    error = np.linalg.norm(back - start, axis=2)[:, 0]
    good = (found[:, 0] > 0) & (returned[:, 0] > 0) & (error < MAX_BACK_ERROR)
    if good.sum() < MIN_POINTS:
        return None
    a, b = start[good, 0], there[good, 0]
    scale = float(np.clip(_growth(a, b), 1 / MAX_SCALE, MAX_SCALE))
    center = (box[:2] + box[2:]) / 2 + np.median(b - a, axis=0)
    half = (box[2:] - box[:2]) / 2 * scale
    return np.concatenate([center - half, center + half]).astype(np.float32)


def _growth(a: np.ndarray, b: np.ndarray) -> float:
    """Median ratio of the distances between all pairs of points."""
    first, second = np.triu_indices(len(a), 1)
    before = np.linalg.norm(a[first] - a[second], axis=1)
    after = np.linalg.norm(b[first] - b[second], axis=1)
    return float(np.median(after[before > 1] / before[before > 1]))
