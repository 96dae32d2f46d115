"""Banks of synthetic people: duplicates, nearest free person, files, pseudonyms, command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.bank import build_bank, load_bank
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.pseudonym import Pseudonyms


def unit(*rows) -> np.ndarray:
    vectors = np.array(rows, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def bank(tmp_path):
    vectors = unit([1, 0, 0], [1, 0.05, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1])
    return build_bank(
        tmp_path / "people", [(v, torch.full((1, 3, 256, 256), i / 10)) for i, v in enumerate(vectors)], "test", 0.4
    )


def test_duplicates_are_skipped(bank) -> None:
    assert len(bank) == 4 and np.allclose(bank.identities.vectors, unit([1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]))
    assert [round(float(bank.portrait(i).mean()) * 10) for i in range(4)] == [0, 2, 3, 4]


def test_the_nearest_free_person_is_different_enough(bank) -> None:
    person = Identity(unit([1, 0.1, 0]), "test")
    assert bank.nearest_free(person, min_distance=0.0) == 0
    assert bank.nearest_free(person) == 1
    assert bank.nearest_free(person, taken={1}) == 2
    assert set(bank.different_from(person)) == {1, 2, 3}
    with pytest.raises(InputError, match="none of the 4 synthetic people is free"):
        bank.nearest_free(person, taken={1, 2, 3})
    with pytest.raises(InputError, match="cannot be mixed"):
        bank.nearest_free(Identity(unit([1, 0, 0]), "dlib"))


def test_a_bank_round_trips_and_contains_no_source_names(bank, tmp_path) -> None:
    loaded = load_bank(tmp_path / "people")
    assert np.allclose(loaded.identities.vectors, bank.identities.vectors)
    assert (loaded.space, loaded.threshold) == ("test", 0.4)
    assert sorted(p.name for p in (tmp_path / "people").iterdir()) == [
        "00000.webp",
        "00001.webp",
        "00002.webp",
        "00003.webp",
        "bank.safetensors",
    ]
    with pytest.raises(InputError, match="is not empty"):
        build_bank(tmp_path / "people", [], "test", 0.4)
    with pytest.raises(InputError, match="no face was found"):
        build_bank(tmp_path / "none", [], "test", 0.4)
    with pytest.raises(InputError, match=r"bank none: bank\.safetensors does not exist; build one with"):
        load_bank(tmp_path / "none")
    data = (tmp_path / "people" / "bank.safetensors").read_bytes()
    (tmp_path / "people" / "bank.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not a complete safetensors"):
        load_bank(tmp_path / "people")


def test_pseudonyms_with_a_bank(tmp_path) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(*rng.normal(size=(9, 128)))
    bank = build_bank(tmp_path / "people", [(v, torch.zeros(1, 3, 256, 256)) for v in vectors], "dlib", 0.4)
    # Random vectors are more alike than people: under one of many keys two of them count as one person.
    (tmp_path / "mine.key").write_bytes(bytes(range(32)))
    pseudonyms = Pseudonyms.open(tmp_path, "mine", bank=bank)
    people = [Identity(v, "dlib") for v in unit(*rng.normal(size=(5, 128)))]
    assigned = [pseudonyms.assign(p) for p in people]
    assert len({number for number, _ in assigned}) == 5
    assert all(np.allclose(identity.vector, bank.identities[number].vector) for number, identity in assigned)
    reopened = Pseudonyms.open(tmp_path, "mine", bank=bank)
    assert [reopened.assign(p)[0] for p in people] == [number for number, _ in assigned]


def test_commands_bank_and_calibrate(portrait_file, tmp_path, capsys) -> None:
    (tmp_path / "faces").mkdir()
    portrait_file.rename(tmp_path / "faces" / "anna.png")
    assert main(["bank", str(tmp_path / "faces"), "-o", str(tmp_path / "people"), "--workers", "1"]) == OK
    assert "1 synthetic people, embedded with dlib" in capsys.readouterr().out
    assert load_bank(tmp_path / "people").portrait(0).shape == (1, 3, 256, 256)
    assert main(["calibrate", str(tmp_path / "faces"), "--workers", "1"]) == OK
    assert "too few pairs" in capsys.readouterr().out
