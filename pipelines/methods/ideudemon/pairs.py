"""Training data of the restorer: faces of a folder, and for each the drawing of the mesh model in its place."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import apply, chained, crop, ffhq_transform, invert
from ...geometry.builtin import built_in_morphable_model
from ...geometry.fitting import Fitter
from ...imaging.formats import find_images
from ...training.portraits import read_pixels, read_portrait
from ...training.shards import Item, Shards, build
from .drawing import draw_mesh
from .hybrid import fill_gaps, head_masks, hybrid_image
from .protect import protected_coefficients

SHARD = 128
"""Faces of one file."""
MIN_FACES = 4
_SHRINK = (0, 5)
"""By how many pixels the drawn face is too small, so that gaps occur, at 256 px."""
_COLOR, _NOISE = 0.12, 0.02
"""Largest disturbance of the colors of the drawing, and its noise."""


class Faces:
    """Prepared faces. Images are read from disk, row by row."""

    def __init__(self, shards: Shards) -> None:
        if len(shards) < MIN_FACES:
            raise InputError(f"{len(shards)} faces were found in the images; give at least {MIN_FACES}")
        self._shards = shards
        self.points = shards.whole("points")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def size(self) -> int:
        """Side of the squares in pixels."""
        return int(self._shards.rows("square", [0]).shape[-1])

    def rows(self, chosen: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """X and X_p ``(N, 3, S, S)`` in [0, 1], the masks of their faces ``(N, 1, S, S)``, and the landmarks of X
        ``(N, 68, 2)``."""
        square, drawn = (self._shards.rows(name, chosen).float() / 255 for name in ("square", "drawn"))
        masks = self._shards.rows("masks", chosen).float()
        return square, drawn, masks[:, :1], masks[:, 1:], self.points[chosen]


def build_faces(
    images: Path, folder: Path, size: int, scale: float, workers: int, progress: Progress = silent
) -> Faces:
    """Compute the faces of a folder, or read them where they were computed before.

    Args:
        size: side of the squares in pixels.
        scale: strength of the identity protection of the drawings; 0 draws each person's own geometry.

    Raises:
        InputError: there are no usable faces, or ``folder`` holds other data.
    """
    paths = find_images(images)
    if not paths:
        raise InputError(f"{images.name} contains no images; name a folder of faces")
    jobs = [(path, size, scale, number) for number, path in enumerate(paths)]
    build(read_face, jobs, paths, folder, {"size": size, "scale": scale}, SHARD, workers, progress, "preparing faces")
    return Faces(Shards(folder))


def read_face(path: Path, size: int, scale: float, seed: int) -> list[Item]:
    """The face of one file; none, with a warning in the log, where there is none.

    Arrays: ``square`` and ``drawn (3, S, S)``, ``masks (2, S, S)`` of 0 and 1, 8-bit; ``points (68, 2)``.
    """
    portrait = read_portrait(path)
    if portrait is None:
        return []
    image = read_pixels(path)
    fitter = _fitter()
    estimate = fitter(image, portrait.points)
    transform = ffhq_transform(portrait.points, size)
    from_fitting = chained(invert(estimate.transforms[0].double().numpy()), transform)
    coefficients = estimate.coefficients
    if scale > 0:
        coefficients = protected_coefficients(coefficients, scale, seed)
    drawn = draw_mesh(fitter.model, coefficients, from_fitting, size)
    square, points = crop(image, transform, size).clamp(0, 1), apply(transform, portrait.points)
    masks = torch.cat([head_masks(square, points, None).face, drawn.face], 1)[0]
    return [
        {
            "square": _bytes(square[0]),
            "drawn": _bytes(drawn.image[0]),
            "masks": masks.to(torch.uint8).numpy(),
            "points": points.astype(np.float32),
        }
    ]


def disturbed_hybrid(
    square: Tensor, drawn: Tensor, face: Tensor, drawn_face: Tensor, generator: torch.Generator
) -> Tensor:
    """X_l ``(N, 3, S, S)`` as it may be at inference: with gaps, and with other colors, noise and blur in the face."""
    count, size = len(square), square.shape[-1]
    unit = size / 256

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    shrink = (_SHRINK[0] + (_SHRINK[1] - _SHRINK[0]) * random() * unit).round().int().tolist()
    small = torch.stack([_eroded(mask, radius) for mask, radius in zip(drawn_face, shrink, strict=True)])
    gain = 1 + _COLOR * (2 * random(3, 1, 1) - 1) + _COLOR * (2 * random(1, 1, 1) - 1)
    blurred = functional.avg_pool2d(drawn, 3, 1, 1, count_include_pad=False)
    changed = torch.lerp(drawn, blurred, random(1, 1, 1)) * gain
    changed = changed + _NOISE * random(1, 1, 1) * torch.randn(drawn.shape, generator=generator)
    hybrid = hybrid_image(square, face, changed.clamp(0, 1), small)
    return fill_gaps(hybrid, face * (1 - small))


def _eroded(mask: Tensor, radius: int) -> Tensor:
    """A mask ``(1, S, S)`` without the pixels within ``radius`` of its border."""
    return mask if radius == 0 else 1 - functional.max_pool2d(1 - mask, 2 * radius + 1, 1, radius)


def _bytes(image: Tensor) -> np.ndarray:
    return (image * 255).round().to(torch.uint8).numpy()


@lru_cache(maxsize=1)
def _fitter() -> Fitter:
    """One fitter per process."""
    return Fitter(built_in_morphable_model())
