"""What an identity sampler is trained on: the vectors of a folder of portraits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..errors import InputError
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
    found = [p for p in parallel(read_portrait, [(p,) for p in paths], workers or os.cpu_count() or 1, progress, "finding faces") if p is not None]
    if space == "dlib":
        raw = np.stack([p.embedding for p in found])
        vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    else:
        shapes = load_model().shapes
        vectors = np.stack([shapes.fit(Pose2D.of(p.points).to_frame(p.points)).coefficients for p in found])
    held = np.arange(len(vectors)) % HELD_OUT == 0
    return vectors[~held], vectors[held]
