"""Contact sheets of a DiffDeID checkpoint: faces of its training data, drawn again and at levels 1, 5 and 10."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...core.files import write_whole
from ...core.progress import Progress, silent
from ...identity.lds import builtin_sampler
from ...imaging.uint8 import to_pillow
from .pipeline import STEPS, Checkpoint, DiffDeIDPipeline
from .shards import Faces

LEVELS = (1, 5, 10)


def level_sheet(
    checkpoint: Checkpoint,
    faces: Faces,
    rows: Sequence[int],
    seed: int = 0,
    steps: int = STEPS,
    progress: Progress = silent,
) -> Tensor:
    """One row a face: image, I_m, I_3d, itself drawn again, and each level, ``(1, 3, N S, 7 S)`` in [0, 1]."""
    pipeline = DiffDeIDPipeline(checkpoint.network)
    identities, geometries = builtin_sampler(checkpoint.space), builtin_sampler(checkpoint.model)
    images, own = faces.batch(rows, [0.0] * len(rows))
    coefficients = faces.coefficients(rows)
    drawn = [own]
    for level in LEVELS:
        z = [identities.level(v, level, seed + i).vectors for i, v in enumerate(faces.identities(rows))]
        alphas = coefficients.identity.double().numpy()
        alpha = [geometries.level(a, level, seed + i + 1).vectors for i, a in enumerate(alphas)]
        people = replace(coefficients, identity=torch.from_numpy(np.concatenate(alpha)).float())
        drawn.append(faces.changed(rows, people, np.concatenate(z)))
    columns = [images, own.masked[:, :3], own.face]
    for done, conditions in enumerate(drawn):
        progress(done, len(drawn), "drawing samples")
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(rows))]
        columns.append(pipeline.sample(conditions, generators, steps) * 2 - 1)
    sheet = torch.cat([torch.cat(list(column), -2) for column in columns], -1)[None]
    return ((sheet + 1) / 2).clamp(0, 1)


def save_sheet(path: Path, sheet: Tensor) -> None:
    """Write a PNG file.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    to_pillow(sheet).save(buffer, "PNG")
    write_whole(path, buffer.getvalue())
