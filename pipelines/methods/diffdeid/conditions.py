"""What DiffDeID's denoiser is told about a face (section 3.1): I_m without the identity, I_3d, z_id and p.

All images are the aligned square of Deep3DFaceRecon, scaled to the network's size, so that the rendered face lies where
the face in the photo is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...core.progress import Progress, silent
from ...faces.align import apply, crop
from ...faces.face import Faces, inter_ocular
from ...faces.masks import box_mask, hull_mask, polygon_mask
from ...faces.parse import FRONT_CLASSES, IDENTITY_CLASSES, FaceParser
from ...faces.redact import GROW as REDACTION_GROW
from ...geometry.alignment import SIDE
from ...geometry.coefficients import DIFFDEID, FIELDS, Coefficients, Layout, Standardizer
from ...geometry.fitting import Fitter
from ...geometry.morphable import MorphableModel
from ...geometry.renderer import render
from ...imaging.resample import resize
from .network import Conditions

GROW = 0.12
"""The identity mask reaches this far beyond the landmarks' outline, in inter-ocular distances."""
MOUTH_DILATION = 5 / 256
"""Dilation of the mouth, which stays visible, as a share of the square's side."""
MOUTH_MARGIN = MOUTH_DILATION * 256 / 72
"""The same in inter-ocular distances, which are 72 px in a square of 256 px."""
FEATHER = 0.07
"""The pasted face fades over this, in inter-ocular distances."""
_OUTER_LIPS = slice(48, 60)


@dataclass(frozen=True)
class FaceView:
    """One analyzed face.

    Attributes:
        transform: from the image to the aligned square of the network's size, ``(2, 3)``.
        square: ``(1, 3, S, S)``, RGB in [0, 1].
        mask: 1 where the identity is, ``(1, 1, S, S)``.
        mouth: 1 where the mouth is, which stays visible, ``(1, 1, S, S)``.
        front: 1 where a parser found hair or cloth in front of the face, ``(1, 1, S, S)``.
        coefficients: one row.
    """

    transform: np.ndarray
    square: Tensor
    mask: Tensor
    mouth: Tensor
    front: Tensor
    coefficients: Coefficients

    def resized(self, size: int) -> FaceView:
        """The same in a square of another size."""
        scale = size / self.square.shape[-1]
        names = ("square", "mask", "mouth", "front")
        square, mask, mouth, front = (resize(getattr(self, name), size, size) for name in names)
        moved = self.transform * scale
        return replace(self, transform=moved, square=square, mask=mask, mouth=mouth, front=front)

    def wider(self, rendered: Tensor) -> FaceView:
        """The same with the identity mask extended to where a new face was rendered, ``(1, 1, S, S)``."""
        return replace(self, mask=torch.maximum(self.mask, rendered * (1 - self.front)))


class FaceReader:
    """Analyzes faces with a morphable model.

    Args:
        model: of the coefficients.
        size: of the network's images.
        parser: finds hair and cloth in front of a face, which then stay visible; landmarks alone when omitted.
    """

    def __init__(self, model: MorphableModel, size: int, parser: FaceParser | None = None) -> None:
        self.model, self.size, self._parser = model, size, parser
        self._fitter = Fitter(model)

    def __call__(self, image: Tensor, points: np.ndarray, progress: Progress = silent) -> FaceView:
        """Analyze the face of ``image`` ``(1, 3, H, W)`` with 68 landmarks ``(68, 2)`` in pixels."""
        estimate = self._fitter(image, points, progress)
        transform = estimate.transforms[0].double().numpy() * (self.size / SIDE)
        square = crop(image, transform, self.size).clamp(0, 1)
        _, mesh = render_face(self.model, estimate.coefficients, self.size)
        inside = apply(transform, points)
        mask = torch.maximum(hull_mask(inside, self.size, self.size, grow=GROW), mesh)
        front = torch.zeros_like(mask)
        if self._parser is not None:
            identity, front = (
                crop(self._parser.share(image, points, classes), transform, self.size)
                for classes in (IDENTITY_CLASSES, FRONT_CLASSES)
            )
            mask = torch.maximum(mask * (1 - front), identity)
        return FaceView(transform, square, mask, mouth_mask(inside, self.size), front, estimate.coefficients)


def render_face(model: MorphableModel, coefficients: Coefficients, size: int) -> tuple[Tensor, Tensor]:
    """Render I_3d ``(N, 3, S, S)`` in [-1, 1], 0 beside the face, and the face's mask ``(N, 1, S, S)``."""
    rendering = render(model, coefficients, size)
    return (rendering.image.clamp(0, 1) * 2 - 1) * rendering.mask, rendering.mask


def mouth_mask(points: np.ndarray, size: int) -> Tensor:
    """The outer lips and a margin, ``(1, 1, size, size)``, from 68 landmarks in pixels of the square."""
    radius = max(1, round(MOUTH_DILATION * size))
    lips = polygon_mask(points[_OUTER_LIPS], size, size)
    return torch.nn.functional.max_pool2d(lips, 2 * radius + 1, 1, radius)


def identity_masks(images: Tensor, faces: Faces, keep_mouth: bool = True) -> Tensor:
    """Masks ``(B, 1, H, W)`` of what identifies people in ``images`` ``(B, 3, H, W)``, by landmarks.

    A face without landmarks is masked by its box.
    """
    count, _, height, width = images.shape
    masks = torch.zeros(count, 1, height, width)
    for face in faces:
        if not face.landmarks:
            # Detectors box the inner face.
            mask = box_mask(face.box, height, width, grow=REDACTION_GROW)
        else:
            mask = hull_mask(face.points, height, width, grow=GROW)
            if keep_mouth:
                radius = max(1, round(MOUTH_MARGIN * inter_ocular(face.points)))
                lips = polygon_mask(face.points[_OUTER_LIPS], height, width)
                mask = mask * (1 - torch.nn.functional.max_pool2d(lips, 2 * radius + 1, 1, radius))
        masks[face.image] = torch.maximum(masks[face.image], mask[0])
    return masks


def paste_mask(view: FaceView, drawn: Tensor, points: np.ndarray) -> Tensor:
    """What to paste of a new square ``(1, 1, S, S)``: the face with a soft edge, and all that was drawn.

    Args:
        drawn: of ``conditions_of``.
        points: 68 landmarks in pixels of the image.
    """
    inside, size = apply(view.transform, points), view.square.shape[-1]
    soft = hull_mask(inside, size, size, grow=GROW, feather=FEATHER * inter_ocular(inside))
    return torch.maximum(soft * (1 - view.front), drawn)


def masked_image(square: Tensor, mask: Tensor, mouth: Tensor) -> Tensor:
    """I_m and its mask ``(B, 4, S, S)``: the identity is removed, the mouth stays.

    Args:
        square: ``(B, 3, S, S)`` in [0, 1].
        mask: 1 where the identity is, ``(B, 1, S, S)``.
        mouth: 1 where the mouth is, ``(B, 1, S, S)``.
    """
    hidden = mask * (1 - mouth)
    return torch.cat([(square * 2 - 1) * (1 - hidden), hidden], 1)


def reference_image(square: Tensor) -> Tensor:
    """The texture reference of a video ``(B, 4, S, S)``: a whole square ``(B, 3, S, S)`` in [0, 1], nothing masked."""
    return torch.cat([square * 2 - 1, torch.zeros_like(square[:, :1])], 1)


def scaled_identity(vectors: np.ndarray) -> Tensor:
    """z_id ``(N, D)``: unit vectors times sqrt(D), so that each number has a variance of about 1."""
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return torch.from_numpy(unit * np.sqrt(vectors.shape[-1])).float()


def layout_of(model: MorphableModel) -> Layout:
    """The order of p (section 3.1) with the sizes of ``model``; 261 numbers for BFM."""
    sizes = dict(zip(FIELDS, model.sizes, strict=False))
    return tuple((name, sizes.get(name, size)) for name, size in DIFFDEID)


def conditions_of(
    model: MorphableModel, standardizer: Standardizer, view: FaceView, coefficients: Coefficients, identity: np.ndarray
) -> tuple[Conditions, Tensor]:
    """The denoiser's conditions for a new person in a photo.

    Args:
        coefficients: p' of one face, with the photo's expression, light, pose and gaze.
        identity: z'_id ``(D,)``.

    Returns:
        The conditions, and the mask of what the network draws, ``(1, 1, S, S)``.
    """
    face, mesh = render_face(model, coefficients, view.square.shape[-1])
    wider = view.wider(mesh)
    conditions = Conditions(
        face,
        masked_image(wider.square, wider.mask, wider.mouth),
        scaled_identity(identity[None]),
        standardizer.standardize(coefficients)[:, None],
    )
    return conditions, wider.mask
