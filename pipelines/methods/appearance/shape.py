"""Compute new landmarks with the proportions of a target shape and the pose and expression of the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...faces.face import BROWS, JAW, MIRROR, MOUTH, NOSE
from ...geometry.shape_model import ShapeFit, ShapeModel

_EYELIDS = slice(36, 48)
PARTS = {"base": (JAW,), "eyes": (BROWS, _EYELIDS), "nose": (NOSE,), "mouth": (MOUTH,)}
"""Landmarks that the shape code of each region moves."""
_REACH = ((JAW, 0.30), (BROWS, 0.17), (_EYELIDS, 0.13), (NOSE, 0.145), (MOUTH, 0.22))
"""Maximum displacement of each part's landmarks in IOD. Larger displacements look like caricatures."""
MAX_EYES, MAX_LIPS, MAX_BROWS, MAX_TURN = 0.14, 0.10, 0.14, 0.06
"""Maximum absolute corrections of eyelid opening (ratio), lip gap, brow height and yaw (IOD)."""
_AT_EARS = np.array([0.3, 0.45, 0.65, 0.85])
_OUTLINE_SHARE = np.concatenate([_AT_EARS, np.ones(9), _AT_EARS[::-1]])
"""Share of its displacement that each point of the jaw keeps: ears and hair stay where they are."""
_ALIGN = 0.3
"""Share of the global affine change that is removed, so that the head keeps its size and roll."""
_TILT, _RISE = (-0.03, 0.03), (-0.05, 0.07)
"""Limits of a brow's change in slope and height. Larger changes look like a frown, worry or surprise."""
_APART = 0.08
"""Limit of an eye's movement to the side. Eyes that are closer together or farther apart by more look odd."""
_SLANT = (-0.13, 0.13)
"""Limits of an eye's change in slope. Larger changes look like anger or sadness."""
_CURVE = (-0.015, 0.010)
"""Limits of the lips' change in curvature. Larger changes look like another expression."""
_EYES = (np.arange(36, 42), np.arange(42, 48))
_UPPER_LIP, _UPPER_SHARE = np.r_[61:64, 49:54], np.array([1, 1, 1, 0.5, 1, 1, 1, 0.5])
_LOWER_LIP, _LOWER_SHARE = np.r_[65:68, 55:60], np.array([1, 1, 1, 0.5, 1, 1, 1, 0.5])


@dataclass(frozen=True)
class Correction:
    """Amounts to add to what must stay, from the difference between detected and requested landmarks.

    Attributes:
        eyes: eyelid opening as a ratio.
        lips: lip gap in IOD.
        brows: height of the brows above the eyes in IOD.
        yaw: ``faces.face.yaw_proxy``, in IOD.
    """

    eyes: float = 0.0
    lips: float = 0.0
    brows: float = 0.0
    yaw: float = 0.0

    def plus(self, error: Correction) -> Correction:
        """Add the remaining error; each amount is clipped to its maximum."""
        limits = np.array([MAX_EYES, MAX_LIPS, MAX_BROWS, MAX_TURN])
        return Correction(*(float(v) for v in np.clip(self.values + error.values, -limits, limits)))

    @property
    def values(self) -> np.ndarray:
        """The four amounts in the order of the attributes."""
        return np.array([self.eyes, self.lips, self.brows, self.yaw])

    @property
    def largest(self) -> float:
        """Largest absolute amount."""
        return float(np.abs(self.values).max())


NO_CORRECTION = Correction()


def new_shape(
    shapes: ShapeModel,
    fit: ShapeFit,
    shape: np.ndarray,
    targets: dict[str, np.ndarray],
    strength: float,
    correction: Correction = NO_CORRECTION,
) -> np.ndarray:
    """Compute the landmarks of the new face.

    Args:
        fit: camera and coefficients of the face in the photo.
        shape: its landmarks ``(68, 2)`` in IOD units, y down.
        targets: region name to shape code ``(S,)``.
        strength: 0 keeps the landmarks, 1 moves them to the target.
        correction: of what must stay.

    Returns:
        ``(68, 2)`` in IOD units.
    """
    moves = sum(region_moves(shapes, fit, shape, name, code[None])[0] for name, code in targets.items())
    result = shape + strength * moves
    result[BROWS, 1] -= correction.brows
    # A jaw that moves to one side looks like a head that turns to the other.
    result[JAW, 0] -= correction.yaw
    _keep_eye_opening(shape, result, correction.eyes)
    _keep_lip_gap(shape, result, correction.lips)
    return result


def region_moves(shapes: ShapeModel, fit: ShapeFit, shape: np.ndarray, name: str, codes: np.ndarray) -> np.ndarray:
    """Compute the landmark displacements ``(N, 68, 2)`` of one region for shape codes ``(N, S)`` at strength 1; other
    landmarks get zero."""
    move = _project_change(shapes, fit, shape, codes)
    if name == "eyes":
        for brow in (slice(17, 22), slice(22, 27)):
            move[:, brow] = _limit_brow(shape[brow], move[:, brow])
        for eye in _EYES:
            aside = move[:, eye, 0].mean(1, keepdims=True)
            move[:, eye, 0] += np.clip(aside, -_APART, _APART) - aside
            move[:, eye] = _limit_slope(shape[eye], move[:, eye], _SLANT)
    elif name == "mouth":
        move[:, MOUTH] = _keep_smile(shape[MOUTH], move[:, MOUTH])
    result = np.zeros_like(move)
    for part, reach in _REACH:
        if part in PARTS[name]:
            longest = np.linalg.norm(move[:, part], axis=2).max(1)
            result[:, part] = move[:, part] * np.minimum(1.0, reach / np.maximum(longest, 1e-9))[:, None, None]
    result[:, JAW] = _across_outline(shape[JAW], result[:, JAW])
    return result


def _project_change(shapes: ShapeModel, fit: ShapeFit, shape: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Project the 3D change from the fitted shape to shape codes ``(N, S)`` with the same camera: displacements ``(N,
    68, 2)``."""
    change = np.tensordot(codes - fit.coefficients, shapes.modes, 1)
    # Symmetrize: the asymmetric part is mostly head rotation that the fit attributed to shape.
    change = (change + change[:, MIRROR] * np.array([-1.0, 1.0, 1.0])) / 2
    move = (change @ fit.camera.T) * np.array([1.0, -1.0])
    design = np.concatenate([shape, np.ones((68, 1))], 1)
    return move - _ALIGN * (design @ (np.linalg.pinv(design) @ move))


def _across_outline(jaw: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Keep the part of jaw displacements ``(N, 17, 2)`` that is perpendicular to the outline.

    A point that slides along it changes no outline, but bends what is behind the head.
    """
    along = np.gradient(jaw, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return (move - (move * along).sum(-1, keepdims=True) * along) * _OUTLINE_SHARE[:, None]


def _limit_brow(brow: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Limit the changes of slope and height in a brow's displacements ``(N, 5, 2)``."""
    move = _limit_slope(brow, move, _TILT)
    height = move[..., 1].mean(1)
    move[..., 1] += (np.clip(height, *_RISE) - height)[:, None]
    return move


def _limit_slope(points: np.ndarray, move: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Limit the change of slope of points ``(P, 2)`` in displacements ``(N, P, 2)``."""
    move = move.copy()
    x = points[:, 0] - points[:, 0].mean()
    slope = (move[..., 1] @ x) / (x @ x)
    move[..., 1] += (np.clip(slope, *limits) - slope)[:, None] * x
    return move


def _keep_smile(mouth: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Limit mouth displacements ``(N, 20, 2)`` to keep the smile. Position, lip shape and width (-7 to +8 %) change."""
    center, shift = mouth.mean(0), move.mean(1, keepdims=True)
    target = mouth + move
    stretch = np.ptp(target[..., 0], axis=1)[:, None] / max(float(np.ptp(mouth[:, 0])), 1e-6)
    form = target - target.mean(1, keepdims=True)
    form[..., 0] /= stretch
    form -= mouth - center
    bow = ((mouth[:, 0] - center[0]) / max(float(np.ptp(mouth[:, 0])) / 2, 1e-6)) ** 2
    bow -= bow.mean()
    curve = (form[..., 1] @ bow) / (bow @ bow)
    form[..., 1] -= (curve - np.clip(curve, *_CURVE))[:, None] * bow
    new = mouth - center + 0.5 * form
    new[..., 0] *= np.clip(stretch, 0.93, 1.08)
    return center + shift + new - mouth


def _keep_eye_opening(shape: np.ndarray, result: np.ndarray, add: float) -> None:
    for eye in _EYES:
        target, current = _opening(shape[eye]) + add * 2, _opening(result[eye])
        middle = result[eye, 1].mean()
        result[eye, 1] = middle + (result[eye, 1] - middle) * np.clip(target / max(current, 0.02), 0.25, 1.7)


def _opening(eye: np.ndarray) -> float:
    return float((eye[4] + eye[5] - eye[1] - eye[2])[1] / np.linalg.norm(eye[3] - eye[0]))


def _keep_lip_gap(shape: np.ndarray, result: np.ndarray, add: float) -> None:
    def gap(points: np.ndarray) -> float:
        return float(points[65:68, 1].mean() - points[61:64, 1].mean())

    half = (gap(shape) + add - gap(result)) / 2
    result[_UPPER_LIP, 1] -= half * _UPPER_SHARE
    result[_LOWER_LIP, 1] += half * _LOWER_SHARE
