"""Linear measures of how natural a new face looks, each with limits that depend on the photo.

Recognizers are easily distracted by brows that fade, a frown, or a broad jaw, so a search would choose them often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .canonical import REGIONS, CanonicalSpace, dilate, smooth_step
from .network import AppearanceModel
from .render import Subject

CONTRAST = (1.5, 0.7)
"""Largest and smallest contrast of the new brows, as a share of the original's."""
CONTRAST_SLACK = 0.04
"""Additional range of the brows' contrast, in log reflectance, for light brows."""
FROWN = (-0.06, 0.12)
"""Limits of the change of tone between the brows, in log reflectance."""
SHADOW = (-0.05, 0.10)
"""Limits of the change of tone above the mouth and on the chin, in log reflectance: a shaved beard is a gray patch."""
WIDTH, NOSE_WIDTH = (-0.12, 0.05), (-0.04, 0.03)
"""Limits of the movement of both sides of the jaw, and of the nose, outward, in inter-ocular distances."""
STRETCH = (-0.3, 0.4)
"""Limits of the change of the distance between nose and mouth, as a share."""
SCALES = np.array([0.1, 0.1, 0.08, 0.08, 0.04, 0.03, 0.05])
"""Excess of each measure that counts as 1: plainly visible."""
LABEL_SLACK = 0.4
"""Tolerated change of the labels of apparent sex and age, in label units (of age: 25 years)."""
_SIDES = ((np.arange(2, 7), np.arange(10, 15)), (np.array([31, 32]), np.array([34, 35])))
"""Left and right landmarks of the jaw and the nose."""
_UNDER_NOSE, _UPPER_LIP = 33, 51


@dataclass(frozen=True)
class Parts:
    """Texture codes ``(K,)`` and landmark displacements ``(68, 2)`` of each region of a new face in one photo."""

    textures: list[np.ndarray]
    moves: list[np.ndarray]


class Naturalness:
    """Measures the contrast of the brows, the tones between them, above the mouth and on the chin, the movements of the
    jaw and of the nose outward, and that of the mouth away from the nose.

    Attributes:
        offset: the measures ``(7,)`` of a face whose codes and displacements are 0.
    """

    def __init__(self, model: AppearanceModel) -> None:
        self._weights = _weights(model.canonical)
        # Derivatives (4, K) of the tones with respect to each region's texture codes: decoding is linear, and the mean
        # of the color channels is the luma.
        self._textures: dict[str, np.ndarray] = {}
        for name, region in model.regions.items():
            matrix = np.empty((len(self._weights), region.components))
            for row, weight in zip(matrix, self._weights, strict=True):
                symmetric, antisymmetric = model.packer.luma_gradient(name, weight)
                row[region.sign > 0] = (symmetric @ region.even).numpy()
                row[region.sign < 0] = (antisymmetric @ region.odd).numpy()
            self._textures[name] = matrix
        means = {n: (r.mean, torch.zeros_like(r.mean)) for n, r in model.regions.items()}
        tones = self.tones(model.packer.unpack(means))
        self.offset = np.concatenate([tones, np.zeros(len(_SIDES) + 1)])

    def tones(self, detail: Tensor) -> np.ndarray:
        """The four measures of tone ``(4,)`` of reflectance detail ``(1, 3, 256, 256)``."""
        return (detail.mean(1) * self._weights).sum((1, 2)).double().numpy()

    def limits(self, subject: Subject) -> np.ndarray:
        """Limits ``(7, 2)`` of the measures of a new face in this photo."""
        contrast, *tones = self.tones(subject.fitted)
        contrast = min(contrast, 0.0)
        changes = np.array([FROWN, SHADOW, SHADOW])
        length = subject.shape[_UPPER_LIP, 1] - subject.shape[_UNDER_NOSE, 1]
        return np.array(
            [
                [CONTRAST[0] * contrast - CONTRAST_SLACK, CONTRAST[1] * contrast],
                *(np.array(tones)[:, None] + changes),
                WIDTH,
                NOSE_WIDTH,
                [share * length for share in STRETCH],
            ]
        )

    def measure(self, parts: Parts) -> np.ndarray:
        """Measure a new face; returns ``(7,)``."""
        pairs = zip(REGIONS, parts.textures, parts.moves, strict=True)
        return np.asarray(self.offset + sum(self.part(name, *pair) for name, *pair in pairs))

    def part(self, name: str, texture: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """What a region with codes ``(..., K)`` and displacements ``(..., 68, 2)`` adds to ``offset``; ``(..., 7)``."""
        return np.concatenate([texture @ self._textures[name].T, _movements(moves)], -1)

    def excess(self, measures: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Sum of how far measures ``(..., 7)`` are beyond ``limits`` ``(7, 2)``, in units of ``SCALES``."""
        return np.asarray((np.abs(np.clip(measures, *limits.T) - measures) / SCALES).sum(-1))

    def response(self, model: AppearanceModel, name: str, moves: np.ndarray) -> np.ndarray:
        """Derivatives ``(7, Z)`` with respect to a region's ``z``, from those of the displacements ``(Z, 136)``."""
        region = model.regions[name]
        tones = self._textures[name] @ region.residual[: region.components]
        return np.concatenate([tones, _movements(moves.reshape(-1, 68, 2)).T])


def label_excess(changes: np.ndarray) -> np.ndarray:
    """Sum of how far changes ``(..., L)`` of labels are beyond ``LABEL_SLACK``, ``(...,)``."""
    return np.asarray(np.maximum(np.abs(changes) - LABEL_SLACK, 0.0).sum(-1))


def _movements(moves: np.ndarray) -> np.ndarray:
    """Compute the three measures ``(..., 3)`` of displacements ``(..., 68, 2)``."""
    x, y = moves[..., 0], moves[..., 1]
    outward = [(x[..., right].mean(-1) - x[..., left].mean(-1)) / 2 for left, right in _SIDES]
    return np.stack([*outward, y[..., _UPPER_LIP] - y[..., _UNDER_NOSE]], -1)


def _weights(canonical: CanonicalSpace) -> Tensor:
    """Weights ``(4, 256, 256)`` of the pixels in the four measures of tone."""
    x, y = canonical.xy
    brows = canonical.brows[0, 0]
    around = (dilate(canonical.brows, 0.12)[0, 0] - brows) * (1 - dilate(canonical.eyes, 0.08)[0, 0])
    between = smooth_step(0.12 - x.abs(), 0, 0.05) * smooth_step(y, -0.42, -0.34) * smooth_step(-y, 0.02, 0.10)
    forehead = smooth_step(0.45 - x.abs(), 0, 0.1) * smooth_step(y, -0.75, -0.65) * smooth_step(-y, 0.42, 0.5)
    cheeks = smooth_step(0.16 - (x.abs() - 0.62).abs(), 0, 0.05) * smooth_step(0.15 - (y - 0.53).abs(), 0, 0.05)
    mustache = smooth_step(0.34 - x.abs(), 0, 0.08) * smooth_step(0.10 - (y - 0.81).abs(), 0, 0.05)
    chin = smooth_step(0.45 - x.abs(), 0, 0.1) * smooth_step(0.17 - (y - 1.57).abs(), 0, 0.05)
    pairs = ((brows**4, around), (between, forehead), (mustache, cheeks), (chin, cheeks))
    return torch.stack([a / a.sum() - b / b.sum() for a, b in pairs])
