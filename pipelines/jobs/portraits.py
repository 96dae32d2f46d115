"""Turn a folder of portraits into vectors: to train an identity sampler on, to build a bank from, to calibrate a
recognizer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..core.progress import Progress, silent
from ..faces.align import crop, ffhq_transform
from ..identity.bank import CROP, Bank, build_bank
from ..identity.compare import recognizer_named
from ..identity.ensemble import EnsembleMapper
from ..identity.lds import IdentitySampler, save_sampler
from ..methods.appearance.canonical import Pose2D
from ..methods.appearance.network import load_model
from ..recognition.base import FaceRecognizer
from ..training.ensemble import Recipe as EnsembleRecipe
from ..training.ensemble import train_ensemble
from ..training.portraits import Portrait, embed_portraits, find_portraits, read_pixels
from ..training.sampler import Recipe, train_sampler

SHAPE, JOINT = "appearance-shape", "joint"
HELD_OUT = 5
"""Every fifth picture is left out of the training, to judge the sampler by."""


@dataclass(frozen=True)
class Vectors:
    """What a sampler learns from.

    Attributes:
        learned, held: ``(N, D)`` and ``(M, D)``, to train on and held out.
        space: their space's name.
        unit: how many of the leading numbers are a unit vector.
    """

    learned: np.ndarray
    held: np.ndarray
    space: str
    unit: int


def folder_vectors(images: Path, space: str, workers: int | None = None, progress: Progress = silent) -> Vectors:
    """Vectors of a folder of portraits.

    Args:
        space: ``dlib`` or another recognizer as ``KIND:FILE``; ``appearance-shape`` for coefficients of the built-in 3D
            shape model; ``joint`` for dlib's vector and these coefficients side by side.

    Raises:
        InputError: the space is unknown, or the folder holds no faces.
        WeightsError: the recognizer's file cannot be used.
    """
    recognizer = None if space == SHAPE else recognizer_named("dlib" if space == JOINT else space)
    portraits = find_portraits(images, workers, progress)
    parts, names = [], []
    if recognizer is not None:
        parts.append(embed_portraits(portraits, recognizer, progress))
        names.append(recognizer.name)
    unit = parts[0].shape[1] if parts else 0
    if space in (SHAPE, JOINT):
        shapes = load_model().shapes
        parts.append(np.stack([shapes.fit(Pose2D.of(p.points).to_frame(p.points)).coefficients for p in portraits]))
        names.append(SHAPE)
    vectors = np.concatenate(parts, 1)
    held = np.arange(len(vectors)) % HELD_OUT == 0
    return Vectors(vectors[~held], vectors[held], "+".join(names), unit)


def train_on_folder(
    images: Path,
    space: str,
    output: Path,
    steps: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[IdentitySampler, int]:
    """Train a sampler and write it; a training that was stopped goes on.

    Returns:
        The sampler, and how many faces it learned from.

    Raises:
        InputError: as for ``folder_vectors``, too few faces, or fewer than one step.
        OutputError: the file cannot be written.
    """
    vectors = folder_vectors(images, space, workers, progress)
    # DiffDeID, Eq. 2 for a recognizer's vectors and Eq. 3 for coefficients, of which there are fewer.
    recipe = Recipe(steps=steps, seed=seed) if vectors.unit else Recipe(steps=steps, seed=seed, norm="l1", width=192)
    sampler = train_sampler(
        vectors.learned, vectors.space, vectors.unit, recipe, output.with_suffix(".state"), progress=progress
    )
    save_sampler(output, sampler)
    return sampler, len(vectors.learned)


def bank_from_folder(
    images: Path, output: Path, recognizer: FaceRecognizer, workers: int | None = None, progress: Progress = silent
) -> Bank:
    """Build a bank from a folder of pictures of synthetic people, one each.

    Raises:
        InputError: the folder holds no faces, the output is not empty, or no threshold is known for the recognizer's
        space.
        OutputError: a file cannot be written.
    """
    threshold = recognizer.threshold
    portraits = find_portraits(images, workers, progress)
    vectors = embed_portraits(portraits, recognizer, progress)
    return build_bank(output, zip(vectors, map(_face, portraits), strict=True), recognizer.name, threshold, progress)


def ensemble_from_folder(
    people: Path,
    recognizers: Sequence[FaceRecognizer],
    recipe: EnsembleRecipe,
    workers: int | None = None,
    progress: Progress = silent,
) -> EnsembleMapper:
    """Train IDDiffuse's E_I on a folder with one sub-folder a person.

    Raises:
        InputError: fewer than 12 people with two photos each.
    """
    portraits = find_portraits(people, workers, progress)
    parts = [embed_portraits(portraits, e, progress) for e in recognizers]
    owners = np.array([p.path.relative_to(people).parts[0] for p in portraits])
    spaces, sizes = [e.name for e in recognizers], [p.shape[1] for p in parts]
    return train_ensemble(np.concatenate(parts, 1), owners, spaces, sizes, recipe, progress=progress)


def _face(portrait: Portrait) -> Tensor:
    return crop(read_pixels(portrait.path), ffhq_transform(portrait.points, CROP), CROP)
