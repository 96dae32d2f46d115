"""Train an identity sampler on a folder of portraits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import InputError
from ..identity.lds import IdentitySampler
from ..identity.lds_training import Recipe, save_sampler, train_sampler
from ..methods.appearance.frame import Pose2D
from ..methods.appearance.network import load_model
from ..methods.appearance.training import PICTURES, parallel, read_portrait
from ..progress import Progress, silent

Space = Literal["dlib", "appearance-shape"]
SPACES: tuple[str, ...] = get_args(Space)
HELD_OUT = 5
"""Every fifth picture is left out of the training, to judge the sampler by."""


def folder_vectors(images: Path, space: str, workers: int | None = None, progress: Progress = silent) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a folder of portraits, to train on and held out, ``(N, D)`` and ``(M, D)``.

    Args:
        space: ``dlib`` for unit vectors of the recogniser, ``appearance-shape`` for coefficients of the built-in 3D shape model.

    Raises:
        InputError: the space is unknown, or the folder holds no pictures.
    """
    if space not in SPACES:
        raise InputError(f"the space {space!r} is not one of {', '.join(SPACES)}")
    paths = sorted(p for p in images.rglob("*") if p.suffix.lower() in PICTURES) if images.is_dir() else []
    if not paths:
        raise InputError(f"{images.name} holds no pictures; name a folder of portraits, one person each")
    portraits = parallel(read_portrait, [(p,) for p in paths], workers or os.cpu_count() or 1, progress, "finding faces")
    found = [p for p in portraits if p is not None]
    if not found:
        raise InputError(f"no face was found in the pictures of {images.name}; name a folder of portraits, one person each")
    if space == "dlib":
        raw = np.stack([p.embedding for p in found])
        vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    else:
        shapes = load_model().shapes
        vectors = np.stack([shapes.fit(Pose2D.of(p.points).to_frame(p.points)).coefficients for p in found])
    held = np.arange(len(vectors)) % HELD_OUT == 0
    return vectors[~held], vectors[held]


def train_on_folder(
    images: Path, space: str, output: Path, steps: int, seed: int = 0, workers: int | None = None, progress: Progress = silent
) -> tuple[IdentitySampler, int]:
    """Train a sampler and write it; a training that was stopped goes on.

    Returns:
        The sampler, and how many faces it learned from.

    Raises:
        InputError: as for ``folder_vectors``, too few faces, or fewer than one step.
        OutputError: the file cannot be written.
    """
    learned, _ = folder_vectors(images, space, workers, progress)
    # DiffDeID, Eq. 2 for a recogniser's vectors and Eq. 3 for coefficients, of which there are fewer.
    recipe = Recipe(steps=steps, seed=seed) if space == "dlib" else Recipe(steps=steps, seed=seed, norm="l1", width=192)
    sampler = train_sampler(learned, space, space == "dlib", recipe, output.with_suffix(".state"), progress=progress)
    save_sampler(output, sampler)
    return sampler, len(learned)
