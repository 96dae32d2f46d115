"""Training data of DiffDeID, computed once: aligned squares, masks, rendered faces, coefficients and z_id.

Each shard is a safetensors file of up to 512 faces; images are 8-bit, so 30,000 faces of 256 px take 16 GB. A folder
may have the layout of CelebAMask-HQ: then its masks are used instead of landmarks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.files import write_whole
from ...core.parallel import parallel
from ...core.progress import Progress, silent
from ...core.stored import read_safetensors
from ...faces.align import crop
from ...geometry.builtin import NAME, built_in_morphable_model
from ...geometry.coefficients import Coefficients, Standardizer
from ...imaging.formats import find_images
from ...recognition.base import unit
from ...training.portraits import read_pixels, read_portrait
from .conditions import FaceReader, layout_of, masked_image, render_face, scaled_identity
from .network import Conditions

FORMAT = "faceveil.diffdeid-shard/1"
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
_NAMES = (*_IMAGES, "coefficients", "identity")


@dataclass(frozen=True)
class Sample:
    """One face: ``square (3, S, S)``, ``masks (2, S, S)``: identity and mouth, ``face (3, S, S)``, all 8-bit;
    ``coefficients (P,)``; ``identity (D,)``, a unit vector."""

    square: Tensor
    masks: Tensor
    face: Tensor
    coefficients: Tensor
    identity: Tensor


def build_shards(images: Path, folder: Path, size: int, workers: int, progress: Progress = silent) -> Faces:
    """Compute the training data of a folder of portraits, or read it where it was computed before.

    Raises:
        InputError: the folder holds no usable faces, or ``folder`` holds data of other images or another size.
    """
    root = images / CELEBA_IMAGES if (images / CELEBA_IMAGES).is_dir() else images
    paths = find_images(root)
    if not paths:
        raise InputError(f"{images.name} contains no images; name a folder of portraits, one person each")
    facts = {"images": len(paths), "size": size, "first": paths[0].name, "last": paths[-1].name}
    done = folder / "facts.json"
    if done.is_file():
        if json.loads(done.read_text(encoding="utf-8")) != facts:
            raise InputError(f"{folder.name} holds training data of other images or sizes; remove it or name another")
        return Faces.open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    masks = images / CELEBA_MASKS
    jobs = [(path, masks if masks.is_dir() else None, size) for path in paths]
    pending: list[Sample] = []
    written = 0
    for sample in parallel(read_sample, jobs, workers, progress, "preparing faces"):
        if sample is not None:
            pending.append(sample)
        if len(pending) == SHARD:
            _write(folder / f"{written:05}.safetensors", pending)
            pending, written = [], written + 1
    if pending:
        _write(folder / f"{written:05}.safetensors", pending)
    faces = Faces.open(folder)
    write_whole(done, json.dumps(facts).encode())
    return faces


def read_sample(path: Path, masks: Path | None, size: int) -> Sample | None:
    """The face of one file; None, with a warning in the log, where there is none."""
    portrait = read_portrait(path)
    if portrait is None:
        return None
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
    return Sample(
        _bytes(view.square)[0],
        _bytes(torch.cat([hidden, mouth], 1))[0],
        _bytes((face + 1) / 2)[0],
        view.coefficients.to_vector(layout_of(reader.model))[0],
        torch.from_numpy(unit(portrait.embedding)).float(),
    )


def parsed_mask(folder: Path, stem: str) -> Tensor | None:
    """The identity mask ``(1, 1, H, W)`` of an image of CelebAMask-HQ, from its files of one class each; None where
    they are missing."""
    number = int(stem) if stem.isdigit() else -1
    parts = [folder / str(number // 2000) / f"{number:05}_{name}.png" for name in HIDDEN_CLASSES]
    found = [read_pixels(part)[:, :1] for part in parts if part.is_file()]
    return torch.stack(found).amax(0) if found else None


class Faces:
    """The training data in memory; a ``TrainingSet``.

    Attributes:
        standardizer: of the coefficients over all faces.
        space: recognizer whose embeddings the shards hold.
    """

    space = "dlib"
    window = 1

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        if len(tensors["square"]) < MIN_FACES:
            raise InputError(f"only {len(tensors['square'])} face was found in the images; give at least {MIN_FACES}")
        layout = layout_of(built_in_morphable_model())
        coefficients = Coefficients.from_vector(tensors["coefficients"], layout, NAME)
        self.standardizer = Standardizer.of(coefficients, layout)
        self._standard = self.standardizer.standardize(coefficients)
        self._identities = scaled_identity(tensors["identity"].double().numpy())

    @classmethod
    def open(cls, folder: Path) -> Faces:
        """Read all shards of a folder.

        Raises:
            InputError: there are none, or one is damaged.
        """
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InputError("no face was found in the images; name a folder of portraits, one person each")
        read = [read_safetensors(file, "shard", "remove its folder and prepare it again", InputError) for file in files]
        if any(metadata.get("format") != FORMAT for _, metadata in read):
            raise InputError(f"{folder.name} holds other files than shards; name another folder")
        joined = {name: torch.cat([tensors[name] for tensors, _ in read]) for name in _NAMES}
        return cls(joined)

    def __len__(self) -> int:
        return len(self._identities)

    @property
    def size(self) -> int:
        return self._tensors["square"].shape[-1]

    @property
    def identity_size(self) -> int:
        return self._identities.shape[1]

    @property
    def coefficient_size(self) -> int:
        return self._standard.shape[1]

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set of faces from another."""
        return self._tensors["coefficients"].numpy()

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
        return unit(self._tensors["identity"][list(rows)].double().numpy())

    def coefficients(self, rows: Sequence[int]) -> Coefficients:
        """One row a face."""
        return Coefficients.from_vector(self._tensors["coefficients"][list(rows)], self.standardizer.layout, NAME)

    def changed(self, rows: Sequence[int], coefficients: Coefficients, identities: np.ndarray) -> Conditions:
        """Conditions of new people ``(B, D)`` in the faces' places."""
        square, masks = (self._tensors[name][list(rows)].float() / 255 for name in ("square", "masks"))
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
        square, masks, face = (self._tensors[name][chosen].float() / 255 for name in _IMAGES)
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


def _bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _write(path: Path, samples: Sequence[Sample]) -> None:
    from safetensors.torch import save

    tensors = {name: torch.stack([getattr(s, name) for s in samples]).contiguous() for name in _NAMES}
    write_whole(path, save(tensors, {"format": FORMAT}))
