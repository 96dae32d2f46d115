"""Identities: files, arithmetic, spaces."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.blend import average, away_from, perturb, slerp
from faceveil.pipelines.identity.compare import compare_identities
from faceveil.pipelines.identity.identity import Identity, load_identity, save_identity
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.people import embed_identities
from safetensors import safe_open
from safetensors.torch import save_file


def random_identity(seed: int = 0, count: int = 1, space: str = "dlib") -> Identity:
    return Identity(np.random.default_rng(seed).normal(size=(count, 128)), space)


def test_a_file_contains_only_vectors_space_recognizer_and_date(tmp_path) -> None:
    identity = random_identity(count=3)
    save_identity(tmp_path / "anna_smith.safetensors", identity, datetime.date(2026, 1, 2))
    loaded = load_identity(tmp_path / "anna_smith.safetensors", "dlib")
    assert loaded.space == "dlib" and np.abs(loaded.vectors - identity.vectors).max() < 1e-6
    with safe_open(str(tmp_path / "anna_smith.safetensors"), "pt") as file:
        assert file.metadata() == {
            "format": "faceveil.identity/1",
            "space": "dlib",
            "recognizer": "dlib",
            "date": "2026-01-02",
        }
    assert b"anna" not in (tmp_path / "anna_smith.safetensors").read_bytes()


def bad_files(path):
    save_identity(path / "good", random_identity())
    data = (path / "good").read_bytes()
    (path / "cut").write_bytes(data[:60])
    (path / "empty").write_bytes(b"")
    torch.save({"vectors": torch.ones(1, 4)}, path / "pickle")
    meta = {"format": "faceveil.identity/1", "space": "dlib"}
    save_file({"vectors": torch.full((1, 4), float("nan"))}, str(path / "nan"), meta)
    save_file({"vectors": torch.zeros(1, 4)}, str(path / "zero"), meta)
    save_file({"vectors": torch.ones(4)}, str(path / "flat"), meta)
    save_file({"other": torch.ones(1, 4)}, str(path / "lacking"), meta)
    save_file({"vectors": torch.ones(1, 4)}, str(path / "foreign"), {"format": "x"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut", "not a complete safetensors"),
        ("empty", "not a complete safetensors"),
        ("pickle", "not a complete safetensors"),
        ("nan", "zero or non-finite"),
        ("zero", "zero or non-finite"),
        ("flat", r"shape \(4,\)"),
        ("lacking", "not an identity of format"),
        ("foreign", "not an identity of format"),
        ("gone", "does not exist"),
    ],
)
def test_bad_files_raise_a_one_line_error(tmp_path, name, message) -> None:
    bad_files(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_identity(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_identities_of_different_spaces_cannot_be_mixed(tmp_path) -> None:
    other = random_identity(1, space="arcface-w600k")
    for operation in (
        lambda: slerp(random_identity(), other, 0.5),
        lambda: average([random_identity(), other]),
        lambda: random_identity().cosine(other),
        lambda: compare_identities(random_identity(), other),
    ):
        with pytest.raises(InputError, match="cannot be mixed"):
            operation()
    save_identity(tmp_path / "a", other)
    with pytest.raises(InputError, match="belongs to the recognizer arcface-w600k, but dlib is needed"):
        load_identity(tmp_path / "a", "dlib")


def test_blending() -> None:
    a, b = random_identity(0), random_identity(1)
    assert np.allclose(slerp(a, b, 0).vector, a.vector) and np.allclose(slerp(a, b, 1).vector, b.vector)
    half = slerp(a, b, 0.5)
    assert abs(half.cosine(a).item() - half.cosine(b).item()) < 1e-9
    assert slerp(a, b, 1.3).cosine(a).item() < a.cosine(b).item()
    assert away_from(a, b, 0.5).cosine(b).item() < a.cosine(b).item()
    assert np.allclose(average([a, b]).vector, half.vector)
    assert np.allclose(average([a, b], [1, 0]).vector, a.vector)
    assert np.allclose(slerp(a, a, 0.7).vector, a.vector)
    with pytest.raises(InputError, match="weights must be"):
        average([a, b], [0, 0])


def test_perturbation_grows_with_scale_and_is_deterministic() -> None:
    identity = random_identity()
    cosines = [perturb(identity, scale, 3).cosine(identity).item() for scale in (0.05, 0.15, 0.40)]
    assert cosines[0] > cosines[1] > cosines[2]
    assert np.array_equal(perturb(identity, 0.2, 1).vectors, perturb(identity, 0.2, 1).vectors)
    assert not np.allclose(perturb(identity, 0.2, 1).vectors, perturb(identity, 0.2, 2).vectors)
    with pytest.raises(InputError, match=r"between 0\.05 and 0\.4"):
        perturb(identity, 0.9, 0)


def test_photos_of_one_person_match_and_others_do_not(photos) -> None:
    people = {p.stem: embed_identities(load_image(p).pixels) for p in photos if p.stem.startswith("person_")}
    for a in people:
        for b in people:
            if a < b:
                assert compare_identities(people[a], people[b]).same == (a[:8] == b[:8]), (a, b)
