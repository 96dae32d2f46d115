"""Step I (section 3.2): draw the protected head X_p in an aligned square, with HeadNeRF or with a mesh model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import CannotReplace
from ...core.progress import Progress, silent
from ...faces.align import chained, invert
from ...faces.parse import FaceParser
from ...geometry.camera import place, project
from ...geometry.coefficients import Coefficients
from ...geometry.fitting import SIDE, Estimate
from ...geometry.lighting import shading
from ...geometry.morphable import MorphableModel
from ...geometry.rasterizer import rasterize
from ...geometry.renderer import interpolate
from ...training.perceptual import Features
from .cameras import NerfCamera, camera_of
from .fitting import ITERATIONS, HeadFit, fit_head
from .headnerf import HeadCodes, HeadNeRF
from .hybrid import HeadMasks, head_masks
from .protect import protected_codes

_SOLID = 0.5
"""Rays that the head stops by at least this much show its face."""


@dataclass(frozen=True)
class SquareFace:
    """A face in an aligned square.

    Attributes:
        square: X ``(1, 3, S, S)``, RGB in [0, 1].
        points: 68 landmarks in pixels of the square.
        masks: of the face and the head in X.
        estimate: of a mesh model, in an image of its own.
        from_estimate: from that image to the square, a similarity ``(2, 3)``.
        transform: from the photo to the square ``(2, 3)``.
    """

    square: Tensor
    points: np.ndarray
    masks: HeadMasks
    estimate: Estimate
    from_estimate: np.ndarray
    transform: np.ndarray

    @property
    def size(self) -> int:
        """Side of the square in pixels."""
        return int(self.square.shape[-1])

    @property
    def from_fitting(self) -> np.ndarray:
        """From the fitting's square of 224 px to this square ``(2, 3)``."""
        back = invert(self.estimate.transforms[0].double().numpy())
        return chained(back, self.from_estimate)


@dataclass(frozen=True)
class Drawn:
    """X_p ``(1, 3, S, S)``, white around the head, and 1 where its face is ``(1, 1, S, S)``."""

    image: Tensor
    face: Tensor


def draw_mesh(model: MorphableModel, coefficients: Coefficients, transform: np.ndarray, size: int) -> Drawn:
    """Render one face in a square.

    Args:
        transform: from the fitting's square of 224 px ``(2, 3)``.
        size: side of the square in pixels.
    """
    placed = placed_vertices(model, coefficients)
    image, inside = drawn_values(model, placed, lit_colors(model, coefficients, placed), transform, size)
    return Drawn(image.clamp(0, 1) * inside + (1 - inside), inside)


def placed_vertices(model: MorphableModel, coefficients: Coefficients) -> Tensor:
    """Vertices ``(N, V, 3)`` in world coordinates."""
    c = coefficients
    return place(model.vertices(c.identity, c.expression), c.angles, c.translation)


def lit_colors(model: MorphableModel, coefficients: Coefficients, placed: Tensor) -> Tensor:
    """Rendered colors of placed vertices, ``(N, V, 3)``."""
    return model.colors(coefficients.texture) * shading(model.normals(placed), coefficients.lighting)


def drawn_values(
    model: MorphableModel, placed: Tensor, values: Tensor, transform: np.ndarray, size: int
) -> tuple[Tensor, Tensor]:
    """Draw values ``(1, V, C)`` of placed vertices in a square: ``(1, C, S, S)``, and the mask ``(1, 1, S, S)``.

    Args:
        transform: from the fitting's square of 224 px ``(2, 3)``.
        size: side of the square in pixels.
    """
    flat, depth = project(placed, SIDE)
    matrix = torch.from_numpy(transform).float()
    flat = flat @ matrix[:, :2].T + matrix[:, 2]
    faces = rasterize(flat, depth, model.triangles, size, size)
    return interpolate(values, flat, depth, model.triangles, faces), (faces >= 0)[:, None].float()


class HeadPainter:
    """Draws with HeadNeRF, which is fitted to each face once.

    Args:
        features: for the fitting's perceptual term; none where omitted.
        parser: finds the face in the drawn head; its landmarks are those of the photo.
    """

    def __init__(
        self,
        network: HeadNeRF,
        iterations: int = ITERATIONS,
        features: Features | None = None,
        parser: FaceParser | None = None,
    ) -> None:
        self.network, self._iterations, self._features, self._parser = network, iterations, features, parser
        self.size = network.config.image

    def fit(self, face: SquareFace, progress: Progress = silent) -> HeadFit:
        """Fit the network to a face, from the pose of the mesh model and the average head."""
        c = face.estimate.coefficients
        camera = camera_of(c.angles, c.translation, face.from_fitting, face.size)
        head, start = face.masks.head, HeadCodes.average()
        if not bool(head.any()):
            raise CannotReplace("the face parser finds no head in it")
        return fit_head(
            self.network, face.square, head, start, camera, self._features, self._iterations, progress=progress
        )

    def __call__(self, face: SquareFace, fit: HeadFit, strength: float, seed: int) -> Drawn:
        """Draw a fitted face with the noise of ``seed``."""
        return self.draw(face, protected_codes(fit.codes, strength, seed), fit.camera)

    @torch.no_grad()
    def draw(self, face: SquareFace, codes: HeadCodes, camera: NerfCamera) -> Drawn:
        """Draw codes in the place of a face."""
        device = self.network.neural_render.bg_featmap.device
        drawn = self.network(_moved(codes, device), _camera_on(camera, device))
        image = drawn.image.cpu()
        size = image.shape[-1]
        solid = functional.interpolate(drawn.coverage.cpu(), (size, size), mode="bilinear", align_corners=False)
        inside = head_masks(image, face.points, self._parser).face
        return Drawn(image, inside * (solid > _SOLID).float())


def _moved(codes: HeadCodes, device: torch.device) -> HeadCodes:
    return HeadCodes(*(part.to(device) for part in codes.parts))


def _camera_on(camera: NerfCamera, device: torch.device) -> NerfCamera:
    parts = (camera.rotation, camera.center, camera.focal, camera.principal)
    return NerfCamera(*(part.to(device) for part in parts))
