"""The ensemble identity of IDDiffuse: layer sizes, normalization, files, order of the recognizers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.ensemble import EnsembleMapper, EnsembleRecognizer, load_ensemble, save_ensemble
from faceveil.pipelines.recognition.base import FaceRecognizer
from torch import Tensor

SPACES, SIZES = ("arcface-w600k", "farl-ep64", "facenet-vggface2"), (512, 512, 512)


class ConstantRecognizer(FaceRecognizer):
    """Returns the same embedding for every face."""

    dimension = 512
    alignment = "none"

    def __init__(self, name: str) -> None:
        self.name = name

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        return np.tile(np.arange(1.0, 513.0), (len(images), 1))


def test_layer_sizes_are_those_of_the_paper() -> None:
    mapper = EnsembleMapper(SPACES, SIZES)
    assert [tuple(p.shape) for n, p in mapper.named_parameters() if n.endswith("weight")] == [
        (2048, 1536),
        (1024, 2048),
        (512, 1024),
    ]
    assert torch.allclose(mapper(torch.randn(3, 1536)).norm(dim=1), torch.ones(3))


def test_the_length_of_an_embedding_does_not_matter() -> None:
    mapper, joined = EnsembleMapper(SPACES, SIZES), torch.randn(2, 1536)
    scaled = torch.cat([joined[:, :512], joined[:, 512:1024] * 50, joined[:, 1024:]], 1)
    assert torch.allclose(mapper(joined), mapper(scaled), atol=1e-5)


def test_files_round_trip_and_damaged_ones_raise(tmp_path) -> None:
    mapper, joined = EnsembleMapper(SPACES, SIZES, 0.7).eval(), torch.randn(2, 1536)
    save_ensemble(tmp_path / "e.safetensors", mapper)
    loaded = load_ensemble(tmp_path / "e.safetensors")
    assert loaded.spaces == SPACES and loaded.threshold == 0.7
    with torch.no_grad():
        assert torch.equal(loaded(joined), mapper(joined))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "e.safetensors").read_bytes()[:100])
    with pytest.raises(WeightsError, match="not a complete safetensors"):
        load_ensemble(tmp_path / "cut.safetensors")


def test_the_recognizers_must_be_in_order(portrait, portrait_faces) -> None:
    mapper = EnsembleMapper(SPACES, SIZES, 0.7)
    recognizer = EnsembleRecognizer(mapper, [ConstantRecognizer(s) for s in SPACES])
    assert recognizer.threshold == 0.7 and recognizer.name == "ensemble:" + "+".join(SPACES)
    assert recognizer.embed(portrait, portrait_faces[0].points).shape == (512,)
    with pytest.raises(
        InputError, match="this ensemble joins arcface-w600k, farl-ep64, facenet-vggface2, got farl-ep64"
    ):
        EnsembleRecognizer(mapper, [ConstantRecognizer("farl-ep64")])
