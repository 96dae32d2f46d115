"""IDDiffuse's ensemble identity E_I: one space out of several recognizers, so that no single one is fooled alone
(section 3.1).

The unit vectors of ArcFace, FaRL and FaceNet are laid side by side, 3 x 512 numbers, and an MLP of 2048, 1024 and 512
numbers maps them to a unit vector. It is taught with triplets: two photos of a person nearer than photos of two people,
by a margin.
Each recognizer's vector has unit length before they are joined, or the one with the longest vectors would outvote the
others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import InputError, WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors
from ..recognition.base import FaceRecognizer, unit
from ..recognition.thresholds import Threshold

FORMAT = "faceveil.ensemble/1"
REMEDY = "train one with: faceveil train ensemble --people DIR"
HIDDEN = (2048, 1024, 512)
FALSE_MATCH_RATE = 1e-3
MIN_FACES = 12


class EnsembleMapper(nn.Module):
    """E_I: joined unit vectors ``(B, sum D)`` to unit vectors ``(B, 512)``.

    Args:
        spaces: of the recognizers, in the order in which their vectors are joined.
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


class EnsembleRecognizer(FaceRecognizer):
    """E_I of a face, from the recognizers that the mapper was trained with.

    Raises:
        InputError: the recognizers are not those of the mapper, in its order.
    """

    dimension = HIDDEN[-1]
    alignment = "each recognizer's own"

    def __init__(self, mapper: EnsembleMapper, recognizers: Sequence[FaceRecognizer]) -> None:
        given = tuple(r.name for r in recognizers)
        if given != mapper.spaces:
            raise InputError(f"this ensemble joins {', '.join(mapper.spaces)}, got {', '.join(given) or 'none'}")
        self._mapper, self._recognizers, self.name = mapper.eval(), tuple(recognizers), mapper.space

    def threshold_at(self, false_match_rate: float | None = None) -> Threshold:
        return Threshold(self._mapper.threshold, FALSE_MATCH_RATE, "measured when the ensemble was trained")

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([unit(r.embed_many(images, landmarks)) for r in self._recognizers], 1)
        with torch.no_grad():
            vectors: Tensor = self._mapper(torch.from_numpy(joined).float())
        return vectors.double().numpy()


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
