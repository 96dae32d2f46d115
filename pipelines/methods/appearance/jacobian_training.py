"""Train the embedding Jacobian: render random identities on some training faces and embed the renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...recognition.dlib_resnet import default_recognizer
from .canonical import REGIONS
from .jacobian import EmbeddingJacobian
from .latent import AppearanceLatent, appearance_of, random_codes
from .network import TRAITS, AppearanceModel
from .render import Subject, prepare, render
from .search import TRIAL_IOD
from .shape import region_moves

SAMPLES_PER_FACE, SPREAD = 4, 1.3
"""Random identities per face, and the standard deviation of their codes. The search uses a smaller deviation, so it
stays within the range of this training data."""
RIDGE = 1000.0


@dataclass(frozen=True)
class JacobianSamples:
    """Training data of the Jacobian, one row per rendering.

    Attributes:
        textures: region name to the new texture code minus the original one, ``(N, K)``.
        moves: landmark displacements in IOD, ``(N, 136)``.
        original: embeddings of the original faces, ``(N, D)``.
        shifts: embeddings of the renderings minus ``original``, ``(N, D)``.
    """

    textures: dict[str, np.ndarray]
    moves: np.ndarray
    original: np.ndarray
    shifts: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[JacobianSamples]) -> JacobianSamples:
        """Concatenate samples."""
        textures = {n: np.concatenate([p.textures[n] for p in parts]) for n in REGIONS}
        return cls(
            textures, *(np.concatenate([getattr(p, key) for p in parts]) for key in ("moves", "original", "shifts"))
        )


def render_samples(
    model: AppearanceModel, faces: Sequence[tuple[Tensor, np.ndarray, np.ndarray]], seed: int
) -> JacobianSamples:
    """Render ``SAMPLES_PER_FACE`` random identities on each face.

    Args:
        faces: pixels ``(1, 3, H, W)``, landmarks ``(68, 2)`` and embedding ``(D,)`` of each face.
        seed: of the random codes.
    """
    recognizer, generator = default_recognizer(), torch.Generator().manual_seed(seed)
    textures: dict[str, list[np.ndarray]] = {n: [] for n in REGIONS}
    moves, original, shifts = [], [], []
    for pixels, points, embedding in faces:
        subject: Subject = prepare(model, pixels, points, embedding).scaled(TRIAL_IOD)
        for _ in range(SAMPLES_PER_FACE):
            codes = {n: random_codes(model, n, 1, SPREAD, generator)[0] for n in REGIONS}
            appearance = appearance_of(model, AppearanceLatent(codes, subject.attributes[TRAITS], 0), subject)
            patch, _, new_points = render(model, subject, appearance, 1.0)
            for name in REGIONS:
                textures[name].append(appearance.textures[name] - subject.codes[name])
            moves.append(
                sum(
                    region_moves(model.shapes, subject.fit, subject.shape, n, appearance.shapes[n][None])[0].ravel()
                    for n in REGIONS
                )
            )
            original.append(embedding)
            shifts.append(recognizer.embed(patch, new_points) - embedding)
    return JacobianSamples(
        {n: np.stack(v) for n, v in textures.items()}, np.stack(moves), np.stack(original), np.stack(shifts)
    )


def learn_jacobian(samples: JacobianSamples) -> EmbeddingJacobian:
    """Fit the Jacobian by ridge regression of the embedding shifts on codes, displacements and original embeddings."""
    blocks = [*(samples.textures[n] for n in REGIONS), samples.moves, samples.original]
    design = np.concatenate(blocks, 1).astype(np.float64)
    mean, std = design.mean(0), design.std(0) + 1e-6
    normal, average = (design - mean) / std, samples.shifts.mean(0)
    solved = (
        np.linalg.solve(normal.T @ normal + RIDGE * np.eye(normal.shape[1]), normal.T @ (samples.shifts - average))
        / std[:, None]
    )
    parts = np.split(solved, np.cumsum([b.shape[1] for b in blocks])[:-1])
    return EmbeddingJacobian(dict(zip(REGIONS, parts[:4], strict=True)), parts[4], parts[5], average - mean @ solved)
