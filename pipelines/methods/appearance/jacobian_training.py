"""Train the guides' embedding Jacobians: render random identities on training faces and embed the renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...recognition.catalog import open_recognizer
from .canonical import REGIONS
from .jacobian import GUIDES, EmbeddingJacobian
from .latent import AppearanceLatent, appearance_of, random_codes
from .network import TRAITS, AppearanceModel
from .render import Subject, prepare, render
from .search import TRIAL_IOD
from .shape import region_moves

SAMPLES_PER_FACE = 12
"""Identities per face. Each region's codes are those of another of the people, changed a little."""
DISTINCTIVENESS, VARIATION = 1.1, 0.5
"""Factor of the people's codes, and standard deviation of the change."""
RIDGE = 1000.0


@dataclass(frozen=True)
class JacobianSamples:
    """Training data of the Jacobian, one row per rendering.

    Attributes:
        textures: region name to the new texture code minus the original one, ``(N, K)``.
        moves: landmark displacements in IOD, ``(N, 136)``.
        original: for each guide, embeddings of the original faces, ``(N, D)``.
        shifts: for each guide, embeddings of the renderings minus ``original``, ``(N, D)``.
    """

    textures: dict[str, np.ndarray]
    moves: np.ndarray
    original: dict[str, np.ndarray]
    shifts: dict[str, np.ndarray]

    @classmethod
    def joined(cls, parts: Sequence[JacobianSamples]) -> JacobianSamples:
        """Concatenate samples."""
        textures = {n: np.concatenate([p.textures[n] for p in parts]) for n in REGIONS}
        original = {g: np.concatenate([p.original[g] for p in parts]) for g in GUIDES}
        shifts = {g: np.concatenate([p.shifts[g] for p in parts]) for g in GUIDES}
        return cls(textures, np.concatenate([p.moves for p in parts]), original, shifts)


def render_samples(
    model: AppearanceModel, faces: Sequence[tuple[Tensor, np.ndarray, np.ndarray]], seed: int
) -> JacobianSamples:
    """Render ``SAMPLES_PER_FACE`` random identities on each face.

    Args:
        faces: pixels ``(1, 3, H, W)``, landmarks ``(68, 2)`` and dlib's embedding ``(D,)`` of each face.
        seed: of the random codes.
    """
    guides = {name: open_recognizer(name) for name in GUIDES}
    generator = torch.Generator().manual_seed(seed)
    textures: dict[str, list[np.ndarray]] = {n: [] for n in REGIONS}
    moves: list[np.ndarray] = []
    original: dict[str, list[np.ndarray]] = {g: [] for g in guides}
    shifts: dict[str, list[np.ndarray]] = {g: [] for g in guides}
    for pixels, points, embedding in faces:
        subject: Subject = prepare(model, pixels, points, embedding).scaled(TRIAL_IOD)
        before = {name: guide.embed(pixels, points) for name, guide in guides.items()}
        for _ in range(SAMPLES_PER_FACE):
            codes = _mixture(model, generator)
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
            for name, guide in guides.items():
                original[name].append(before[name])
                shifts[name].append(guide.embed(patch, new_points) - before[name])
    return JacobianSamples(
        {n: np.stack(v) for n, v in textures.items()},
        np.stack(moves),
        {g: np.stack(v) for g, v in original.items()},
        {g: np.stack(v) for g, v in shifts.items()},
    )


def _mixture(model: AppearanceModel, generator: torch.Generator) -> dict[str, np.ndarray]:
    """Codes that the search could try: of four people, so that the regions' effects can be told apart."""
    rows = torch.randint(len(model.people), (len(REGIONS),), generator=generator).tolist()
    return {
        n: DISTINCTIVENESS * model.people.codes[n][row] + random_codes(model, n, 1, VARIATION, generator)[0]
        for n, row in zip(REGIONS, rows, strict=True)
    }


def learn_jacobian(samples: JacobianSamples, guide: str) -> EmbeddingJacobian:
    """Fit a guide's Jacobian by ridge regression of embedding shifts on codes, displacements and originals."""
    blocks = [*(samples.textures[n] for n in REGIONS), samples.moves, samples.original[guide]]
    design = np.concatenate(blocks, 1).astype(np.float64)
    mean, std = design.mean(0), design.std(0) + 1e-6
    normal, average = (design - mean) / std, samples.shifts[guide].mean(0)
    solved = (
        np.linalg.solve(
            normal.T @ normal + RIDGE * np.eye(normal.shape[1]), normal.T @ (samples.shifts[guide] - average)
        )
        / std[:, None]
    )
    parts = np.split(solved, np.cumsum([b.shape[1] for b in blocks])[:-1])
    return EmbeddingJacobian(dict(zip(REGIONS, parts[:4], strict=True)), parts[4], parts[5], average - mean @ solved)
