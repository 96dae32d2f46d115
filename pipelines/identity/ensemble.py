"""The ensemble identity E_I of IDDiffuse (section 3.1): one embedding space computed from several recognizers.

The unit vectors of ArcFace, FaRL and FaceNet are concatenated to 3 x 512 numbers. An MLP with layers of 2048, 1024 and
512 units maps them to one unit vector. It is trained with a triplet loss: two photos of one person must be closer, by a
margin, than photos of two people.

Each recognizer's vector is normalized to unit length before the concatenation. Otherwise the recognizer with the
longest vectors would dominate.
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
from ..recognition.thresholds import MAX_DISTANCE, Threshold

FORMAT = "faceveil.ensemble/1"
REMEDY = "train one with: faceveil train ensemble --people DIR"
HIDDEN = (2048, 1024, 512)
FALSE_MATCH_RATE = 1e-3
"""The false-match rate that the threshold of a trained ensemble belongs to."""


class EnsembleMapper(nn.Module):
    """The MLP of E_I: maps concatenated embeddings ``(B, sum D)`` to unit vectors ``(B, 512)``.

    Args:
        spaces: names of the recognizers' spaces, in the order of concatenation.
        dimensions: number of dimensions D of each space.
        threshold: two outputs with a smaller L2 distance show the same person; measured after the training.
    """

    def __init__(self, spaces: Sequence[str], dimensions: Sequence[int], threshold: float = math.nan) -> None:
        super().__init__()
        self.spaces, self.dimensions, self.threshold = tuple(spaces), tuple(dimensions), threshold
        sizes = [sum(dimensions), *HIDDEN]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    @property
    def space(self) -> str:
        return "ensemble:" + "+".join(self.spaces)

    def forward(self, joined: Tensor) -> Tensor:
        parts = (nn.functional.normalize(part) for part in joined.split(self.dimensions, 1))
        return nn.functional.normalize(self.layers(torch.cat(list(parts), 1)))


class EnsembleRecognizer(FaceRecognizer):
    """A recognizer that computes E_I from the embeddings of several recognizers.

    Args:
        mapper: a trained mapper.
        recognizers: those that the mapper was trained with, in the same order.

    Raises:
        InputError: the recognizers are not those of the mapper, or not in its order.
    """

    dimension = HIDDEN[-1]
    alignment = "each recognizer's own"

    def __init__(self, mapper: EnsembleMapper, recognizers: Sequence[FaceRecognizer]) -> None:
        given = tuple(r.name for r in recognizers)
        if given != mapper.spaces:
            raise InputError(f"this ensemble joins {', '.join(mapper.spaces)}, got {', '.join(given) or 'none'}")
        self._mapper, self._recognizers, self.name = mapper.eval(), tuple(recognizers), mapper.space

    def _known_threshold(self, false_match_rate: float | None) -> Threshold:
        return Threshold(self._mapper.threshold, FALSE_MATCH_RATE, "measured when the ensemble was trained")

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([unit(r.embed_many(images, landmarks)) for r in self._recognizers], 1)
        with torch.no_grad():
            vectors: Tensor = self._mapper(torch.from_numpy(joined).float())
        return vectors.double().numpy()


def save_ensemble(path: Path, mapper: EnsembleMapper) -> None:
    """Write a mapper as a safetensors file.

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
        if not 0 < mapper.threshold < MAX_DISTANCE:
            raise ValueError(mapper.threshold)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is incomplete or of another version ({type(error).__name__}); train or download it again"
        ) from None
    return mapper.eval()
