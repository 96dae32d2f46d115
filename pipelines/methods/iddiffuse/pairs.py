"""Training pairs of IDDiffuse: faces of a folder, and for each the person of a bank that the mapping gives."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import arcface_transform, crop
from ...identity.bank import Bank
from ...identity.identity import Identity
from ...imaging.formats import find_images
from ...recognition.base import FaceRecognizer, unit
from ...recognition.catalog import built_in_recognizers
from ...training.portraits import read_pixels, read_portrait
from ...training.shards import Item, Shards, build
from .conditions import SIZE

SHARD = 1024
"""Faces of one file."""


class Pairs:
    """Prepared pairs.

    Attributes:
        space: name of the identities' space, the bank's.
    """

    def __init__(self, faces: Shards, people: Shards, bank: Bank, skip_similar: bool) -> None:
        if not len(faces) or not len(people):
            raise InputError("no face was found in the images, or in the portraits of the bank")
        self._faces, self._people, self.space = faces, people, bank.space
        self._vectors = torch.from_numpy(unit(people.whole("vector").double().numpy())).float()
        own = unit(faces.whole("vector").double().numpy())
        self.partners = mapped(own, self._vectors.double().numpy(), bank.threshold if skip_similar else 0.0)

    def __len__(self) -> int:
        return len(self._faces)

    @property
    def size(self) -> int:
        """Side of X in pixels."""
        return int(self._faces.rows("square", [0]).shape[-1])

    @property
    def identity_size(self) -> int:
        """Length of the identities' vectors."""
        return int(self._vectors.shape[1])

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set from another."""
        return np.concatenate([self._faces.whole("vector").numpy().ravel(), self.partners])

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Random X ``(count, 3, S, S)`` and X^ ``(count, 3, 112, 112)`` in [-1, 1], and E_I(X^) ``(count, D)``."""
        rows = torch.randint(len(self), (count,), generator=generator).tolist()
        return self.rows(rows)

    def rows(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of some faces; see ``draw``."""
        partners = [int(self.partners[row]) for row in rows]
        images, synthetic = (
            source.rows("square", chosen).float() / 127.5 - 1
            for source, chosen in ((self._faces, rows), (self._people, partners))
        )
        return images, synthetic, self._vectors[partners]


def mapped(own: np.ndarray, people: np.ndarray, min_distance: float) -> np.ndarray:
    """The nearest of ``people`` ``(M, D)`` for each of ``own`` ``(N, D)``, not nearer than ``min_distance``: ``(N,)``.

    The paper takes the nearest; it has no minimum.

    Raises:
        InputError: nobody is far enough away.
    """
    distances = np.sqrt(np.maximum(0, 2 - 2 * own @ people.T))
    distances[distances < min_distance] = np.inf
    if not np.isfinite(distances.min(1)).all():
        raise InputError("some faces have nobody in the bank who is different enough; build a larger bank")
    return np.asarray(distances.argmin(1))


def build_pairs(
    images: Path,
    bank: Bank,
    folder: Path,
    size: int,
    skip_similar: bool,
    workers: int,
    progress: Progress = silent,
) -> Pairs:
    """Compute the pairs of a folder, or read them where they were computed before.

    Args:
        images: any tree of face images; CASIA-WebFace's has a folder for each person.

    Raises:
        InputError: there are no usable faces, the bank has no portraits or is of a space that needs a file, or
            ``folder`` holds other data.
    """
    recognizer_of(bank.space)
    paths = find_images(images)
    if not paths:
        raise InputError(f"{images.name} contains no images; name a folder of faces")
    if bank.folder is None:
        raise InputError("this bank contains no portraits; build one with: faceveil bank")
    portraits = find_images(bank.folder)
    facts = {"space": bank.space}
    faces, people = folder / "faces", folder / "people"
    for part, sources, side in ((faces, paths, size), (people, portraits, SIZE)):
        jobs = [(path, bank.space, side) for path in sources]
        build(read_face, jobs, sources, part, facts | {"size": side}, SHARD, workers, progress, "preparing faces")
    return Pairs(Shards(faces), Shards(people), bank, skip_similar)


def read_face(path: Path, space: str, size: int) -> list[Item]:
    """The face of one file, aligned as for ArcFace; none, with a warning in the log, where there is none.

    Arrays: ``square (3, S, S)``, 8-bit; ``vector (D,)``, a unit vector.
    """
    portrait = read_portrait(path)
    if portrait is None:
        return []
    image = read_pixels(path)
    vector = unit(recognizer_of(space).embed(image, portrait.points))
    return [{"square": _bytes(aligned(image, portrait.points, size)), "vector": vector.astype(np.float32)}]


def aligned(image: Tensor, points: np.ndarray, size: int) -> Tensor:
    """A face aligned as for ArcFace, ``(1, 3, size, size)`` in [0, 1]."""
    return crop(image, arcface_transform(points, size), size).clamp(0, 1)


@lru_cache(maxsize=2)
def recognizer_of(space: str) -> FaceRecognizer:
    """The built-in recognizer of a space.

    Raises:
        InputError: it is not built in.
    """
    for recognizer in built_in_recognizers():
        if recognizer.name == space:
            return recognizer
    raise InputError(f"a bank of the space {space} cannot be used here; build one with the recognizer dlib or faceveil")


def nearest_person(bank: Bank, own: Identity, skip_similar: bool) -> int:
    """Number of the bank's person for somebody: the mapping of IDDiffuse, the same whenever it is asked."""
    return bank.nearest_free(own, (), None if skip_similar else 0.0)


def _bytes(image: Tensor) -> np.ndarray:
    return (image[0] * 255).round().to(torch.uint8).numpy()
