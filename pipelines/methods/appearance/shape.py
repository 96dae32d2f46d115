"""New landmarks: another person's proportions with this photo's pose and expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...faces.face import BROWS, JAW, MIRROR, MOUTH, NOSE
from ...geometry.shape_model import ShapeFit, ShapeModel

REACH = {"jaw": 0.32, "brows": 0.18, "eyes": 0.14, "nose": 0.25, "mouth": 0.25}
"""Largest move of a point in inter-ocular distances: beyond it skin visibly stretches."""
_PARTS = {"jaw": JAW, "brows": BROWS, "eyes": slice(36, 48), "nose": NOSE, "mouth": MOUTH}
MOST_EYES, MOST_LIPS = 0.12, 0.06
"""Limits of a correction of eyelid opening (ratio) and lip gap (IOD)."""
_ALIGN = 0.4
"""Share of the overall affine change that is taken out, so that the head keeps its size and lean."""
_EYES = (np.arange(36, 42), np.arange(42, 48))
_UPPER_LIP, _UPPER_SHARE = np.r_[61:64, 49:54], np.array([1, 1, 1, 0.5, 1, 1, 1, 0.5])
_LOWER_LIP, _LOWER_SHARE = np.r_[65:68, 55:60], np.array([1, 1, 1, 0.5, 1, 1, 1, 0.5])


@dataclass(frozen=True)
class Correction:
    """What to add to eyelid opening (ratio) and lip gap (IOD), because a landmark model sees the new face a little differently."""

    eyes: float = 0.0
    lips: float = 0.0

    def plus(self, error: Correction) -> Correction:
        """Add what is still wrong, within limits that keep eyelids and lips natural."""
        eyes, lips = np.clip([self.eyes + error.eyes, self.lips + error.lips], [-MOST_EYES, -MOST_LIPS], [MOST_EYES, MOST_LIPS])
        return Correction(float(eyes), float(lips))


NO_CORRECTION = Correction()


def new_shape(
    shapes: ShapeModel, fit: ShapeFit, shape: np.ndarray, targets: dict[str, np.ndarray], strength: float,
    correction: Correction = NO_CORRECTION,
) -> np.ndarray:
    """Landmarks of the new face.

    Args:
        fit: camera and coefficients of the photo's face.
        shape: its landmarks ``(68, 2)`` in IOD units, y down.
        targets: region name to shape code ``(S,)``.
        strength: 0 leaves the landmarks, 1 goes to the target.

    Returns:
        ``(68, 2)`` in IOD units.
    """
    moves = {name: _move(shapes, fit, shape, code) for name, code in targets.items()}
    result = shape.copy()
    result[JAW] += moves["base"][JAW]
    result[36:48] += moves["eyes"][36:48]
    for brow in (slice(17, 22), slice(22, 27)):
        result[brow] += _calm_brow(shape[brow], moves["eyes"][brow])
    result[NOSE] += moves["nose"][NOSE]
    result[MOUTH] = _same_mouth(shape[MOUTH], moves["mouth"][MOUTH])
    for part, index in _PARTS.items():
        move = (result[index] - shape[index]) * strength
        longest = float(np.linalg.norm(move, axis=1).max())
        result[index] = shape[index] + move * min(1.0, REACH[part] * max(1.0, strength) / max(longest, 1e-9))
    _keep_eye_opening(shape, result, correction.eyes)
    _keep_lip_gap(shape, result, correction.lips)
    return result


def _move(shapes: ShapeModel, fit: ShapeFit, shape: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Move of the 68 points in the picture when the face in space takes another shape under the same camera."""
    change = np.tensordot(code - fit.coefficients, shapes.modes, 1)
    # What is not mirror-symmetric is mostly a head turn that the fit mistook for shape.
    change = (change + change[MIRROR] * np.array([-1.0, 1.0, 1.0])) / 2
    move = (change @ fit.camera.T) * np.array([1.0, -1.0])
    design = np.concatenate([shape, np.ones((68, 1))], 1)
    return move - _ALIGN * design @ np.linalg.lstsq(design, move, rcond=None)[0]


def _calm_brow(brow: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Limit tilt and height of a brow's move, which read as a frown or surprise."""
    move = move.copy()
    x = brow[:, 0] - brow[:, 0].mean()
    slope = float((move[:, 1] * x).sum() / (x * x).sum())
    move[:, 1] += (np.clip(slope, -0.06, 0.06) - slope) * x
    height = float(move[:, 1].mean())
    move[:, 1] += np.clip(height, -0.08, 0.11) - height
    return move


def _same_mouth(mouth: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Another mouth with the same smile: place and lip shape change, width by 8 % at most."""
    centre, shift = mouth.mean(0), move.mean(0)
    target = mouth + move
    stretch = np.ptp(target[:, 0]) / max(float(np.ptp(mouth[:, 0])), 1e-6)
    width = float(np.clip(stretch, 0.93, 1.08))
    form = (target - target.mean(0)) * np.array([1 / stretch, 1.0]) - (mouth - centre)
    return centre + shift + (mouth - centre + 0.5 * form) * np.array([width, 1.0])


def _keep_eye_opening(shape: np.ndarray, result: np.ndarray, add: float) -> None:
    for eye in _EYES:
        wanted, got = _opening(shape[eye]) + add * 2, _opening(result[eye])
        middle = result[eye, 1].mean()
        result[eye, 1] = middle + (result[eye, 1] - middle) * np.clip(wanted / max(got, 0.02), 0.25, 1.7)


def _opening(eye: np.ndarray) -> float:
    return float((eye[4] + eye[5] - eye[1] - eye[2])[1] / np.linalg.norm(eye[3] - eye[0]))


def _keep_lip_gap(shape: np.ndarray, result: np.ndarray, add: float) -> None:
    def gap(points: np.ndarray) -> float:
        return float(points[65:68, 1].mean() - points[61:64, 1].mean())

    half = (gap(shape) + add - gap(result)) / 2
    result[_UPPER_LIP, 1] -= half * _UPPER_SHARE
    result[_LOWER_LIP, 1] += half * _LOWER_SHARE


