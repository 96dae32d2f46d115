"""Jobs on a folder of portraits: train an identity sampler, build a bank, train an ensemble."""

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
HELD_OUT_EVERY = 5
"""Every fifth image is held out of the training, to evaluate the sampler."""


@dataclass(frozen=True)
class TrainingVectors:
    """The data that a sampler is trained on.

    Attributes:
        train: vectors to train on, ``(N, D)``.
        held_out: vectors to evaluate with, ``(M, D)``.
        space: name of their space.
        unit: how many leading elements form a unit vector.
    """

    train: np.ndarray
    held_out: np.ndarray
    space: str
    unit: int


def vectors_from_folder(
    images: Path, space: str, workers: int | None = None, progress: Progress = silent
) -> TrainingVectors:
    """Compute one vector for each portrait in a folder.

    Args:
        images: the folder.
        space: ``dlib``, or another recognizer as ``KIND:FILE``; ``appearance-shape`` for coefficients of the built-in
            shape model; ``joint`` for dlib embeddings concatenated with these coefficients.
        workers: number of processes; the number of CPU cores when omitted.

    Raises:
        InputError: the space is unknown, or no face was found in the folder.
        WeightsError: the recognizer's file is missing or damaged.
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
        parts.append(np.stack([shapes.fit(Pose2D.of(p.points).to_canonical(p.points)).coefficients for p in portraits]))
        names.append(SHAPE)
    vectors = np.concatenate(parts, 1)
    held_out = np.arange(len(vectors)) % HELD_OUT_EVERY == 0
    return TrainingVectors(vectors[~held_out], vectors[held_out], "+".join(names), unit)


def train_on_folder(
    images: Path,
    space: str,
    output: Path,
    steps: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = silent,
    logs: Path | None = None,
) -> tuple[IdentitySampler, int]:
    """Train an identity sampler on a folder of portraits and write it; an interrupted training is resumed.

    Args:
        images: the folder.
        space: as for ``vectors_from_folder``.
        output: the sampler's file.
        steps: number of training steps.
        logs: folder for TensorBoard.

    Returns:
        The sampler, and the number of faces that it was trained on.

    Raises:
        InputError: as for ``vectors_from_folder``, too few faces, or fewer than one step.
        OutputError: the file cannot be written.
    """
    vectors = vectors_from_folder(images, space, workers, progress)
    # DiffDeID: Eq. 2 (L2 loss) for embeddings; Eq. 3 (L1 loss) for coefficients, of which there are fewer.
    recipe = Recipe(steps=steps, seed=seed) if vectors.unit else Recipe(steps=steps, seed=seed, norm="l1", width=192)
    state = output.with_suffix(".state")
    sampler = train_sampler(vectors.train, vectors.space, vectors.unit, recipe, state, logs, progress=progress)
    save_sampler(output, sampler)
    state.unlink(missing_ok=True)
    return sampler, len(vectors.train)


def bank_from_folder(
    images: Path, output: Path, recognizer: FaceRecognizer, workers: int | None = None, progress: Progress = silent
) -> Bank:
    """Build a bank from a folder of portraits of synthetic people, one portrait for each person.

    Args:
        images: the folder of portraits.
        output: a new or empty folder for the bank.

    Raises:
        InputError: no face was found, the output folder is not empty, or no threshold is known for the recognizer.
        OutputError: a file cannot be written.
    """
    threshold = recognizer.threshold_at().distance
    portraits = find_portraits(images, workers, progress)
    vectors = embed_portraits(portraits, recognizer, progress)
    return build_bank(output, zip(vectors, map(_face, portraits), strict=True), recognizer.name, threshold, progress)


def ensemble_from_folder(
    people: Path,
    recognizers: Sequence[FaceRecognizer],
    recipe: EnsembleRecipe,
    state: Path | None = None,
    workers: int | None = None,
    logs: Path | None = None,
    progress: Progress = silent,
) -> EnsembleMapper:
    """Train the ensemble identity E_I of IDDiffuse.

    Args:
        people: a folder with one subfolder of photos for each person.
        recognizers: the recognizers to combine.
        state: file that an interrupted training continues from.

    Raises:
        InputError: there are fewer than 12 people with two photos each.
    """
    portraits = find_portraits(people, workers, progress)
    parts = [embed_portraits(portraits, r, progress) for r in recognizers]
    labels = np.array([p.path.relative_to(people).parts[0] for p in portraits])
    spaces, sizes = [r.name for r in recognizers], [p.shape[1] for p in parts]
    return train_ensemble(np.concatenate(parts, 1), labels, spaces, sizes, recipe, state, logs, progress)


def _face(portrait: Portrait) -> Tensor:
    """Crop the face in the FFHQ alignment, ``(1, 3, CROP, CROP)``."""
    return crop(read_pixels(portrait.path), ffhq_transform(portrait.points, CROP), CROP)
