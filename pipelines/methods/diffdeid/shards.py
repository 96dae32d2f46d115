"""Training data of DiffDeID, computed once: aligned squares, masks, rendered faces, coefficients and z_id.

Each shard is a safetensors file of up to 512 faces; images are 8-bit, so 30,000 faces of 256 px take 16 GB. A folder
may have the layout of CelebAMask-HQ: then its masks are used instead of landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import crop
from ...geometry.builtin import NAME, built_in_morphable_model
from ...geometry.coefficients import Coefficients, Standardizer
from ...imaging.formats import find_images
from ...recognition.base import unit
from ...training.portraits import read_pixels, read_portrait
from ...training.shards import Item, Shards, build
from .conditions import FaceReader, layout_of, masked_image, render_face, scaled_identity
from .network import Conditions

SHARD = 512
"""Faces of one file."""
HELD_OUT = 20
"""Each twentieth face is not trained on; the sheets show these."""
MIN_FACES = 2
"""Fewer have no standard deviation."""
CELEBA_IMAGES, CELEBA_MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
HIDDEN_CLASSES = ("skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "nose")
"""Classes of CelebAMask-HQ that show the identity. Mouth and lips stay visible, as do hair, neck and background."""
MAX_GROWTH = 1 / 16
"""The identity mask is grown at random by up to this share of the side, because it also is larger where a new face is
larger than the original."""
_IMAGES = ("square", "masks", "face")


def build_shards(images: Path, folder: Path, size: int, workers: int, progress: Progress = silent) -> Faces:
    """Compute the training data of a folder of portraits, or read it where it was computed before.

    Raises:
        InputError: the folder holds no usable faces, or ``folder`` holds data of other images or another size.
    """
    root = images / CELEBA_IMAGES if (images / CELEBA_IMAGES).is_dir() else images
    paths = find_images(root)
    if not paths:
        raise InputError(f"{images.name} contains no images; name a folder of portraits, one person each")
    masks = images / CELEBA_MASKS
    jobs = [(path, masks if masks.is_dir() else None, size) for path in paths]
    build(read_sample, jobs, paths, folder, {"size": size}, SHARD, workers, progress, "preparing faces")
    return Faces(Shards(folder))


def read_sample(path: Path, masks: Path | None, size: int) -> list[Item]:
    """The face of one file; none, with a warning in the log, where there is none.

    Arrays: ``square (3, S, S)``, ``masks (2, S, S)``: identity and mouth, ``face (3, S, S)``, all 8-bit;
    ``coefficients (P,)``; ``identity (D,)``, a unit vector.
    """
    portrait = read_portrait(path)
    if portrait is None:
        return []
    image = read_pixels(path)
    reader = _reader(size)
    view = reader(image, portrait.points)
    hidden, mouth = view.mask, view.mouth
    parsed = None if masks is None else parsed_mask(masks, path.stem)
    if parsed is not None:
        # The masks are half as large as the images.
        scale = np.array([parsed.shape[-1] / image.shape[-1], parsed.shape[-2] / image.shape[-2], 1.0])
        hidden = crop(parsed, view.transform / scale, size)
    face, _ = render_face(reader.model, view.coefficients, size)
    return [
        {
            "square": _bytes(view.square),
            "masks": _bytes(torch.cat([hidden, mouth], 1)),
            "face": _bytes((face + 1) / 2),
            "coefficients": view.coefficients.to_vector(layout_of(reader.model))[0].numpy(),
            "identity": unit(portrait.embedding).astype(np.float32),
        }
    ]


def parsed_mask(folder: Path, stem: str) -> Tensor | None:
    """The identity mask ``(1, 1, H, W)`` of an image of CelebAMask-HQ, from its files of one class each; None where
    they are missing."""
    number = int(stem) if stem.isdigit() else -1
    parts = [folder / str(number // 2000) / f"{number:05}_{name}.png" for name in HIDDEN_CLASSES]
    found = [read_pixels(part)[:, :1] for part in parts if part.is_file()]
    return torch.stack(found).amax(0) if found else None


class Faces:
    """The training data; a ``TrainingSet``. Images are read from disk, row by row.

    Attributes:
        standardizer: of the coefficients over all faces.
        space: recognizer whose embeddings the shards hold.
    """

    space = "dlib"
    window = 1

    def __init__(self, shards: Shards) -> None:
        if len(shards) < MIN_FACES:
            raise InputError(f"{len(shards)} faces were found in the images; give at least {MIN_FACES}")
        self._shards = shards
        layout = layout_of(built_in_morphable_model())
        coefficients = Coefficients.from_vector(shards.whole("coefficients"), layout, NAME)
        self._coefficients = coefficients
        self.standardizer = Standardizer.of(coefficients, layout)
        self._standard = self.standardizer.standardize(coefficients)
        self._units = unit(shards.whole("identity").double().numpy())
        self._identities = scaled_identity(self._units)

    def __len__(self) -> int:
        return len(self._identities)

    @property
    def size(self) -> int:
        return self._shards.rows("square", [0]).shape[-1]

    @property
    def identity_size(self) -> int:
        return self._identities.shape[1]

    @property
    def coefficient_size(self) -> int:
        return self._standard.shape[1]

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set of faces from another."""
        return self._shards.whole("coefficients").numpy()

    def draw(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Conditions]:
        """Random faces that are not held out, ``(count, 3, S, S)`` in [-1, 1], with masks grown at random."""
        rows = trained_rows(len(self))
        chosen = rows[torch.randint(len(rows), (count,), generator=generator)]
        growth = torch.rand(count, generator=generator)
        images, conditions = self.batch(chosen.tolist(), growth.tolist())
        kept = (torch.rand(count, 1, generator=generator) >= drop).float()
        return images, replace(conditions, identity=conditions.identity * kept)

    def identities(self, rows: Sequence[int]) -> np.ndarray:
        """Unit vectors ``(B, D)``."""
        return self._units[list(rows)]

    def coefficients(self, rows: Sequence[int]) -> Coefficients:
        """One row a face."""
        return self._coefficients.rows(rows)

    def changed(self, rows: Sequence[int], coefficients: Coefficients, identities: np.ndarray) -> Conditions:
        """Conditions of new people ``(B, D)`` in the faces' places."""
        square, masks = (self._shards.rows(name, rows).float() / 255 for name in ("square", "masks"))
        face, mesh = render_face(built_in_morphable_model(), coefficients, self.size)
        hidden = torch.maximum(masks[:, :1], mesh)
        return Conditions(
            face,
            masked_image(square, hidden, masks[:, 1:]),
            scaled_identity(identities),
            self.standardizer.standardize(coefficients)[:, None],
        )

    def batch(self, rows: Sequence[int], growth: Sequence[float]) -> tuple[Tensor, Conditions]:
        """Images ``(B, 3, S, S)`` in [-1, 1] and their conditions.

        Args:
            growth: share of ``MAX_GROWTH`` by which each identity mask is grown, 0 to 1.
        """
        chosen = list(rows)
        square, masks, face = (self._shards.rows(name, chosen).float() / 255 for name in _IMAGES)
        grown = torch.cat([_grown(m[None, :1], g, self.size) for m, g in zip(masks, growth, strict=True)])
        conditions = Conditions(
            face * 2 - 1,
            masked_image(square, grown, masks[:, 1:]),
            self._identities[chosen],
            self._standard[chosen, None],
        )
        return square * 2 - 1, conditions


def trained_rows(count: int) -> Tensor:
    """Faces that are trained on: all but each twentieth; all of a small set."""
    every = torch.arange(count)
    return every if count < HELD_OUT else every[every % HELD_OUT != 0]


def _grown(mask: Tensor, growth: float, size: int) -> Tensor:
    radius = round(growth * MAX_GROWTH * size)
    return torch.nn.functional.max_pool2d(mask, 2 * radius + 1, 1, radius) if radius else mask


@lru_cache(maxsize=1)
def _reader(size: int) -> FaceReader:
    return FaceReader(built_in_morphable_model(), size)


def _bytes(image: Tensor) -> np.ndarray:
    return (image[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
