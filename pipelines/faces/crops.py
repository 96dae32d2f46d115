"""Cut faces out of a batch of images as aligned squares, and paste changed squares back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.progress import Progress, silent
from .align import apply, arcface_transform, box_transform, crop, ffhq_transform
from .face import Face, Faces
from .masks import ellipse_mask, hull_mask
from .paste import match_color, paste

ALIGNMENTS = ("ffhq", "arcface", "box")
FEATHER = 1 / 64
"""Width of a mask's soft edge as a share of the square's side."""


@dataclass(frozen=True)
class Place:
    """Where a square belongs.

    Attributes:
        face: that it shows.
        transform: affine transform from the image to the square, ``(2, 3)``, in pixels.
        size: side of the square in pixels.
    """

    face: Face
    transform: np.ndarray
    size: int


@dataclass(frozen=True)
class Crops:
    """Aligned squares of faces.

    Attributes:
        images: ``(N, 3, S, S)``.
        masks: ``(N, 1, S, S)``, 1 on the face, with a soft edge.
        places: of each square.
    """

    images: Tensor
    masks: Tensor
    places: tuple[Place, ...]


def crop_faces(images: Tensor, faces: Faces, size: int, alignment: str = "ffhq", progress: Progress = silent) -> Crops:
    """Cut faces out of a batch ``(B, 3, H, W)``.

    Args:
        alignment: one of ``ALIGNMENTS``; a face without landmarks is always cut by its box.

    Raises:
        InputError: there are no faces, or one lies in an image that is not there.
    """
    if not faces:
        raise InputError("there is no face to crop; check Detect Faces with Preview Faces")
    faces.check(images)
    squares, masks, places = [], [], []
    for done, face in enumerate(faces):
        progress(done, len(faces), "cropping")
        transform = _transform(face, size, alignment)
        squares.append(crop(_image_of(images, face), transform, size))
        masks.append(face_mask(face, transform, size))
        places.append(Place(face, transform, size))
    return Crops(torch.cat(squares), torch.cat(masks), tuple(places))


def paste_faces(
    images: Tensor,
    squares: Tensor,
    places: Sequence[Place],
    masks: Tensor | None = None,
    match_colors: bool = False,
    progress: Progress = silent,
) -> Tensor:
    """Paste squares back into their images, smallest face first, so that overlapping faces stay whole.

    Args:
        images: ``(B, 3, H, W)`` that the squares were cut from.
        squares: ``(N, 3, S, S)`` in the order of ``places``; they may have been resized.
        masks: what to paste of each, ``(N, 1, S, S)``; the face with a soft edge when omitted.
        match_colors: give each square the mean color and contrast of the face that it replaces.

    Returns:
        New images ``(B, 3, H, W)``.

    Raises:
        InputError: squares were added, dropped or are not square, or a face lies in an image that is not there.
    """
    if len(squares) != len(places):
        raise InputError(
            f"{len(squares)} squares do not fit the {len(places)} faces that were cropped; keep the batch whole"
        )
    height, size = squares.shape[-2:]
    if height != size:
        raise InputError(f"the crops are {size} x {height} pixels; resize them to squares before pasting")
    result = images.clone()
    order = sorted(range(len(places)), key=lambda i: places[i].face.area)
    for done, i in enumerate(order):
        progress(done, len(order), "pasting")
        face, transform = places[i].face, places[i].transform * (size / places[i].size)
        here, square = _image_of(result, face), squares[i : i + 1]
        if masks is not None:
            mask = masks[i : i + 1]
        elif face.landmarks:
            mask = face_mask(face, transform, size)
        else:
            mask = torch.ones(1, 1, size, size)
        if match_colors:
            square = match_color(square, crop(here, transform, size), mask)
        result[face.image : face.image + 1] = paste(here, square, transform, mask)
    return result


def _transform(face: Face, size: int, alignment: str) -> np.ndarray:
    if alignment == "box" or not face.landmarks:
        return box_transform(face.box, size)
    return (arcface_transform if alignment == "arcface" else ffhq_transform)(face.points, size)


def face_mask(face: Face, transform: np.ndarray, size: int) -> Tensor:
    """The face in its square with a soft edge ``(1, 1, S, S)``: what is pasted back where nothing else is asked for."""
    if face.landmarks:
        return hull_mask(apply(transform, face.points), size, size, feather=size * FEATHER)
    x1, y1, x2, y2 = face.box
    corners = apply(transform, np.array([[x1, y1], [x2, y2]]))
    return ellipse_mask((*corners[0], *corners[1]), size, size, feather=size * FEATHER)


def _image_of(images: Tensor, face: Face) -> Tensor:
    if face.image >= len(images):
        raise InputError(
            f"a face lies in image {face.image}, but the batch has {len(images)}; connect the images it was found in"
        )
    return images[face.image : face.image + 1]
