"""IDDiffuse's ensemble identity E_I: one space out of several recognisers, so that no single one is fooled alone
(section 3.1).

The unit vectors of ArcFace, FaRL and FaceNet are laid side by side, 3 x 512 numbers, and an MLP of 2048, 1024 and 512
numbers maps them to a unit vector. It is taught with triplets: two photos of a person nearer than photos of two people,
by a margin.
Each recogniser's vector has unit length before they are joined, or the one with the longest vectors would outvote the
others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, WeightsError
from ..images import write_whole
from ..progress import Progress, silent
from ..stored import read_safetensors
from .calibration import LEAST_PAIRS, threshold_at
from .embedder import Embedder

FORMAT = "faceveil.ensemble/1"
REMEDY = "train one with: faceveil train ensemble --people DIR"
HIDDEN = (2048, 1024, 512)
FALSE_MATCH = 1e-3
FEWEST = 12


class EnsembleMapper(nn.Module):
    """E_I: joined unit vectors ``(B, sum D)`` to unit vectors ``(B, 512)``.

    Args:
        spaces: of the recognisers, in the order in which their vectors are joined.
        dimensions: of each.
        threshold: L2 distance below which two faces are of one person; the training measures it.
    """

    def __init__(self, spaces: Sequence[str], dimensions: Sequence[int], threshold: float = math.nan) -> None:
        super().__init__()
        self.spaces, self.dimensions, self.threshold = tuple(spaces), tuple(dimensions), threshold
        sizes = [sum(dimensions), *HIDDEN]
        layers: list[nn.Module] = []
        for given, made in pairwise(sizes):
            layers += [nn.Linear(given, made), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    @property
    def space(self) -> str:
        return "ensemble:" + "+".join(self.spaces)

    def forward(self, joined: Tensor) -> Tensor:
        parts = (nn.functional.normalize(part) for part in joined.split(self.dimensions, 1))
        return nn.functional.normalize(self.layers(torch.cat(list(parts), 1)))


class EnsembleEmbedder(Embedder):
    """E_I of a face, from the recognisers that it was trained with.

    Raises:
        InputError: the recognisers are not those of the mapper, in its order.
    """

    def __init__(self, mapper: EnsembleMapper, embedders: Sequence[Embedder]) -> None:
        given = tuple(e.space for e in embedders)
        if given != mapper.spaces:
            raise InputError(f"this ensemble joins {', '.join(mapper.spaces)}, got {', '.join(given) or 'none'}")
        self._mapper, self._embedders, self.space = mapper.eval(), tuple(embedders), mapper.space

    @property
    def threshold(self) -> float:
        return self._mapper.threshold

    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        joined = np.concatenate([e.embed(picture, points) for e in self._embedders])
        with torch.no_grad():
            answer: Tensor = self._mapper(torch.from_numpy(joined).float()[None])
        return answer[0].numpy()


@dataclass(frozen=True)
class Recipe:
    """How E_I is trained.

    Attributes:
        margin: the paper's alpha, which it does not give; between squared distances of unit vectors, so of 0 to 4.
        people, views: of a batch; each view is compared with every other one.
        epochs: each shows every person once; the paper's number.
    """

    margin: float = 0.2
    people: int = 32
    views: int = 4
    epochs: int = 50
    rate: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 2 or self.views < 2 or self.epochs < 1:
            raise InputError("a batch needs at least 2 people with 2 views each, and the training at least 1 epoch")


def triplet_loss(mapped: Tensor, people: Tensor, margin: float) -> Tensor:
    """``mean max(|a - p|^2 - |a - n|^2 + margin, 0)`` over the triplets of a batch that still cost something.

    Args:
        mapped: unit vectors ``(B, D)``.
        people: whose they are, ``(B,)``.
    """
    apart = (2 - 2 * mapped @ mapped.T).clamp(min=0)
    same = people[:, None] == people[None]
    positive = same & ~torch.eye(len(people), dtype=torch.bool, device=people.device)
    # One row an anchor: each of its positives against each of its negatives.
    cost = apart[:, :, None] - apart[:, None, :] + margin
    valid = positive[:, :, None] & ~same[:, None, :]
    costly = cost[valid].clamp(min=0)
    return costly.sum() / (costly > 0).sum().clamp(min=1)


def train_ensemble(
    joined: np.ndarray,
    people: np.ndarray,
    spaces: Sequence[str],
    dimensions: Sequence[int],
    recipe: Recipe,
    progress: Progress = silent,
) -> EnsembleMapper:
    """Learn E_I.

    Args:
        joined: ``(N, sum D)``, the recognisers' unit vectors side by side.
        people: whose they are, ``(N,)``.

    Raises:
        InputError: fewer than 12 people with two photos each, or values that are not finite.
    """
    if joined.shape != (len(people), sum(dimensions)) or not np.isfinite(joined).all():
        raise InputError(
            f"an ensemble of {sum(dimensions)} numbers needs finite vectors of that size, got {joined.shape}"
        )
    photos = [np.flatnonzero(people == p) for p in np.unique(people)]
    photos = [rows for rows in photos if len(rows) > 1]
    if len(photos) < FEWEST:
        raise InputError(f"an ensemble needs photos of at least {FEWEST} people, and two of each; add some")
    torch.manual_seed(recipe.seed)
    mapper = EnsembleMapper(spaces, dimensions)
    optimiser = torch.optim.Adam(mapper.parameters(), lr=recipe.rate)
    data, rng = torch.from_numpy(joined).float(), np.random.default_rng(recipe.seed)
    batches = math.ceil(len(photos) / recipe.people)
    for epoch in range(recipe.epochs):
        progress(epoch, recipe.epochs, "learning the ensemble")
        for batch in np.array_split(rng.permutation(len(photos)), batches):
            rows = np.concatenate(
                [rng.choice(photos[p], recipe.views, replace=len(photos[p]) < recipe.views) for p in batch]
            )
            loss = triplet_loss(mapper(data[rows]), torch.from_numpy(np.repeat(batch, recipe.views)), recipe.margin)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    progress(recipe.epochs, recipe.epochs, "learning the ensemble")
    with torch.no_grad():
        # One photo of each: all pairs are strangers. With few people the rate is as small as they can tell.
        shown = mapper.eval()(data[[rows[0] for rows in photos]]).double().numpy()
    mapper.threshold = threshold_at(shown, max(FALSE_MATCH, LEAST_PAIRS / (len(shown) * (len(shown) - 1) / 2)))
    return mapper


def save_ensemble(path: Path, mapper: EnsembleMapper) -> None:
    """Write a mapper as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    shape = json.dumps({"spaces": mapper.spaces, "dimensions": mapper.dimensions, "threshold": mapper.threshold})
    write_whole(path, save(mapper.state_dict(), {"format": FORMAT, "ensemble": shape}))


def load_ensemble(path: Path) -> EnsembleMapper:
    """Open a mapper.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    tensors, metadata = read_safetensors(path, "ensemble", REMEDY)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name} is not an ensemble of format {FORMAT}; {REMEDY}")
    try:
        mapper = EnsembleMapper(**json.loads(metadata["ensemble"]))
        mapper.load_state_dict(tensors)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.name} was cut off or made by another version ({type(error).__name__}); train or fetch it again"
        ) from None
    return mapper.eval()
