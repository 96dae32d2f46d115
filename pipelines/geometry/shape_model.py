"""A 3D shape model of the 68 landmarks, learned from 2D landmarks.

Non-rigid structure from motion under weak perspective (Bregler et al. 2000, with the Gaussian prior of Torresani et al.
2008). All faces share one linear model, and each face has its own camera. The variation of head poses in the training
images determines the depth. Axes: x to the right, y up, z towards the viewer, in inter-ocular distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..faces.face import MIRROR

# Initial depth: proportions of an adult head, for the image-left half and the midline. The other half is mirrored.
_DEPTH_JAW = (-0.90, -0.85, -0.75, -0.63, -0.48, -0.28, -0.06, 0.13, 0.18)
_DEPTH_BROW = (-0.20, -0.04, 0.09, 0.18, 0.23)
_DEPTH_BRIDGE = (0.23, 0.35, 0.47, 0.59)
_DEPTH_NOSTRIL = (0.25, 0.34, 0.36)
_DEPTH_EYE = (-0.10, 0.02, 0.05, 0.00, 0.03, 0.00)
_DEPTH_LIPS = {
    48: 0.15,
    49: 0.31,
    50: 0.38,
    51: 0.40,
    57: 0.36,
    58: 0.33,
    59: 0.26,
    60: 0.14,
    61: 0.29,
    62: 0.32,
    66: 0.31,
    67: 0.28,
}

# The jaw landmarks of a rotated head slide over the skin, so they are left out when the pose is estimated.
_WITHOUT_JAW = np.r_[17:68]
_FLIP_Y = np.array([1.0, -1.0])
MAX_STEPS = 4
"""Gauss-Newton steps that fit a camera."""
CONVERGED = 1e-7
"""Rotation in radians below which a further step changes nothing."""


@dataclass(frozen=True)
class ShapeFit:
    """Fit of a shape model to landmarks.

    Attributes:
        camera: first two rows of the rotation times the scale in pixels, ``(2, 3)``.
        shift: position of the model's origin in the image, in pixels, ``(2,)`` (y up).
        coefficients: ``(K,)``, unit variance.
        rotation: ``(3, 3)``.
    """

    camera: np.ndarray
    shift: np.ndarray
    coefficients: np.ndarray
    rotation: np.ndarray

    def project(self, shape: np.ndarray) -> np.ndarray:
        """Project model points ``(N, 3)`` to pixels ``(N, 2)``, y down."""
        return (shape @ self.camera.T + self.shift) * _FLIP_Y

    @property
    def yaw(self) -> float:
        """Yaw of the head in degrees, positive towards image right."""
        return float(np.degrees(np.arctan2(self.rotation[0, 2], self.rotation[2, 2])))

    @property
    def pitch(self) -> float:
        """Pitch of the head in degrees, positive upwards."""
        return float(np.degrees(np.arcsin(np.clip(self.rotation[1, 2], -1, 1))))


@dataclass(frozen=True)
class ShapeModel:
    """Linear model of 68 points in 3D.

    Attributes:
        mean: ``(68, 3)``.
        modes: ``(K, 68, 3)``, scaled so that coefficients have unit variance.
        noise: standard deviation of a detected landmark around the model, in IOD.
    """

    mean: np.ndarray
    modes: np.ndarray
    noise: float

    def shape(self, coefficients: np.ndarray) -> np.ndarray:
        """Compute the shape ``(68, 3)`` from coefficients ``(K,)``."""
        return self.mean + np.tensordot(coefficients, self.modes, 1)

    def fit(self, points: np.ndarray, rounds: int = 6) -> ShapeFit:
        """Fit camera and coefficients of one face to 68 landmarks ``(68, 2)`` in pixels, y down."""
        flat = points * _FLIP_Y
        coefficients = np.zeros(len(self.modes))
        for _ in range(rounds):
            camera, shift, rotation = weak_perspective(self.shape(coefficients)[_WITHOUT_JAW], flat[_WITHOUT_JAW])
            coefficients = self._coefficients(flat[None], camera[None], shift[None])[0][0]
        return ShapeFit(camera, shift, coefficients, rotation)

    def _coefficients(self, flat: np.ndarray, camera: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the posterior mean ``(N, K)`` and covariance ``(N, K, K)`` of the coefficients."""
        n, k = len(flat), len(self.modes)
        design = np.tensordot(camera, self.modes, (2, 2)).transpose(0, 3, 1, 2).reshape(n, -1, k)
        residual = (flat - self.mean @ _t(camera) - shift[:, None]).reshape(n, -1, 1)
        # Convert the noise from model units to pixels.
        noise = (self.noise * np.linalg.norm(camera, axis=(1, 2)) / np.sqrt(2)) ** 2
        covariance = np.linalg.inv(_t(design) @ design / noise[:, None, None] + np.eye(k))
        return (covariance @ (_t(design) @ residual))[..., 0] / noise[:, None], covariance


def weak_perspective(shape: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit scaled orthographic cameras that map ``shape`` ``(..., N, 3)`` to ``flat`` ``(..., N, 2)``, y up, by least
    squares.

    Returns:
        Rotation rows times scale ``(..., 2, 3)``, shift ``(..., 2)``, rotation ``(..., 3, 3)``.
    """
    mu_s, mu_f = shape.mean(-2, keepdims=True), flat.mean(-2, keepdims=True)
    centered, target = shape - mu_s, flat - mu_f
    # The orthogonal rows closest to the affine fit are the initial value. They are not the optimum.
    affine = np.linalg.solve(_t(centered) @ centered, _t(centered) @ target)
    u, d, vt = np.linalg.svd(_t(affine), full_matrices=False)
    rows, scale = u @ vt, d.mean(-1)
    third = np.stack([_minor(rows, 1, 2), _minor(rows, 2, 0), _minor(rows, 0, 1)], -1)
    rotation = np.concatenate([rows, third[..., None, :]], -2)
    jacobian = np.zeros((*centered.shape[:-2], 2, centered.shape[-2], 4))
    for _ in range(MAX_STEPS):
        turned = centered @ _t(rotation)
        scaled = scale[..., None, None] * turned
        jacobian[..., 0, :, 1], jacobian[..., 0, :, 2] = scaled[..., 2], -scaled[..., 1]
        jacobian[..., 1, :, 0], jacobian[..., 1, :, 2] = -scaled[..., 2], scaled[..., 0]
        jacobian[..., 3] = _t(turned[..., :2])
        flattened = jacobian.reshape(*centered.shape[:-2], -1, 4)
        residual = _t(target - scaled[..., :2]).reshape(*centered.shape[:-2], -1, 1)
        step = np.linalg.solve(_t(flattened) @ flattened, _t(flattened) @ residual)[..., 0]
        rotation = _rotate(step[..., :3]) @ rotation
        scale = scale + step[..., 3]
        if np.abs(step[..., :3]).max() < CONVERGED:
            break
    camera = scale[..., None, None] * rotation[..., :2, :]
    return camera, (mu_f - mu_s @ _t(camera))[..., 0, :], rotation


def _minor(rows: np.ndarray, i: int, j: int) -> np.ndarray:
    return np.asarray(rows[..., 0, i] * rows[..., 1, j] - rows[..., 0, j] * rows[..., 1, i])


def _t(matrix: np.ndarray) -> np.ndarray:
    return np.swapaxes(matrix, -1, -2)


def _rotate(axis: np.ndarray) -> np.ndarray:
    """Compute rotation matrices ``(..., 3, 3)`` of rotation vectors ``(..., 3)`` (Rodrigues)."""
    angle = np.sqrt((axis**2).sum(-1))[..., None, None]
    k = np.zeros((*axis.shape, 3))
    for row, column, part, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        k[..., row, column] = sign * axis[..., part]
        k[..., column, row] = -sign * axis[..., part]
    # sinc keeps both factors finite when the angle is zero.
    return np.eye(3) + np.sinc(angle / np.pi) * k + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (k @ k)


def learn_shape_model(
    points: np.ndarray, weights: np.ndarray, components: int = 40, rounds: int = 15, noise: float = 0.012
) -> tuple[ShapeModel, np.ndarray]:
    """Learn a shape model and the coefficients of each face.

    Args:
        points: ``(N, 68, 2)`` landmarks in IOD units, y down; add mirror images for a symmetric model.
        weights: ``(N,)``, relative weight of each face.
        components: K, the number of modes.
        rounds: number of EM iterations.
        noise: expected error of a landmark in IOD. It is fixed, because otherwise the modes would fit the noise.

    Returns:
        The model and the posterior coefficients ``(N, K)``.
    """
    flat = points * _FLIP_Y
    n = len(flat)
    weights = weights / weights.mean()
    mean = np.concatenate([np.average(flat, axis=0, weights=weights), _start_depth()[:, None]], 1)
    mean = _symmetric(mean)
    rng = np.random.default_rng(0)
    centered = flat - mean[:, :2]
    _, s, vt = np.linalg.svd(
        (centered * np.sqrt(weights)[:, None, None]).reshape(n, -1)[rng.permutation(n)[:4000]], full_matrices=False
    )
    scale = s[:components] / np.sqrt(min(n, 4000))
    modes = np.zeros((components, 68, 3))
    modes[:, :, :2] = (vt[:components] * scale[:, None]).reshape(components, 68, 2) * 0.7
    model = ShapeModel(mean, modes, noise)
    coefficients = np.zeros((n, components))
    for step in range(rounds + 1):
        shapes = model.mean + np.tensordot(coefficients, model.modes, 1)
        camera, shift, _ = weak_perspective(shapes[:, _WITHOUT_JAW], flat[:, _WITHOUT_JAW])
        coefficients, covariance = model._coefficients(flat, camera, shift)
        # No M step in the last round, so that the coefficients belong to the model that is returned.
        if step < rounds:
            model = _maximize(flat, weights, camera, shift, coefficients, covariance, model)
    return model, coefficients


def _maximize(
    flat: np.ndarray,
    weights: np.ndarray,
    camera: np.ndarray,
    shift: np.ndarray,
    coefficients: np.ndarray,
    covariance: np.ndarray,
    model: ShapeModel,
) -> ShapeModel:
    """M step: solve for mean and modes by one weighted least-squares problem per landmark.

    The problem is regularized towards the previous model.
    """
    n, k = coefficients.shape
    extended = np.concatenate([np.ones((n, 1)), coefficients], 1)
    second = np.einsum("na,nb->nab", extended, extended)
    second[:, 1:, 1:] += covariance
    gram = _t(camera) @ camera
    weighted = (second * weights[:, None, None]).reshape(n, -1)
    system = (
        (weighted.T @ gram.reshape(n, 9)).reshape(k + 1, k + 1, 3, 3).transpose(0, 2, 1, 3).reshape(3 * (k + 1), -1)
    )
    ridge = 1e-3 * n
    old = np.concatenate([model.mean[None], model.modes]).transpose(1, 0, 2).reshape(68, -1)
    back = (flat - shift[:, None]) @ camera
    target = np.tensordot(back, extended * weights[:, None], (0, 0)).transpose(0, 2, 1).reshape(68, -1)
    solved = np.linalg.solve(system + ridge * np.eye(len(system)), (target + ridge * old).T).T.reshape(68, k + 1, 3)
    mean = _symmetric(solved[:, 0])
    modes = solved[:, 1:].transpose(1, 0, 2)
    # Keep the prior at unit variance: multiply the modes by the square root of the coefficients' covariance.
    spread = ((coefficients * weights[:, None]).T @ coefficients + np.tensordot(weights, covariance, 1)) / weights.sum()
    values, vectors = np.linalg.eigh(spread)
    # The symmetric square root does not rotate the modes, so the coefficients of one round can initialize the next.
    modes = np.tensordot((vectors * np.sqrt(np.maximum(values, 1e-9))) @ vectors.T, modes, 1)
    return ShapeModel(mean, modes, model.noise)


def _symmetric(shape: np.ndarray) -> np.ndarray:
    return (shape + shape[MIRROR] * np.array([-1.0, 1.0, 1.0])) / 2


def _start_depth() -> np.ndarray:
    depth = np.zeros(68)
    depth[0:9], depth[17:22], depth[27:31] = _DEPTH_JAW, _DEPTH_BROW, _DEPTH_BRIDGE
    depth[31:34], depth[36:42] = _DEPTH_NOSTRIL, _DEPTH_EYE
    for index, value in _DEPTH_LIPS.items():
        depth[index] = value
    filled = np.zeros(68, bool)
    filled[[*range(0, 9), *range(17, 22), *range(27, 34), *range(36, 42), *_DEPTH_LIPS]] = True
    depth[~filled] = depth[MIRROR[~filled]]
    return depth
