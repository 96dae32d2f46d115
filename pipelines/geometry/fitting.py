"""Fit a morphable model to a face: first to the landmarks, then light and texture, then all parameters to the image.

Gauss-Newton steps maximize the posterior of 68 landmarks with an error of about 1 % of the inter-ocular distance, image
colors at the visible vertices, and coefficients of unit variance. The method needs no training and no autograd graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.progress import Progress, silent
from ..faces.align import apply, crop
from .alignment import SIDE, reconstruction_transform
from .camera import FOCAL, angles_of, place, project
from .coefficients import Coefficients
from .gaze import gaze_of
from .lighting import AMBIENT, BANDS, basis, shading
from .morphable import MorphableModel
from .rasterizer import rasterize

LANDMARK_ERROR = 0.6
"""Expected error of a landmark in pixels of the aligned square, in which the eyes are about 63 px apart."""
FOREIGN_LANDMARK_ERROR = 0.8
"""The same for models whose landmarks are defined otherwise. More would fit their faces into caricatures."""
_JAW_ERROR = 1.8
"""Expected error of a jaw landmark. On a rotated head these points follow the visible outline of the face, and not
fixed points of the skin."""
PHOTO_ERROR = 0.10
"""Expected error of the color of a vertex, which neither light nor texture modes explain."""
EXPRESSION_SPREAD = 0.5
"""Prior standard deviation of blend-shape coefficients, whose range is 0 to 1."""
_LANDMARK_STEPS, _PHOTO_STEPS = 12, 4
_PHOTO_VERTICES = 1500
"""Approximate number of vertices that are compared with the image."""
_MIN_FACING = 0.25
"""Minimum z of the unit normal of a vertex that is compared with the image."""
_LIGHT_PRIOR = 0.02
"""Weight of the lighting prior relative to the total weight of the vertices."""


@dataclass(frozen=True)
class Estimate:
    """Coefficients of N faces and their alignment transforms.

    Attributes:
        coefficients: for the camera of the aligned square.
        transforms: from image pixels to pixels of each aligned square of 224 px, ``(N, 2, 3)``.
        errors: mean distance between detected and fitted landmarks without the jaw line, in inter-ocular distances,
            ``(N,)``; nan if unknown.
    """

    coefficients: Coefficients
    transforms: Tensor
    errors: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def rows(self, chosen: Sequence[int]) -> Estimate:
        """Select rows, in the given order."""
        return Estimate(self.coefficients.rows(chosen), self.transforms[list(chosen)], self.errors[list(chosen)])


class Fitter:
    """Estimate coefficients by optimization, without a network."""

    def __init__(self, model: MorphableModel) -> None:
        self.model = model
        self._landmarks = _LandmarkTerm(model)

    def __call__(self, image: Tensor, points: np.ndarray, progress: Progress = silent) -> Estimate:
        """Fit one face of ``image`` ``(1, 3, H, W)`` with 68 landmarks ``(68, 2)`` in pixels."""
        # ComfyUI runs nodes in inference mode. Some operations reject a mix of inference tensors and normal tensors.
        with torch.inference_mode(False), torch.no_grad():
            image = image.clone()
            transform = reconstruction_transform(points, *image.shape[-2:])
            square = crop(image, transform, SIDE)
            target = torch.from_numpy(apply(transform, points))
            total = _LANDMARK_STEPS + _PHOTO_STEPS
            state = _State.start(self.model)
            for step in range(_LANDMARK_STEPS):
                progress(step, total, "fitting landmarks")
                state = self._step(state, target, None)
            photo = _PhotoTerm(self.model, square, state)
            for step in range(_PHOTO_STEPS):
                progress(_LANDMARK_STEPS + step, total, "fitting the image")
                photo.solve(state)
                state = self._step(state, target, photo)
            photo.solve(state)
            progress(total, total, "fitting the image")
            gaze = torch.from_numpy(gaze_of(image, points))[None].float()
            coefficients = Coefficients(
                self.model.name,
                state.identity[None].float(),
                state.expression[None].float(),
                photo.texture[None].float(),
                photo.lighting.reshape(1, -1).float(),
                angles_of(state.rotation)[None].float(),
                state.translation[None].float(),
                gaze,
            )
            error = landmark_errors(self.model, coefficients, target[None])
            return Estimate(coefficients, torch.from_numpy(transform)[None].float(), error)

    def _step(self, state: _State, target: Tensor, photo: _PhotoTerm | None) -> _State:
        """Take one Gauss-Newton step on landmarks, priors and, if ``photo`` is given, image colors."""
        k, e = len(state.identity), len(state.expression)
        design, residual, weight = self._landmarks.equations(state, target)
        left = (design * weight[:, None]).T @ design
        right = (design * weight[:, None]).T @ residual
        if photo is not None:
            jacobian, error = photo.equations(state)
            # Robust weights: large color errors come from hair, glasses or shadows.
            robust = 1 / (PHOTO_ERROR**2 + error**2) * (len(self._landmarks.mean) / max(len(error), 1))
            left += (jacobian * robust[:, None]).T @ jacobian
            right += (jacobian * robust[:, None]).T @ error
        prior = torch.cat([torch.zeros(6), torch.ones(k), torch.full((e,), self._landmarks.expression_weight)]).double()
        current = torch.cat([torch.zeros(6).double(), state.identity, state.expression])
        low, high = (torch.full_like(current, side * torch.inf) for side in (-1, 1))
        # Without bounds in the solution, coefficients that are clamped afterwards would leave others wrong.
        low[6 + k :], high[6 + k :] = (bound - state.expression for bound in self.model.expression_range)
        step = _solve_bounded(left + torch.diag(prior + 1e-9), right - prior * current, low, high)
        return state.updated(step, self.model.expression_range)


@dataclass(frozen=True)
class _State:
    """Current parameters of the fit, in double precision."""

    rotation: Tensor
    translation: Tensor
    identity: Tensor
    expression: Tensor

    @classmethod
    def start(cls, model: MorphableModel) -> _State:
        k, e, _ = model.sizes
        return cls(torch.eye(3).double(), torch.zeros(3).double(), torch.zeros(k).double(), torch.zeros(e).double())

    def updated(self, step: Tensor, expressions: tuple[float, float]) -> _State:
        k = len(self.identity)
        # The linearization of the rotation holds for small angles only: limit the step to 0.35 rad.
        rotation = step[:3] * min(1.0, 0.35 / max(float(step[:3].norm()), 1e-9))
        expression = (self.expression + step[6 + k :]).clamp(*expressions)
        return _State(
            _from_rotation_vector(rotation) @ self.rotation,
            self.translation + step[3:6],
            self.identity + step[6 : 6 + k],
            expression,
        )

    def jacobian(self, points: Tensor, identity: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate and translate points, and compute the Jacobian of the result.

        Args:
            points: ``(P, 3)`` of the current shape, in model coordinates.
            identity, expression: modes at these points, ``(K, P, 3)``, ``(E, P, 3)``.

        Returns:
            Points ``(P, 3)`` in world coordinates, and their Jacobian ``(P, 3, 6 + K + E)`` with respect to rotation,
            translation, identity and expression.
        """
        rotated = points @ self.rotation.T
        x, y, z = rotated.unbind(1)
        zero = torch.zeros_like(x)
        # A small rotation vector w moves a point p by w x p.
        by_rotation = torch.stack(
            [torch.stack([zero, -z, y], 1), torch.stack([z, zero, -x], 1), torch.stack([-y, x, zero], 1)], 2
        )
        by_translation = torch.eye(3).double().expand(len(points), -1, -1)
        modes = (torch.cat([identity, expression]) @ self.rotation.T).permute(1, 2, 0)
        return rotated + self.translation, torch.cat([by_rotation, by_translation, modes], 2)


class _LandmarkTerm:
    """Landmark term of the posterior."""

    def __init__(self, model: MorphableModel) -> None:
        self.mean, self.identity, self.expression = (part.double() for part in model.landmark_modes)
        self.expression_weight = 1.0 if model.expression_range[0] < 0 else EXPRESSION_SPREAD**-2
        foreign = model.landmark_offsets is not None
        error = torch.full((68,), FOREIGN_LANDMARK_ERROR if foreign else LANDMARK_ERROR).double()
        error[:17] = _JAW_ERROR
        self.weight = (error**-2).repeat_interleave(2)

    def equations(self, state: _State, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute Jacobian ``(136, U)``, residuals ``(136,)`` and weights ``(136,)`` of the landmark pixels."""
        shape = (
            self.mean
            + torch.tensordot(state.identity, self.identity, 1)
            + torch.tensordot(state.expression, self.expression, 1)
        )
        placed, jacobian = state.jacobian(shape, self.identity, self.expression)
        flat, pixel_jacobian = _project_with_jacobian(placed, jacobian)
        return pixel_jacobian.reshape(136, -1), (target - flat).reshape(-1), self.weight


class _PhotoTerm:
    """Photometric term of the posterior: light and texture of one face, and the Jacobian of its colors."""

    def __init__(self, model: MorphableModel, square: Tensor, state: _State) -> None:
        self.model = model
        self.square = square[0].double()
        self._gradient = torch.stack(torch.gradient(self.square, dim=(2, 1)), -1)
        self.lighting = torch.zeros(3, BANDS).double()
        self.texture = torch.zeros(model.sizes[2]).double()
        self._chosen = self._visible(state)
        part = self._chosen
        self._mean, self._identity, self._expression = (
            model.mean[part].double(),
            model.identity[:, part].double(),
            model.expression[:, part].double(),
        )
        self._texture_mean, self._texture_modes = model.texture_mean[part].double(), model.texture[:, part].double()

    def _visible(self, state: _State) -> Tensor:
        """Select every n-th vertex that faces the camera and is not hidden: indices ``(P,)``."""
        vertices = self.model.vertices(state.identity[None].float(), state.expression[None].float())
        placed = place(vertices, angles_of(state.rotation)[None].float(), state.translation[None].float())
        normals = self.model.normals(placed)[0]
        flat, depth = project(placed, SIDE)
        faces = rasterize(flat, depth, self.model.triangles, SIDE, SIDE)[0]
        visible = torch.zeros(len(normals), dtype=torch.bool)
        visible[self.model.triangles[faces[faces >= 0].unique()].reshape(-1)] = True
        inside = ((flat[0] > 2) & (flat[0] < SIDE - 2)).all(1)
        chosen = (visible & inside & (normals[:, 2] > _MIN_FACING)).nonzero()[:, 0]
        return chosen[:: max(1, len(chosen) // _PHOTO_VERTICES)]

    def solve(self, state: _State) -> None:
        """Solve for light and texture at the current shape, alternately: each is linear if the other is fixed."""
        shape = self._shape(state)
        color, _ = self._sample(project((shape @ state.rotation.T + state.translation)[None], SIDE)[0][0])
        harmonics = basis(self._normals(state))
        for _ in range(3):
            albedo = self._albedo()
            for channel in range(3):
                design = harmonics * albedo[:, channel : channel + 1]
                residual = color[:, channel] - AMBIENT * design[:, 0]
                robust = 1 / (PHOTO_ERROR**2 + (residual - design @ self.lighting[channel]) ** 2)
                # The visible normals span half of the sphere. Without a prior, the light on the other half would be
                # undetermined.
                left = (design * robust[:, None]).T @ design + _LIGHT_PRIOR * robust.sum() * torch.diag(
                    torch.tensor([0.01] + [1.0] * 8).double()
                )
                self.lighting[channel] = torch.linalg.solve(left, (design * robust[:, None]).T @ residual)
            shade = self._shade(state).clamp(min=0.05)
            self._solve_texture(color, shade)

    def _solve_texture(self, color: Tensor, shade: Tensor) -> None:
        if self.model.texture_scale == "log":
            design, residual = (
                self._texture_modes.flatten(1).T,
                (color.clamp(min=0.02) / shade).log() - self._texture_mean,
            )
        else:
            design, residual = (self._texture_modes * shade).flatten(1).T, color - self._texture_mean * shade
        residual = residual.flatten()
        robust = 1 / (PHOTO_ERROR**2 + (residual - design @ self.texture) ** 2)
        # Errors of neighboring vertices are correlated: reduce the weight of the image relative to the prior.
        robust = robust * 0.25
        left = (design * robust[:, None]).T @ design + torch.eye(len(self.texture)).double()
        self.texture = torch.linalg.solve(left, (design * robust[:, None]).T @ residual)

    def equations(self, state: _State) -> tuple[Tensor, Tensor]:
        """Compute the Jacobian of colors at the visible vertices ``(3P, U)`` and the residuals ``(3P,)``."""
        placed, jacobian = state.jacobian(self._shape(state), self._identity, self._expression)
        flat, pixel_jacobian = _project_with_jacobian(placed, jacobian)
        color, gradient = self._sample(flat)
        rendered = self._albedo() * self._shade(state)
        # When a vertex moves in the image, the image color under it changes by gradient times motion. The rendered
        # color of the vertex is treated as constant.
        return (gradient @ pixel_jacobian).flatten(0, 1), (rendered - color).flatten()

    def _shape(self, state: _State) -> Tensor:
        return (
            self._mean
            + torch.tensordot(state.identity, self._identity, 1)
            + torch.tensordot(state.expression, self._expression, 1)
        )

    def _shade(self, state: _State) -> Tensor:
        return shading(self._normals(state)[None], self.lighting.reshape(1, -1))[0]

    def _normals(self, state: _State) -> Tensor:
        vertices = self.model.vertices(state.identity[None].float(), state.expression[None].float())
        return (self.model.normals(vertices)[0, self._chosen].double()) @ state.rotation.T

    def _albedo(self) -> Tensor:
        value = self._texture_mean + torch.tensordot(self.texture, self._texture_modes, 1)
        return value.exp() if self.model.texture_scale == "log" else value

    def _sample(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Sample color ``(P, 3)`` and spatial gradient ``(P, 3, 2)`` of the aligned square at pixels ``(P, 2)``."""
        grid = (flat / SIDE * 2 - 1)[None, None]
        maps = torch.cat([self.square, self._gradient.permute(3, 0, 1, 2).flatten(0, 1)])[None]
        sampled = torch.nn.functional.grid_sample(maps, grid, align_corners=False, padding_mode="border")[0, :, 0].T
        return sampled[:, :3], sampled[:, 3:].unflatten(1, (2, 3)).transpose(1, 2)


def _solve_bounded(matrix: Tensor, vector: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The ``x`` ``(U,)`` between ``low`` and ``high`` that minimizes x A x / 2 - b x, for a positive definite A."""
    from scipy.optimize import lsq_linear

    free = torch.linalg.solve(matrix, vector)
    if ((free >= low) & (free <= high)).all():
        return free
    # As least squares: |L^T x - L^-1 b|^2 with A = L L^T.
    lower = torch.linalg.cholesky(matrix)
    wanted = torch.linalg.solve_triangular(lower, vector[:, None], upper=False)[:, 0]
    # lsq_linear needs some room between the bounds.
    bounds = (low.clamp(max=-1e-9).numpy(), high.clamp(min=1e-9).numpy())
    return torch.from_numpy(lsq_linear(lower.T.numpy(), wanted.numpy(), bounds, method="bvls").x)


def _project_with_jacobian(placed: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """Project points ``(P, 3)`` with Jacobian ``(P, 3, U)`` to pixels ``(P, 2)`` with Jacobian ``(P, 2, U)``."""
    flat, distance = project(placed[None], SIDE)
    scale = FOCAL * SIDE / distance[0]
    x, y = scale * placed[:, 0], scale * placed[:, 1]
    across = scale[:, None] * jacobian[:, 0] + (x / distance[0])[:, None] * jacobian[:, 2]
    down = -scale[:, None] * jacobian[:, 1] - (y / distance[0])[:, None] * jacobian[:, 2]
    return flat[0], torch.stack([across, down], 1)


def _from_rotation_vector(step: Tensor) -> Tensor:
    """Compute the rotation matrix ``(3, 3)`` of a rotation vector ``(3,)``."""
    x, y, z = step
    zero = torch.zeros_like(x)
    return torch.matrix_exp(
        torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    )


def landmark_errors(model: MorphableModel, coefficients: Coefficients, target: Tensor) -> Tensor:
    """Compute the mean distance ``(N,)`` between fitted landmarks and ``target`` ``(N, 68, 2)``.

    Landmarks are in pixels of the aligned squares. The jaw line is left out. The unit is the inter-ocular distance.
    """
    distance = (project_landmarks(model, coefficients).double() - target)[:, 17:].norm(dim=2).mean(1)
    eyes = target[:, 36:42].mean(1) - target[:, 42:48].mean(1)
    return (distance / eyes.norm(dim=1)).float()


def project_landmarks(model: MorphableModel, coefficients: Coefficients) -> Tensor:
    """Project the 68 landmarks of N faces to pixels of their aligned squares, ``(N, 68, 2)``."""
    mean, identity, expression = model.landmark_modes
    shape = (
        mean
        + torch.einsum("nk,kpd->npd", coefficients.identity, identity)
        + torch.einsum("ne,epd->npd", coefficients.expression, expression)
    )
    return project(place(shape, coefficients.angles, coefficients.translation), SIDE)[0]
