"""Smooth tracks without a lag, and close short gaps in their landmarks.

The whole clip is known, so a filter looks as far ahead as back: it removes the jitter of the landmarks and leaves no
delay. Over each window a parabola is fitted (Savitzky and Golay 1964), which follows a steady motion exactly.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .track import Sighting, Track

WINDOW_SECONDS = 0.25
MIN_WINDOW, ORDER = 5, 2
"""Frames of the smallest window, and degree of the fitted polynomial."""
HIDDEN = 0.85
"""Share of a track's median score below which the face is hidden."""
SHORT_GAP_SECONDS = 0.2
"""Longest gap of the detections over which landmarks are interpolated; in a longer one the face is redacted."""


def finish(track: Track, rate: float) -> None:
    """Leave out landmarks of a hidden face, close short gaps of one track, then smooth it.

    Args:
        rate: frames per second.
    """
    hide(track)
    close_gaps(track, max(1, round(SHORT_GAP_SECONDS * rate)))
    length = max(MIN_WINDOW, round(WINDOW_SECONDS * rate) | 1)
    for run in track.runs():
        _smooth(track, run, length)


def hide(track: Track) -> None:
    """Forget the landmarks where the detector's score falls: something hides the face, so they are guesses."""
    measured = track.measured()
    if not measured:
        return
    usual = float(np.median([track.sightings[i].score for i in measured]))
    for i in measured:
        if track.sightings[i].score < HIDDEN * usual:
            track.place(i, points=None)


def close_gaps(track: Track, longest: int) -> None:
    """Interpolate the landmarks over frames without a detection, at most ``longest`` of them."""
    known = [i for i in sorted(track.sightings) if track.sightings[i].points is not None]
    for start, end in pairwise(known):
        inside = [track.sightings[i] for i in range(start + 1, end)]
        if not 1 <= len(inside) <= longest or any(s.is_measured for s in inside):
            continue
        a, b = track.sightings[start], track.sightings[end]
        assert a.points is not None and b.points is not None
        for i in range(start + 1, end):
            share = (i - start) / (end - start)
            box, points = a.box + (b.box - a.box) * share, a.points + (b.points - a.points) * share
            track.sightings[i] = Sighting(box, min(a.score, b.score), points, "interpolated")


def _smooth(track: Track, run: list[int], length: int) -> None:
    window = min(length, len(run) - (len(run) + 1) % 2)
    if window < MIN_WINDOW:
        return
    boxes = np.stack([track.sightings[i].box for i in run])
    points = np.stack([np.asarray(track.sightings[i].points) for i in run])
    smooth_boxes, smooth_points = (parabolas(values, window).astype(np.float32) for values in (boxes, points))
    for place, i in enumerate(run):
        if (smooth_boxes[place][2:] > smooth_boxes[place][:2]).all():
            track.place(i, box=smooth_boxes[place], points=smooth_points[place])


def parabolas(values: np.ndarray, window: int) -> np.ndarray:
    """Values ``(N, ...)`` over time, each replaced by the parabola through the ``window`` values around it.

    The first and the last ones are taken from the parabola of the first and the last window. This is
    ``scipy.signal.savgol_filter``, whose import takes 0.7 s.

    Args:
        window: odd, at most N.
    """
    flat, half = values.reshape(len(values), -1).astype(np.float64), window // 2
    powers = np.vander(np.arange(window) - half, ORDER + 1).astype(np.float64)
    fitted = powers @ np.linalg.pinv(powers)
    middle = np.lib.stride_tricks.sliding_window_view(flat, window, axis=0) @ fitted[half]
    smooth = np.concatenate([fitted[:half] @ flat[:window], middle, fitted[half + 1 :] @ flat[-window:]])
    return smooth.reshape(values.shape)
