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
WIDTH = (-0.12, 0.05)
"""Limits of the movement of both sides of the jaw outward, in inter-ocular distances."""
SCALES = np.array([0.1, 0.1, 0.05])
"""Excess of each measure that counts as 1: plainly visible."""
_JAW_LEFT, _JAW_RIGHT = np.arange(2, 7), np.arange(10, 15)


@dataclass(frozen=True)
class Parts:
    """Texture codes ``(K,)`` and landmark displacements ``(68, 2)`` of each region of a new face in one photo."""

    textures: list[np.ndarray]
    moves: list[np.ndarray]


class Naturalness:
    """Measures the contrast of the brows, the tone between them, and the movement of the jaw outward."""

    def __init__(self, model: AppearanceModel) -> None:
        self._weights = _weights(model.canonical)
        # Derivatives (2, K) of the tones with respect to each region's texture codes: decoding is linear, and the mean
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
        self._offset = self.tones(model.packer.unpack(means))

    def tones(self, detail: Tensor) -> np.ndarray:
        """The two measures of tone ``(2,)`` of reflectance detail ``(1, 3, 256, 256)``."""
        return (detail.mean(1) * self._weights).sum((1, 2)).double().numpy()

    def limits(self, subject: Subject) -> np.ndarray:
        """Limits ``(3, 2)`` of the measures of a new face in this photo."""
        contrast, frown = self.tones(subject.fitted)
        contrast = min(contrast, 0.0)
        return np.array(
            [
                [CONTRAST[0] * contrast - CONTRAST_SLACK, CONTRAST[1] * contrast],
                [frown + FROWN[0], frown + FROWN[1]],
                WIDTH,
            ]
        )

    def measure(self, parts: Parts) -> np.ndarray:
        """Measure a new face; returns ``(3,)``."""
        tone = self._offset + sum(self._textures[n] @ t for n, t in zip(REGIONS, parts.textures, strict=True))
        return np.append(tone, sum(_outward(m) for m in parts.moves))

    def excess(self, measures: np.ndarray, limits: np.ndarray) -> float:
        """Sum of how far measures ``(3,)`` are beyond ``limits`` ``(3, 2)``, in units of ``SCALES``."""
        return float((np.abs(np.clip(measures, *limits.T) - measures) / SCALES).sum())

    def response(self, model: AppearanceModel, name: str, moves: np.ndarray) -> np.ndarray:
        """Derivatives ``(3, Z)`` with respect to a region's ``z``, from those of the displacements ``(Z, 136)``."""
        region = model.regions[name]
        tones = self._textures[name] @ region.residual[: region.components]
        return np.concatenate([tones, _outward(moves.reshape(-1, 68, 2))[None]])


def _outward(moves: np.ndarray) -> np.ndarray:
    """Mean movement of the jaw's sides outward, from displacements ``(..., 68, 2)``."""
    x = moves[..., 0]
    return np.asarray(x[..., _JAW_RIGHT].mean(-1) - x[..., _JAW_LEFT].mean(-1)) / 2


def _weights(canonical: CanonicalSpace) -> Tensor:
    """Weights ``(2, 256, 256)`` of the pixels in the two measures of tone."""
    x, y = canonical.xy
    brows = canonical.brows[0, 0]
    around = (dilate(canonical.brows, 0.12)[0, 0] - brows) * (1 - dilate(canonical.eyes, 0.08)[0, 0])
    between = smooth_step(0.12 - x.abs(), 0, 0.05) * smooth_step(y, -0.42, -0.34) * smooth_step(-y, 0.02, 0.10)
    forehead = smooth_step(0.45 - x.abs(), 0, 0.1) * smooth_step(y, -0.75, -0.65) * smooth_step(-y, 0.42, 0.5)
    pairs = ((brows**4, around), (between, forehead))
    return torch.stack([a / a.sum() - b / b.sum() for a, b in pairs])
