"""Identity protection on a mesh model, which needs no download: fit, perturb, and draw again.

Geometry and albedo carry the identity of a morphable model, as z_id does in HeadNeRF, so both get the noise. The photo
is warped from the old surface to the new one, so that hair, neck and background follow the new outline without gaps.
Then there are two ways:

redraw  the new face is drawn over it and restored: nothing of the photo's face is left
warp    the photo's face is multiplied by the ratio of the new to the old rendered color: skin grain, teeth and all
        else that the model does not know stays the photo's
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...faces.align import apply, chained, crop, ffhq_transform, invert
from ...faces.face import Face, inter_ocular
from ...faces.parse import FaceParser
from ...faces.paste import paste
from ...faces.regions import region_masks
from ...geometry.coefficients import Coefficients
from ...geometry.fitting import SIDE, Estimate, Fitter, project_landmarks
from ...geometry.morphable import MorphableModel
from ...geometry.reshape import reshape
from ...imaging.resample import blur
from ...imaging.upscale import RESTORER_SIDE, Restorer
from .drawing import draw_mesh, drawn_values, lit_colors, placed_vertices

_MARGIN = 1.8
"""Side of the working square in sides of the fitting's square: the warp fades out around the face."""
_MAX_SIZE = 2048
"""Largest working square in pixels. The warp of larger faces is computed at a lower resolution, to limit memory."""
_MIN_COLOR, _GAIN = 0.02, (0.5, 1.8)
"""Limits of rendered colors, and of their ratio."""
_SEAM = 0.06
"""Width of the seam around a drawn face, in inter-ocular distances."""
_EDGE, _SMOOTH = 0.35, 0.04
"""Width of the edge over which the colors change, and blur of their ratio, in inter-ocular distances."""


@dataclass(frozen=True)
class MeshFace:
    """A fitted face.

    Attributes:
        transform: from the image to the working square ``(2, 3)``.
        square: the working square ``(1, 3, S, S)`` in [0, 1].
        estimate: of the face in the working square.
        points: 68 landmarks in pixels of the working square.
    """

    transform: np.ndarray
    square: Tensor
    estimate: Estimate
    points: np.ndarray


def fit_mesh(fitter: Fitter, image: Tensor, face: Face) -> MeshFace:
    """Fit the model to a face of ``image`` ``(1, 3, H, W)``."""
    estimate = fitter(image, face.points)
    inner = estimate.transforms[0].double().numpy()
    # One pixel of the working square is one pixel of the image, unless the face is very large.
    scale = min(1.0 / float(inner[0, 0]), _MAX_SIZE / (SIDE * _MARGIN))
    size = round(SIDE * _MARGIN * scale)
    shift = (size - SIDE * scale) / 2
    to_square = np.array([[scale, 0.0, shift], [0.0, scale, shift]])
    transform = chained(inner, to_square)
    moved = replace(estimate, transforms=torch.from_numpy(invert(to_square))[None].float())
    return MeshFace(transform, crop(image, transform, size).clamp(0, 1), moved, apply(transform, face.points))


def redraw_face(
    model: MorphableModel, face: MeshFace, edited: Coefficients, restorer: Restorer, parser: FaceParser | None = None
) -> tuple[Tensor, Tensor]:
    """Draw a fitted face with other coefficients, and restore it.

    Args:
        restorer: makes the aligned square of a drawn face photo-real.
        parser: keeps hair and glasses in front of the face; without one, they are drawn over.

    Returns:
        The new square ``(1, 3, S, S)`` in [0, 1], and the mask of what changed, ``(1, 1, S, S)``.
    """
    warped, moved = reshape(model, face.square, face.estimate, edited)
    size, points = face.square.shape[-1], new_landmarks(model, face, edited)
    drawn = draw_mesh(model, edited, to_working_square(face), size)
    inside = drawn.face
    if parser is not None:
        kept = region_masks(warped, points, ("hair", "glasses"), parser)
        inside = inside * (1 - torch.maximum(kept["hair"], kept["glasses"]).clamp(0, 1))
    soft = _soft(inside, _SEAM * inter_ocular(face.points))
    hybrid = torch.lerp(warped, drawn.image, soft)
    transform = ffhq_transform(points, RESTORER_SIDE)
    restored = restorer(crop(hybrid, transform, RESTORER_SIDE).clamp(0, 1))
    transform = ffhq_transform(points, restored.shape[-1])
    # The restorer also finishes the seam, so its result reaches a little farther than the drawing.
    wide = blur(inside, _SEAM * inter_ocular(face.points)).clamp(0, 1) ** 0.5
    result = torch.lerp(hybrid, paste(hybrid, restored, transform, torch.ones_like(restored[:, :1])), wide)
    return result.clamp(0, 1), torch.maximum(moved, (wide > 0).float())


def _soft(mask: Tensor, edge: float) -> Tensor:
    """A mask with a soft edge inside of its border."""
    return ((blur(mask, max(0.5, edge)) - 0.5) * 2).clamp(0, 1) * mask


def warp_face(model: MorphableModel, face: MeshFace, edited: Coefficients) -> tuple[Tensor, Tensor]:
    """Warp and recolor a fitted face to other coefficients.

    Returns:
        The new square ``(1, 3, S, S)`` in [0, 1], and the mask of what changed, ``(1, 1, S, S)``.
    """
    square, moved = reshape(model, face.square, face.estimate, edited)
    gain, inside = color_ratio(model, face, edited)
    result = (square * (1 + inside * (gain - 1))).clamp(0, 1)
    return result, torch.maximum(moved, (inside > 0).float())


def color_ratio(model: MorphableModel, face: MeshFace, edited: Coefficients) -> tuple[Tensor, Tensor]:
    """The ratio of the new to the old rendered color at each pixel of the new face.

    Returns:
        The ratio ``(1, 3, S, S)``, and where it applies ``(1, 1, S, S)`` in [0, 1], fading towards the edge.
    """
    placed = [placed_vertices(model, c) for c in (face.estimate.coefficients, edited)]
    old, new = (
        lit_colors(model, c, vertices).clamp(min=_MIN_COLOR)
        for c, vertices in zip((face.estimate.coefficients, edited), placed, strict=True)
    )
    ratio, inside = drawn_values(
        model, placed[1], (new / old).clamp(*_GAIN), to_working_square(face), face.square.shape[-1]
    )
    iod = inter_ocular(face.points)
    smooth, edge = max(0.5, _SMOOTH * iod), max(1.0, _EDGE * iod)
    # Blurred with its mask, so that the background's zeros do not darken the edge.
    sums = blur(torch.cat([ratio, inside], 1), smooth)
    gain = sums[:, :3] / sums[:, 3:].clamp(min=1e-3)
    return gain, _soft(inside, edge / 2)


def new_landmarks(model: MorphableModel, face: MeshFace, edited: Coefficients) -> np.ndarray:
    """The landmarks after the change in pixels of the working square: moved as the model's landmarks move."""
    old = face.estimate.coefficients
    moved = (project_landmarks(model, edited) - project_landmarks(model, old))[0].double().numpy()
    return face.points + moved / float(face.estimate.transforms[0, 0, 0])


def to_working_square(face: MeshFace) -> np.ndarray:
    """From the fitting's square of 224 px to the working square ``(2, 3)``."""
    return invert(face.estimate.transforms[0].double().numpy())
