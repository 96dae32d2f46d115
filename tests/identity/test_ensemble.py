"""IDDiffuse's ensemble identity: layers, loss, and that learning brings one person's photos together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.ensemble import EnsembleMapper, EnsembleRecognizer, load_ensemble, save_ensemble
from faceveil.pipelines.recognition.base import FaceRecognizer
from faceveil.pipelines.training.ensemble import Recipe, train_ensemble, triplet_loss

SPACES, SIZES = ("arcface-w600k", "farl-ep64", "facenet-vggface2"), (512, 512, 512)


def crowd(people: int, photos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three recognizers' vectors of several photos: who it is lies in 24 directions, and light and pose in 24 others,
    twice as strong."""
    rng = np.random.default_rng(seed)
    parts = []
    for part in range(3):
        persons, lights = np.random.default_rng(100 + part).normal(size=(2, 24, 512))
        who = rng.normal(size=(people, 24)) @ persons
        photo = np.repeat(who, photos, 0) + 2 * rng.normal(size=(people * photos, 24)) @ lights
        parts.append(photo / np.linalg.norm(photo, axis=1, keepdims=True))
    return np.concatenate(parts, 1), np.repeat(np.arange(people), photos)


def separation(vectors: np.ndarray, people: np.ndarray) -> float:
    """How much nearer photos of one person are than photos of two, in standard deviations."""
    cosines = vectors @ vectors.T
    same = (people[:, None] == people[None]) & ~np.eye(len(people), dtype=bool)
    other = people[:, None] != people[None]
    return float(
        (cosines[same].mean() - cosines[other].mean()) / np.sqrt((cosines[same].var() + cosines[other].var()) / 2)
    )


def test_layers_are_the_papers() -> None:
    mapper = EnsembleMapper(SPACES, SIZES)
    assert [tuple(p.shape) for n, p in mapper.named_parameters() if n.endswith("weight")] == [
        (2048, 1536),
        (1024, 2048),
        (512, 1024),
    ]
    assert torch.allclose(mapper(torch.randn(3, 1536)).norm(dim=1), torch.ones(3))


def test_no_recognizer_outvotes_the_others() -> None:
    mapper, joined = EnsembleMapper(SPACES, SIZES), torch.randn(2, 1536)
    longer = torch.cat([joined[:, :512], joined[:, 512:1024] * 50, joined[:, 1024:]], 1)
    assert torch.allclose(mapper(joined), mapper(longer), atol=1e-5)


def test_the_loss_is_the_papers() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    people, costs = [0, 0, 0, 1, 1, 2, 2], []
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if a != p and people[a] == people[p] != people[n]:
                    costs.append(
                        max(
                            float((vectors[a] - vectors[p]).square().sum() - (vectors[a] - vectors[n]).square().sum())
                            + 0.2,
                            0,
                        )
                    )
    costly = [c for c in costs if c > 0]
    assert float(triplet_loss(vectors, torch.tensor(people), 0.2)) == pytest.approx(sum(costly) / len(costly), rel=1e-5)


def test_learning_tells_unseen_people_apart_better(tmp_path) -> None:
    joined, people = crowd(300, 5)
    mapper = train_ensemble(joined, people, SPACES, SIZES, Recipe(epochs=6))
    fresh, owners = crowd(40, 4, seed=1)
    with torch.no_grad():
        mapped = mapper(torch.from_numpy(fresh).float()).numpy()
    assert separation(mapped, owners) > 1.5 * separation(fresh / np.sqrt(3), owners)
    save_ensemble(tmp_path / "e.safetensors", mapper)
    again = load_ensemble(tmp_path / "e.safetensors")
    assert again.spaces == SPACES and again.threshold == mapper.threshold
    with torch.no_grad():
        assert torch.equal(again(torch.from_numpy(fresh).float()), torch.from_numpy(mapped))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "e.safetensors").read_bytes()[:100])
    with pytest.raises(WeightsError, match="not a whole safetensors"):
        load_ensemble(tmp_path / "cut.safetensors")


def test_training_repeats_and_refuses() -> None:
    joined, people = crowd(14, 3)
    a, b = (train_ensemble(joined, people, SPACES, SIZES, Recipe(epochs=1)).state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(InputError, match="at least 12 people"):
        train_ensemble(joined[:9], people[:9], SPACES, SIZES, Recipe())
    with pytest.raises(InputError, match="finite vectors of that size"):
        train_ensemble(joined[:, :100], people, SPACES, SIZES, Recipe())


class _Fixed(FaceRecognizer):
    def __init__(self, space: str) -> None:
        self.space = space

    def _embed(self, picture, points) -> np.ndarray:
        return np.arange(1.0, 513.0)


def test_the_embedder_joins_in_order(portrait, portrait_faces) -> None:
    mapper = EnsembleMapper(SPACES, SIZES, 0.7)
    recognizer = EnsembleRecognizer(mapper, [_Fixed(s) for s in SPACES])
    assert recognizer.threshold == 0.7 and recognizer.name == "ensemble:" + "+".join(SPACES)
    assert recognizer.embed(portrait, portrait_faces[0].points).shape == (512,)
    with pytest.raises(
        InputError, match="this ensemble joins arcface-w600k, farl-ep64, facenet-vggface2, got farl-ep64"
    ):
        EnsembleRecognizer(mapper, [_Fixed("farl-ep64")])
