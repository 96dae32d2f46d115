"""Turn a folder of portraits into vectors: to train an identity sampler on, to build a bank from, to calibrate a
recogniser with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..faces.align import crop, ffhq_transform
from ..identity.bank import CROP, Bank, build_bank
from ..identity.embedder import Embedder
from ..identity.embedders import embedder_of
from ..identity.ensemble import EnsembleMapper, train_ensemble
from ..identity.ensemble import Recipe as EnsembleRecipe
from ..identity.lds import IdentitySampler
from ..identity.lds_training import Recipe, save_sampler, train_sampler
from ..methods.appearance.frame import Pose2D
from ..methods.appearance.network import load_model
from ..methods.appearance.training import PICTURES, Portrait, parallel, read_pixels, read_portrait
from ..progress import Progress, silent

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


def find_portraits(images: Path, workers: int | None = None, progress: Progress = silent) -> list[Portrait]:
    """The face of each picture of a folder, one person each; pictures without one are left out.

    Raises:
        InputError: the folder holds no pictures, or none of them shows a face.
    """
    paths = sorted(p for p in images.rglob("*") if p.suffix.lower() in PICTURES) if images.is_dir() else []
    if not paths:
        raise InputError(f"{images.name} holds no pictures; name a folder of portraits, one person each")
    found = [
        p
        for p in parallel(
            read_portrait, [(p,) for p in paths], workers or os.cpu_count() or 1, progress, "finding faces"
        )
        if p is not None
    ]
    if not found:
        raise InputError(
            f"no face was found in the pictures of {images.name}; name a folder of portraits, one person each"
        )
    return found


def embed_portraits(portraits: Sequence[Portrait], embedder: Embedder, progress: Progress = silent) -> np.ndarray:
    """Unit vectors ``(N, D)``."""
    if embedder.space == "dlib":
        raw = np.stack([p.embedding for p in portraits])
        return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))
    vectors = []
    for done, p in enumerate(portraits):
        progress(done, len(portraits), f"embedding with {embedder.space}")
        vectors.append(embedder.embed(read_pixels(p.path), p.points))
    return np.stack(vectors)


def folder_vectors(images: Path, space: str, workers: int | None = None, progress: Progress = silent) -> Vectors:
    """Vectors of a folder of portraits.

    Args:
        space: ``dlib`` or another recogniser as ``KIND:FILE``; ``appearance-shape`` for coefficients of the built-in 3D
            shape model; ``joint`` for dlib's vector and these coefficients side by side.

    Raises:
        InputError: the space is unknown, or the folder holds no faces.
        WeightsError: the recogniser's file cannot be used.
    """
    embedder = None if space == SHAPE else embedder_of("dlib" if space == JOINT else space)
    portraits = find_portraits(images, workers, progress)
    parts, names = [], []
    if embedder is not None:
        parts.append(embed_portraits(portraits, embedder, progress))
        names.append(embedder.space)
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
    # DiffDeID, Eq. 2 for a recogniser's vectors and Eq. 3 for coefficients, of which there are fewer.
    recipe = Recipe(steps=steps, seed=seed) if vectors.unit else Recipe(steps=steps, seed=seed, norm="l1", width=192)
    sampler = train_sampler(
        vectors.learned, vectors.space, vectors.unit, recipe, output.with_suffix(".state"), progress=progress
    )
    save_sampler(output, sampler)
    return sampler, len(vectors.learned)


def bank_from_folder(
    images: Path, output: Path, embedder: Embedder, workers: int | None = None, progress: Progress = silent
) -> Bank:
    """Build a bank from a folder of pictures of synthetic people, one each.

    Raises:
        InputError: the folder holds no faces, the output is not empty, or no threshold is known for the recogniser's
        space.
        OutputError: a file cannot be written.
    """
    threshold = embedder.threshold
    portraits = find_portraits(images, workers, progress)
    vectors = embed_portraits(portraits, embedder, progress)
    return build_bank(output, zip(vectors, map(_face, portraits), strict=True), embedder.space, threshold, progress)


def ensemble_from_folder(
    people: Path,
    embedders: Sequence[Embedder],
    recipe: EnsembleRecipe,
    workers: int | None = None,
    progress: Progress = silent,
) -> EnsembleMapper:
    """Train IDDiffuse's E_I on a folder with one sub-folder a person.

    Raises:
        InputError: fewer than 12 people with two photos each.
    """
    portraits = find_portraits(people, workers, progress)
    parts = [embed_portraits(portraits, e, progress) for e in embedders]
    owners = np.array([p.path.relative_to(people).parts[0] for p in portraits])
    spaces, sizes = [e.space for e in embedders], [p.shape[1] for p in parts]
    return train_ensemble(np.concatenate(parts, 1), owners, spaces, sizes, recipe, progress)


def _face(portrait: Portrait) -> Tensor:
    return crop(read_pixels(portrait.path), ffhq_transform(portrait.points, CROP), CROP)
