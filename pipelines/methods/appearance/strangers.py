"""Strangers: people of the training set whom the search starts from, with traits like those of the original."""

from __future__ import annotations

import numpy as np
import torch

from ...training.labels import LABELS
from .canonical import REGIONS
from .network import TRAITS, AppearanceModel

NEAREST_PEOPLE = 140
"""Number of people with the most similar traits, among whom strangers are drawn."""
TRAIT_WEIGHTS = {"male": 3.0, "age": 3.0}
"""Weights of traits in the similarity of people; 1 for all others."""
MAX_START = 1.1
"""Largest strain of a stranger's codes."""


def strain(codes: np.ndarray) -> float:
    """Root mean square of codes ``(Z,)``: 1 for a typical person, more for one who looks strained."""
    return float(np.sqrt((codes**2).mean()))


def strangers(model: AppearanceModel, traits: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of ``model.people``, those with the most similar traits first.

    Args:
        traits: of the original, ``(12,)``.
        count: drawn at random among the ``NEAREST_PEOPLE``.
    """
    weights = np.array([TRAIT_WEIGHTS.get(name, 1.0) for name in LABELS] + [1.0] * (len(TRAITS) - len(LABELS)))
    differences = (model.people.traits - traits) * weights
    similar = np.argsort((differences**2).sum(1), kind="stable")[:NEAREST_PEOPLE]
    order = torch.randperm(len(similar), generator=torch.Generator().manual_seed(seed)).numpy()
    return np.asarray(similar[np.sort(order[:count])])


def codes_of(model: AppearanceModel, person: int) -> np.ndarray:
    """Codes ``(Z,)`` of all regions of one of the model's people, less strained where they are beyond ``MAX_START``."""
    codes = np.concatenate([model.people.codes[name][person] for name in REGIONS])
    return codes * min(1.0, MAX_START / strain(codes))
