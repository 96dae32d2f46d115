"""Fit a morphable model to a face: landmarks first, then light and texture, then everything against the picture.

Gauss-Newton steps on the posterior: 68 landmarks with an error of about 1 % of the distance between the eyes, the
brightness of the picture at the visible vertices, and coefficients of unit variance. Nothing is learned, no gradient
graph is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..faces.align import apply, crop
from ..progress import Progress, silent
from .alignment import SIDE, reconstruction_transform
from .camera import FOCAL, angles_of, place, project
from .coefficients import Coefficients
from .gaze import gaze_of
from .lighting import AMBIENT, BANDS, basis, shading
from .morphable import MorphableModel
from .renderer import rasterise

LANDMARK_ERROR = 0.6
"""Expected error of a landmark in pixels of the square, where the eyes are about 63 px apart."""
_JAW_ERROR = 1.8
"""The jaw line's points slide along the cheek of a turned head: they say where the outline is, not where they are on
it."""
PHOTO_ERROR = 0.10
"""Expected error of a vertex's colour: what neither light nor texture modes explain."""
EXPRESSION_SPREAD = 0.5
"""Prior of blend shapes, whose coefficients run from 0 to 1."""
_LANDMARK_STEPS, _PHOTO_STEPS = 12, 4
_SEEN = 1500
"""Vertices that are compared with the picture."""
_FACING = 0.25
_LIGHT_PRIOR = 0.02


@dataclass(frozen=True)
class Estimate:
    """Coefficients of N faces and where they lie.

    Attributes:
        coefficients: under the camera of the aligned square.
        transforms: from the picture to each square of 224 px, ``(N, 2, 3)``.
        errors: mean distance between measured and explained landmarks without the jaw, in distances between the eyes,
            ``(N,)``.
    """

    coefficients: Coefficients
    transforms: Tensor
    errors: Tensor

    def __len__(self) -> int:
        return len(self.coefficients)

    def rows(self, chosen: Sequence[int]) -> Estimate:
        """Some rows, in this order."""
        return Estimate(self.coefficients.rows(chosen), self.transforms[list(chosen)], self.errors[list(chosen)])


class Fitter:
    """Estimates coefficients by optimisation; needs no weights."""

    def __init__(self, model: MorphableModel) -> None:
        self.model = model
        self._bone = _Skeleton(model)

    def __call__(self, picture: Tensor, points: np.ndarray, progress: Progress = silent) -> Estimate:
        """Fit one face of ``picture`` ``(1, 3, H, W)`` with 68 landmarks ``(68, 2)``."""
        # ComfyUI runs nodes in inference mode; its tensors cannot be mixed with ours everywhere.
        with torch.inference_mode(False), torch.no_grad():
            picture = picture.clone()
            transform = reconstruction_transform(points, *picture.shape[-2:])
            square = crop(picture, transform, SIDE)
            target = torch.from_numpy(apply(transform, points))
            total = _LANDMARK_STEPS + _PHOTO_STEPS
            state = _State.start(self.model)
            for step in range(_LANDMARK_STEPS):
                progress(step, total, "fitting landmarks")
                state = self._step(state, target, None)
            look = _Look(self.model, square, state)
            for step in range(_PHOTO_STEPS):
                progress(_LANDMARK_STEPS + step, total, "fitting the picture")
                look.solve(state)
                state = self._step(state, target, look)
            look.solve(state)
            progress(total, total, "fitting the picture")
            gaze = torch.from_numpy(gaze_of(picture, points))[None].float()
            coefficients = Coefficients(
                self.model.name,
                state.identity[None].float(),
                state.expression[None].float(),
                look.texture[None].float(),
                look.lighting.reshape(1, -1).float(),
                angles_of(state.turn)[None].float(),
                state.shift[None].float(),
                gaze,
            )
            error = landmark_errors(self.model, coefficients, target[None])
            return Estimate(coefficients, torch.from_numpy(transform)[None].float(), error)

    def _step(self, state: _State, target: Tensor, look: _Look | None) -> _State:
        """One Gauss-Newton step on landmarks, priors and, with a look, the picture."""
        k, e = len(state.identity), len(state.expression)
        design, rest, weight = self._bone.equations(state, target)
        left = (design * weight[:, None]).T @ design
        right = (design * weight[:, None]).T @ rest
        if look is not None:
            seen, apart = look.equations(state)
            # Robust: colours that are far off belong to hair, glasses or a shadow.
            trust = 1 / (PHOTO_ERROR**2 + apart**2) * (len(self._bone.mean) / max(len(apart), 1))
            left += (seen * trust[:, None]).T @ seen
            right += (seen * trust[:, None]).T @ apart
        prior = torch.cat([torch.zeros(6), torch.ones(k), torch.full((e,), self._bone.expression_weight)]).double()
        place_now = torch.cat([torch.zeros(6).double(), state.identity, state.expression])
        step = torch.linalg.solve(left + torch.diag(prior + 1e-9), right - prior * place_now)
        return state.moved(step, self.model.expression_range)


@dataclass(frozen=True)
class _State:
    """Where the fit stands, in double precision."""

    turn: Tensor
    shift: Tensor
    identity: Tensor
    expression: Tensor

    @classmethod
    def start(cls, model: MorphableModel) -> _State:
        k, e, _ = model.sizes
        return cls(torch.eye(3).double(), torch.zeros(3).double(), torch.zeros(k).double(), torch.zeros(e).double())

    def moved(self, step: Tensor, expressions: tuple[float, float]) -> _State:
        k = len(self.identity)
        # A long step would leave the range in which a turn is linear.
        turn = step[:3] * min(1.0, 0.35 / max(float(step[:3].norm()), 1e-9))
        expression = (self.expression + step[6 + k :]).clamp(*expressions)
        return _State(_turned(turn) @ self.turn, self.shift + step[3:6], self.identity + step[6 : 6 + k], expression)

    def motion(self, points: Tensor, identity: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Placed points ``(P, 3)``, and how they move with turn, shift and coefficients ``(P, 3, 6 + K + E)``.

        Args:
            points: of the shape now, before they are placed.
            identity, expression: modes at these points ``(K, P, 3)``, ``(E, P, 3)``.
        """
        turned = points @ self.turn.T
        x, y, z = turned.unbind(1)
        zero = torch.zeros_like(x)
        # A small turn w moves a point p by w x p.
        spin = torch.stack(
            [torch.stack([zero, -z, y], 1), torch.stack([z, zero, -x], 1), torch.stack([-y, x, zero], 1)], 2
        )
        slide = torch.eye(3).double().expand(len(points), -1, -1)
        modes = (torch.cat([identity, expression]) @ self.turn.T).permute(1, 2, 0)
        return turned + self.shift, torch.cat([spin, slide, modes], 2)


class _Skeleton:
    """The model at its landmarks."""

    def __init__(self, model: MorphableModel) -> None:
        self.mean, self.identity, self.expression = (part.double() for part in model.skeleton)
        self.expression_weight = 1.0 if model.expression_range[0] < 0 else EXPRESSION_SPREAD**-2
        error = torch.full((68,), LANDMARK_ERROR).double()
        error[:17] = _JAW_ERROR
        self.weight = (error**-2).repeat_interleave(2)

    def equations(self, state: _State, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How landmark pixels move with the unknowns ``(136, U)``, what is missing ``(136,)``, and its weight."""
        shape = (
            self.mean
            + torch.tensordot(state.identity, self.identity, 1)
            + torch.tensordot(state.expression, self.expression, 1)
        )
        placed, motion = state.motion(shape, self.identity, self.expression)
        flat, moves = _flatten(placed, motion)
        return moves.reshape(136, -1), (target - flat).reshape(-1), self.weight


class _Look:
    """Light and texture of one face, and how its colours change when the shape moves."""

    def __init__(self, model: MorphableModel, square: Tensor, state: _State) -> None:
        self.model = model
        self.square = square[0].double()
        self._slope = torch.stack(torch.gradient(self.square, dim=(2, 1)), -1)
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
        """Vertices that face the camera and are not hidden, a regular choice of them."""
        vertices = self.model.vertices(state.identity[None].float(), state.expression[None].float())
        placed = place(vertices, angles_of(state.turn)[None].float(), state.shift[None].float())
        normals = self.model.normals(placed)[0]
        flat, depth = project(placed, SIDE)
        faces = rasterise(flat, depth, self.model.triangles, SIDE, SIDE)[0]
        shown = torch.zeros(len(normals), dtype=torch.bool)
        shown[self.model.triangles[faces[faces >= 0].unique()].reshape(-1)] = True
        inside = ((flat[0] > 2) & (flat[0] < SIDE - 2)).all(1)
        chosen = (shown & inside & (normals[:, 2] > _FACING)).nonzero()[:, 0]
        return chosen[:: max(1, len(chosen) // _SEEN)]

    def solve(self, state: _State) -> None:
        """Light and texture for the shape as it stands, by turns: each is linear when the other is known."""
        shape = self._shape(state)
        colour, _ = self._at(project((shape @ state.turn.T + state.shift)[None], SIDE)[0][0])
        harmonics = basis(self._normals(state))
        for _ in range(3):
            albedo = self._albedo()
            for channel in range(3):
                design = harmonics * albedo[:, channel : channel + 1]
                missing = colour[:, channel] - AMBIENT * design[:, 0]
                trust = 1 / (PHOTO_ERROR**2 + (missing - design @ self.lighting[channel]) ** 2)
                # Half a face sees half a sphere: without a prior its light turns wild on the other half.
                left = (design * trust[:, None]).T @ design + _LIGHT_PRIOR * trust.sum() * torch.diag(
                    torch.tensor([0.01] + [1.0] * 8).double()
                )
                self.lighting[channel] = torch.linalg.solve(left, (design * trust[:, None]).T @ missing)
            shade = self._shade(state).clamp(min=0.05)
            self._solve_texture(colour, shade)

    def _solve_texture(self, colour: Tensor, shade: Tensor) -> None:
        if self.model.texture_scale == "log":
            design, missing = (
                self._texture_modes.flatten(1).T,
                (colour.clamp(min=0.02) / shade).log() - self._texture_mean,
            )
        else:
            design, missing = (self._texture_modes * shade).flatten(1).T, colour - self._texture_mean * shade
        rest = missing.flatten()
        trust = 1 / (PHOTO_ERROR**2 + (rest - design @ self.texture) ** 2)
        # A vertex stands for its neighbours, which tell the same: count the picture once.
        trust = trust * 0.25
        left = (design * trust[:, None]).T @ design + torch.eye(len(self.texture)).double()
        self.texture = torch.linalg.solve(left, (design * trust[:, None]).T @ rest)

    def equations(self, state: _State) -> tuple[Tensor, Tensor]:
        """How colours at the visible vertices change with the unknowns ``(3P, U)``, and what is missing ``(3P,)``."""
        placed, motion = state.motion(self._shape(state), self._identity, self._expression)
        flat, moves = _flatten(placed, motion)
        colour, slope = self._at(flat)
        shown = self._albedo() * self._shade(state)
        # The vertex slides over the picture: what it sees changes by slope times motion, what it shows does not.
        return (slope @ moves).flatten(0, 1), (shown - colour).flatten()

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
        return (self.model.normals(vertices)[0, self._chosen].double()) @ state.turn.T

    def _albedo(self) -> Tensor:
        value = self._texture_mean + torch.tensordot(self.texture, self._texture_modes, 1)
        return value.exp() if self.model.texture_scale == "log" else value

    def _at(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Colour ``(P, 3)`` and slope ``(P, 3, 2)`` of the picture at pixels ``(P, 2)``."""
        where = (flat / SIDE * 2 - 1)[None, None]
        maps = torch.cat([self.square, self._slope.permute(3, 0, 1, 2).flatten(0, 1)])[None]
        seen = torch.nn.functional.grid_sample(maps, where, align_corners=False, padding_mode="border")[0, :, 0].T
        return seen[:, :3], seen[:, 3:].unflatten(1, (2, 3)).transpose(1, 2)


def _flatten(placed: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels ``(P, 2)`` of placed points ``(P, 3)``, and how they move ``(P, 2, U)`` with the points' motion ``(P, 3,
    U)``."""
    flat, distance = project(placed[None], SIDE)
    scale = FOCAL * SIDE / distance[0]
    x, y = scale * placed[:, 0], scale * placed[:, 1]
    across = scale[:, None] * motion[:, 0] + (x / distance[0])[:, None] * motion[:, 2]
    down = -scale[:, None] * motion[:, 1] - (y / distance[0])[:, None] * motion[:, 2]
    return flat[0], torch.stack([across, down], 1)


def _turned(step: Tensor) -> Tensor:
    """Rotation ``(3, 3)`` by a rotation vector ``(3,)``."""
    x, y, z = step
    zero = torch.zeros_like(x)
    return torch.matrix_exp(
        torch.stack([torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero])])
    )


def landmark_errors(model: MorphableModel, coefficients: Coefficients, target: Tensor) -> Tensor:
    """Mean distance from landmarks ``(N, 68, 2)`` in the squares, without the jaw, in distances between the eyes:
    ``(N,)``."""
    apart = (project_landmarks(model, coefficients).double() - target)[:, 17:].norm(dim=2).mean(1)
    eyes = target[:, 36:42].mean(1) - target[:, 42:48].mean(1)
    return (apart / eyes.norm(dim=1)).float()


def project_landmarks(model: MorphableModel, coefficients: Coefficients) -> Tensor:
    """The 68 points of N faces in pixels of their squares, ``(N, 68, 2)``."""
    mean, identity, expression = model.skeleton
    shape = (
        mean
        + torch.einsum("nk,kpd->npd", coefficients.identity, identity)
        + torch.einsum("ne,epd->npd", coefficients.expression, expression)
    )
    return project(place(shape, coefficients.angles, coefficients.translation), SIDE)[0]
