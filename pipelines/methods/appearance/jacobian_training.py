"""Learn the response: show random people on some of the training faces and ask the recognizer."""

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

LOOKS, SPREAD = 4, 1.3
"""Random people shown on each face, and how far their codes spread: wider than those of a search, so that it stays
inside."""
RIDGE = 1000.0


@dataclass(frozen=True)
class Answers:
    """What was shown, and how the embedding moved, one row a rendering.

    Attributes:
        textures: region name to ``(N, K)``; moves: ``(N, 136)``; own: ``(N, D)``; shifts: ``(N, D)``.
    """

    textures: dict[str, np.ndarray]
    moves: np.ndarray
    own: np.ndarray
    shifts: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        textures = {n: np.concatenate([p.textures[n] for p in parts]) for n in REGIONS}
        return cls(textures, *(np.concatenate([getattr(p, key) for p in parts]) for key in ("moves", "own", "shifts")))


def ask(model: AppearanceModel, faces: Sequence[tuple[Tensor, np.ndarray, np.ndarray]], seed: int) -> Answers:
    """Render ``LOOKS`` random people on each of ``faces``: pixels ``(1, 3, H, W)``, landmarks, embedding."""
    recognizer, generator = default_recognizer(), torch.Generator().manual_seed(seed)
    textures: dict[str, list[np.ndarray]] = {n: [] for n in REGIONS}
    moves, own, shifts = [], [], []
    for pixels, points, embedding in faces:
        subject: Subject = prepare(model, pixels, points, embedding).scaled(TRIAL_IOD)
        for _ in range(LOOKS):
            codes = {n: random_codes(model, n, 1, SPREAD, generator)[0] for n in REGIONS}
            look = appearance_of(model, AppearanceLatent(codes, subject.attributes[TRAITS], 0), subject)
            window, _, shown = render(model, subject, look, 1.0)
            for name in REGIONS:
                textures[name].append(look.textures[name] - subject.codes[name])
            moves.append(
                sum(
                    region_moves(model.shapes, subject.fit, subject.shape, n, look.shapes[n][None])[0].ravel()
                    for n in REGIONS
                )
            )
            own.append(embedding)
            shifts.append(recognizer.embed(window, shown) - embedding)
    return Answers({n: np.stack(v) for n, v in textures.items()}, np.stack(moves), np.stack(own), np.stack(shifts))


def learn_jacobian(answers: Answers) -> EmbeddingJacobian:
    """Ridge regression of the embedding's shift on everything that was changed."""
    blocks = [*(answers.textures[n] for n in REGIONS), answers.moves, answers.own]
    design = np.concatenate(blocks, 1).astype(np.float64)
    mean, std = design.mean(0), design.std(0) + 1e-6
    normal, average = (design - mean) / std, answers.shifts.mean(0)
    solved = (
        np.linalg.solve(normal.T @ normal + RIDGE * np.eye(normal.shape[1]), normal.T @ (answers.shifts - average))
        / std[:, None]
    )
    parts = np.split(solved, np.cumsum([b.shape[1] for b in blocks])[:-1])
    return EmbeddingJacobian(dict(zip(REGIONS, parts[:4], strict=True)), parts[4], parts[5], average - mean @ solved)
