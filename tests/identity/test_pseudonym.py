"""Pseudonyms: stable, distinct, unlinkable, and a ledger that tells nothing."""

from __future__ import annotations

import numpy as np
import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.pseudonym import Key, Ledger, Pseudonyms
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.people import identity_in


@pytest.fixture(scope="module")
def sampler():
    return builtin_sampler("dlib")


@pytest.fixture(scope="module")
def people(sampler) -> np.ndarray:
    """Thirty who are strangers to each other, in the standardized space."""
    kept: list[np.ndarray] = []
    for person in sampler.sample(400, 0).vectors:
        if all(sampler.cosine(person, other)[0, 0] < 0.45 for other in kept):
            kept.append(person)
    return np.stack(kept[:30])


def view(sampler, person: np.ndarray, seed: int) -> Identity:
    """Another photo of a person: as far from the first as two real photos are (cosine about .84)."""
    standard = sampler.standardize(person)
    noise = np.random.default_rng(seed).normal(size=len(standard))
    noise *= 0.65 * np.linalg.norm(standard) / np.linalg.norm(noise)
    return Identity((standard + noise) * sampler.std + sampler.mean, "dlib")


def ledger(sampler, key: Key, size: int = 200) -> Ledger:
    return Ledger(key, size, sampler.mean, sampler.std)


def test_everybody_keeps_a_number_and_nobody_shares_one(sampler, people, tmp_path) -> None:
    key = Key.new()
    names = ledger(sampler, key)
    numbers = [names.number(Identity(p, "dlib")) for p in people]
    assert len(set(numbers)) == len(people)
    assert [names.number(view(sampler, p, i)) for i, p in enumerate(people)] == numbers
    names.save(tmp_path / "ledger.json")
    tomorrow = ledger(sampler, key)
    tomorrow.load(tmp_path / "ledger.json")
    assert [tomorrow.number(view(sampler, p, 100 + i)) for i, p in enumerate(people)] == numbers


def test_a_bad_photo_does_not_take_the_name_away(sampler, people) -> None:
    """Somebody who was once enrolled twice keeps the older name; somebody else's own entry wins over an older one that
    fits a little."""
    names = ledger(sampler, Key.new())
    first = names.number(Identity(people[0], "dlib"))
    poor = view(sampler, people[0], 5)
    names._enrol(names._decide(poor.vector))
    between = Identity(people[0] + 1.2 * poor.vector, "dlib")
    counts = names.agreements(between)
    assert counts[1] > counts[0] >= names.least and names.number(between) == first
    other = names.number(Identity(people[1], "dlib"))
    assert other != first and names.number(Identity(people[1] + 0.05 * people[0], "dlib")) == other


def test_keys_are_unlinkable(sampler, people) -> None:
    names = [ledger(sampler, Key.new(), 5000) for _ in range(2)]
    a, b = ([n.number(Identity(p, "dlib")) for p in people] for n in names)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.6
    assert len(set(a) & set(b)) <= 2


def test_a_ledger_without_its_key_tells_nothing(sampler, people) -> None:
    """Hashes of two like faces agree as rarely as those of strangers; a wrong key finds nobody."""
    key = Key.new()
    names = ledger(sampler, key)
    like, strange = [], []
    for i, person in enumerate(people):
        a, b = (names._decide(v) for v in (person, view(sampler, person, i).vector))
        names._enrol(a)
        names._enrol(b)
        first, second = names.entries[-2:]
        like.append(int((first.hashes == second.hashes).sum()))
        if i:
            strange.append(int((first.hashes == names.entries[0].hashes).sum()))
    # 1024 hashes of 16 bits meet by chance once in 64 pairs.
    assert max(like) <= 1 and max(strange) <= 1
    thief = ledger(sampler, Key.new())
    thief.entries = names.entries
    counts = [max(thief.agreements(Identity(p, "dlib"))) for p in people[:5]]
    assert max(counts) <= 2


def test_a_full_bank_and_bad_files_are_refused(sampler, people, tmp_path) -> None:
    key = Key.new()
    small = ledger(sampler, key, 2)
    for person in people[:2]:
        small.number(Identity(person, "dlib"))
    with pytest.raises(InputError, match="all 2 synthetic identities are taken"):
        small.number(Identity(people[2], "dlib"))
    small.save(tmp_path / "l.json")
    with pytest.raises(InputError, match="another key or bank"):
        ledger(sampler, Key.new(), 2).load(tmp_path / "l.json")
    (tmp_path / "l.json").write_text("[]")
    with pytest.raises(InputError, match="not a pseudonym ledger"):
        ledger(sampler, key, 2).load(tmp_path / "l.json")
    with pytest.raises(InputError, match="32 bytes"):
        Key(b"short")
    assert "secret" not in repr(Key.new())


def test_pseudonyms_of_real_people_are_stable_and_distinct(photos, tmp_path) -> None:
    names = Pseudonyms.open(tmp_path, "mine", 100)
    found = {p.stem: names.of(identity_in(load_image(p).pixels)) for p in photos if p.stem.startswith("person_")}
    again = Pseudonyms.open(tmp_path, "mine", 100)
    numbers = {name: number for name, (number, _) in found.items()}
    assert (
        numbers["person_a_1"] == numbers["person_a_2"]
        and numbers["person_b_1"] == numbers["person_b_2"]
        and numbers["person_c_1"] == numbers["person_c_2"]
    )
    assert len(set(numbers.values())) == 3
    for p in photos:
        if p.stem.startswith("person_"):
            number, shown = again.of(identity_in(load_image(p).pixels))
            assert number == numbers[p.stem] and np.array_equal(shown.vectors, found[p.stem][1].vectors)
    assert (tmp_path / "mine.key").stat().st_mode & 0o077 == 0
