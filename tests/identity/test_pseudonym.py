"""Pseudonyms: stability, distinctness, unlinkability, and what a ledger reveals."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.ledger import Key, Ledger
from faceveil.pipelines.identity.pseudonym import REGIONS, Pseudonyms
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.people import embed_identities


@pytest.fixture(scope="module")
def sampler():
    return builtin_sampler("dlib")


@pytest.fixture(scope="module")
def people(sampler) -> np.ndarray:
    """Embeddings of 30 people with pairwise cosines below .45 in the standardized space."""
    kept: list[np.ndarray] = []
    for person in sampler.sample(400, 0).vectors:
        if all(sampler.cosine(person, other)[0, 0] < 0.45 for other in kept):
            kept.append(person)
    return np.stack(kept[:30])


def view(sampler, person: np.ndarray, seed: int) -> Identity:
    """Simulate the embedding of another photo of a person, at the distance of two real photos (cosine about .84)."""
    standard = sampler.standardize(person)
    noise = np.random.default_rng(seed).normal(size=len(standard))
    noise *= 0.65 * np.linalg.norm(standard) / np.linalg.norm(noise)
    return Identity((standard + noise) * sampler.std + sampler.mean, "dlib")


def new_ledger(sampler, key: Key, capacity: int = 200) -> Ledger:
    return Ledger(key, capacity, sampler.mean, sampler.std)


def test_pseudonyms_are_stable_and_distinct(sampler, people, tmp_path) -> None:
    key = Key.new()
    ledger = new_ledger(sampler, key)
    numbers = [ledger.number(Identity(p, "dlib")) for p in people]
    assert len(set(numbers)) == len(people)
    assert [ledger.number(view(sampler, p, i)) for i, p in enumerate(people)] == numbers
    ledger.save(tmp_path / "ledger.json")
    loaded = new_ledger(sampler, key)
    loaded.load(tmp_path / "ledger.json")
    assert [loaded.number(view(sampler, p, 100 + i)) for i, p in enumerate(people)] == numbers


def test_the_older_of_two_entries_of_one_person_is_kept(sampler, people) -> None:
    """A person with two entries keeps the older number; a clearly better match still wins over an older entry."""
    ledger = new_ledger(sampler, Key.new())
    first = ledger.number(Identity(people[0], "dlib"))
    poor = view(sampler, people[0], 5)
    ledger._enroll(ledger._codes(poor.vector))
    between = Identity(people[0] + 1.2 * poor.vector, "dlib")
    counts = ledger.count_matches(between)
    assert counts[1] > counts[0] >= ledger.min_matches and ledger.number(between) == first
    other = ledger.number(Identity(people[1], "dlib"))
    assert other != first and ledger.number(Identity(people[1] + 0.05 * people[0], "dlib")) == other


def test_a_second_recognizer_keeps_two_people_apart(sampler, people, tmp_path) -> None:
    """Two faces that are one person to dlib have two numbers where the second recognizer finds them too different."""
    rng = np.random.default_rng(0)
    mine, theirs = (Identity(v / np.linalg.norm(v), "faceveil") for v in rng.normal(size=(2, 256)))
    noisy = Identity(mine.vector + 0.5 * theirs.vector, "faceveil")
    face = Identity(people[0], "dlib")
    pseudonyms = Pseudonyms.open(tmp_path, "mine")
    first = pseudonyms.assign(face, mine)[0]
    assert pseudonyms.assign(face, noisy)[0] == pseudonyms.assign(face)[0] == first
    other = pseudonyms.assign(face, theirs)[0]
    assert other != first
    reopened = Pseudonyms.open(tmp_path, "mine")
    assert [reopened.assign(face, second)[0] for second in (mine, theirs)] == [first, other]
    with pytest.raises(InputError, match="the second identity must be of faceveil"):
        pseudonyms.assign(face, face)


def test_keys_are_unlinkable(sampler, people) -> None:
    ledgers = [new_ledger(sampler, Key.new(), 5000) for _ in range(2)]
    a, b = ([ledger.number(Identity(p, "dlib")) for p in people] for ledger in ledgers)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.6
    assert len(set(a) & set(b)) <= 2


def test_a_ledger_reveals_nothing_without_its_key(sampler, people, tmp_path) -> None:
    """Entries of one person match as rarely as those of different people, and a wrong key finds no entry."""
    key = Key.new()
    ledger = new_ledger(sampler, key)
    same, different = [], []
    for i, person in enumerate(people):
        a, b = (ledger._codes(v) for v in (person, view(sampler, person, i).vector))
        ledger._enroll(a)
        ledger._enroll(b)
        first, second = ledger.entries[-2:]
        same.append(int((first.encrypted == second.encrypted).sum()))
        if i:
            different.append(int((first.encrypted == ledger.entries[0].encrypted).sum()))
    # Of 1024 random bytes four are equal by chance.
    assert max(same) <= 16 and max(different) <= 16
    attacker = new_ledger(sampler, Key.new())
    ledger.save(tmp_path / "stolen.json")
    document = json.loads((tmp_path / "stolen.json").read_text())
    document |= {"check": attacker._check(), "seal": attacker._seal(document["entries"])}
    (tmp_path / "stolen.json").write_text(json.dumps(document))
    attacker.load(tmp_path / "stolen.json")
    counts = [attacker.count_matches(Identity(p, "dlib")).max() for p in people[:5]]
    assert max(counts) < 0.5 * attacker.min_matches


def test_a_full_ledger_and_bad_files_raise(sampler, people, tmp_path) -> None:
    key = Key.new()
    small = new_ledger(sampler, key, 2)
    for person in people[:2]:
        small.number(Identity(person, "dlib"))
    with pytest.raises(InputError, match="all 2 synthetic identities are taken"):
        small.number(Identity(people[2], "dlib"))
    small.save(tmp_path / "l.json")
    with pytest.raises(InputError, match="another key or another number"):
        new_ledger(sampler, Key.new(), 2).load(tmp_path / "l.json")
    (tmp_path / "l.json").write_text('{"format": "faceveil.ledger/2", "entries": []}')
    with pytest.raises(InputError, match="use the version of FaceVeil that made it"):
        new_ledger(sampler, key, 2).load(tmp_path / "l.json")
    (tmp_path / "l.json").write_text("[]")
    with pytest.raises(InputError, match="not a pseudonym ledger"):
        new_ledger(sampler, key, 2).load(tmp_path / "l.json")
    with pytest.raises(InputError, match="32 bytes"):
        Key(b"short")
    assert "secret" not in repr(Key.new())


def test_pseudonyms_of_real_people_are_stable_and_distinct(photos, tmp_path) -> None:
    people = {p.stem: embed_identities(load_image(p).pixels) for p in photos if p.stem.startswith("person_")}
    pseudonyms = Pseudonyms.open(tmp_path, "mine", 100)
    assigned = {name: pseudonyms.assign(person) for name, person in people.items()}
    reopened = Pseudonyms.open(tmp_path, "mine", 100)
    numbers = {name: number for name, (number, _) in assigned.items()}
    assert (
        numbers["person_a_1"] == numbers["person_a_2"]
        and numbers["person_b_1"] == numbers["person_b_2"]
        and numbers["person_c_1"] == numbers["person_c_2"]
    )
    assert len(set(numbers.values())) == 3
    for name, person in people.items():
        number, identity = reopened.assign(person)
        assert number == numbers[name] and np.array_equal(identity.vectors, assigned[name][1].vectors)
    assert (tmp_path / "mine.key").stat().st_mode & 0o077 == 0


ENROLL = """
import sys
from pathlib import Path
import numpy as np
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.pseudonym import Pseudonyms

folder = Path(sys.argv[1])
pseudonyms = Pseudonyms.open(folder, "shared")
for vector in np.load(folder / "people.npy")[int(sys.argv[2]) :: 2]:
    pseudonyms.assign(Identity(vector, "dlib"))
"""


def test_two_processes_lose_no_entry(people, tmp_path) -> None:
    """Both start without a key; each adds half of the people to one ledger."""
    np.save(tmp_path / "people.npy", people)
    running = [subprocess.Popen([sys.executable, "-c", ENROLL, str(tmp_path), str(half)]) for half in (0, 1)]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    entries = json.loads((tmp_path / "shared.ledger.json").read_text())["entries"]
    assert len(entries) == len({entry["number"] for entry in entries}) == len(people)
    if os.name == "posix":
        assert {(tmp_path / f"shared{suffix}").stat().st_mode & 0o777 for suffix in (".key", ".ledger.json")} == {0o600}


def test_without_a_ledger_the_key_and_the_face_decide(people, tmp_path) -> None:
    """No file but the key is needed, another key gives other people, and a photo keeps its pseudonym."""
    first = Pseudonyms.open(tmp_path, "mine", ledger=False)
    assigned = [first.assign(Identity(person, "dlib")) for person in people]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["mine.key"]
    again = Pseudonyms.open(tmp_path, "mine", ledger=False)
    for person, (number, identity) in zip(people, assigned, strict=True):
        repeated = again.assign(Identity(person, "dlib"))
        assert repeated[0] == number < REGIONS
        assert np.array_equal(repeated[1].vectors, identity.vectors)
    theirs = Pseudonyms.open(tmp_path, "theirs", ledger=False)
    others = [theirs.assign(Identity(person, "dlib"))[1] for person in people]
    assert all(not np.array_equal(a.vectors, b.vectors) for (_, a), b in zip(assigned, others, strict=True))


def test_without_a_ledger_many_views_keep_their_pseudonym_and_few_people_share_one(sampler, people, tmp_path) -> None:
    pseudonyms = Pseudonyms.open(tmp_path, "mine", ledger=False)
    numbers = [pseudonyms.people.number(Identity(person, "dlib")) for person in people]
    views = [pseudonyms.people.number(view(sampler, person, i)) for i, person in enumerate(people)]
    assert sum(a == b for a, b in zip(numbers, views, strict=True)) >= 0.4 * len(people)
    assert len(set(numbers)) >= 0.5 * len(people)


def test_a_large_ledger_is_searched_at_once(sampler, people) -> None:
    """The search compares all entries in one operation; ``benchmarks/pseudonyms.py`` has its time."""
    ledger = new_ledger(sampler, Key.new(), 5000)
    numbers = [ledger.number(Identity(p, "dlib")) for p in people]
    strangers = np.random.default_rng(0).normal(size=(2000, len(sampler.mean))) * sampler.std + sampler.mean
    for stranger in strangers:
        ledger._enroll(ledger._codes(stranger))
    assert len(ledger.entries) == 2000 + len(people)
    assert [ledger.find(Identity(p, "dlib")) for p in people] == numbers


def test_a_changed_ledger_is_refused(sampler, people, tmp_path) -> None:
    """An entry that was removed, or another salt or number, is seen."""
    key = Key.new()
    ledger = new_ledger(sampler, key)
    for person in people[:3]:
        ledger.number(Identity(person, "dlib"))
    ledger.save(tmp_path / "ledger.json")
    whole = json.loads((tmp_path / "ledger.json").read_text())
    first, *others = whole["entries"]
    for entries in (others, [first | {"salt": "11" * 16}, *others], [first | {"number": 199}, *others]):
        (tmp_path / "ledger.json").write_text(json.dumps(whole | {"entries": entries}))
        with pytest.raises(InputError, match=r"ledger\.json is damaged"):
            new_ledger(sampler, key).load(tmp_path / "ledger.json")


@pytest.mark.parametrize("capacity", [0, -5])
def test_a_ledger_needs_identities(sampler, capacity) -> None:
    with pytest.raises(InputError, match="at least 1 synthetic identity"):
        new_ledger(sampler, Key.new(), capacity)
