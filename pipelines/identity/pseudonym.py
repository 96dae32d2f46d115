"""Pseudonyms: the same person gets the same synthetic identity, in every frame, file and day, under a key that the user
holds.

A face is turned into quantized decisions: for each of many secret random directions, on which side it lies. Groups of
decisions are hashed with the key and a salt of the entry; the ledger keeps these hashes and the number of the synthetic
identity,
nothing else. A face is known when enough of an entry's hashes come out again, which counts how near it lies. Without
the key the
directions, and so the hashes, are random numbers, and salts make them differ between entries even for one face.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import write_whole
from .bank import Bank
from .identity import Identity
from .lds import IdentitySampler, builtin_sampler

FORMAT = "faceveil.ledger/2"
GROUPS, DECISIONS = 1024, 6
LEAST = 134
"""Hashes that must agree: what a cosine of .62 around the mean gives; photos of one person reach .82 (280), strangers
.46 (79)."""
NEARLY = 0.55
"""Share of the best entry's agreement from which an older entry is taken for the same person."""
KEY_BYTES = 32


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes. Who holds it can tell whether a face is in a ledger: keep it apart from the ledger."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise InputError(f"a pseudonym key has {KEY_BYTES} bytes, got {len(self.secret)}; make one with Key.new()")

    @classmethod
    def new(cls) -> Key:
        return cls(secrets.token_bytes(KEY_BYTES))

    def digest(self, *parts: bytes) -> bytes:
        return hmac.new(self.secret, b"\0".join(parts), hashlib.sha256).digest()

    def directions(self, dimensions: int) -> np.ndarray:
        """Secret random directions ``(GROUPS * DECISIONS, D)``."""
        seed = int.from_bytes(self.digest(b"directions", str(dimensions).encode()), "big")
        return np.random.default_rng(seed).normal(size=(GROUPS * DECISIONS, dimensions))


@dataclass(frozen=True)
class Entry:
    """One person of a ledger.

    Attributes:
        salt: random bytes.
        hashes: ``GROUPS`` keyed hashes of 16 bits, ``(GROUPS,)``.
        number: of the synthetic identity in the bank.
    """

    salt: bytes
    hashes: np.ndarray
    number: int


class Ledger:
    """Who has which synthetic identity, without saying who.

    Args:
        key: the user's secret.
        size: how many synthetic identities there are.
        center, spread: ``(D,)``, mean and standard deviation of the space; decisions are taken around the mean.
        least: hashes that must come out again for a face to be known.
    """

    def __init__(self, key: Key, size: int, center: np.ndarray, spread: np.ndarray, least: int = LEAST) -> None:
        self.key, self.size, self.least = key, size, least
        self._center, self._spread = center, spread
        self._directions = key.directions(len(center))
        self.entries: list[Entry] = []

    def number(self, identity: Identity) -> int:
        """The synthetic identity of a person; a new person gets a free one.

        Raises:
            InputError: no synthetic identity is free any more.
        """
        counts = self.agreements(identity)
        if counts and max(counts) >= self.least:
            # A bad photo may once have passed for somebody new: the older name stays, unless another entry fits clearly
            # better.
            enough = max(self.least, NEARLY * max(counts))
            return next(entry.number for entry, count in zip(self.entries, counts, strict=True) if count >= enough)
        return self._enrol(self._decide(identity.vector))

    def agreements(self, identity: Identity) -> list[int]:
        """How many hashes of each entry come out again for this face, of ``GROUPS``."""
        decisions = self._decide(identity.vector)
        return [int((self._hash(entry.salt, decisions) == entry.hashes).sum()) for entry in self.entries]

    def _enrol(self, decisions: np.ndarray) -> int:
        taken = {entry.number for entry in self.entries}
        free = [n for n in range(self.size) if n not in taken]
        if not free:
            raise InputError(f"all {self.size} synthetic identities are taken; use a larger bank")
        salt = secrets.token_bytes(16)
        # The key, not the face, chooses: two keys give one person unrelated pseudonyms.
        number = free[int.from_bytes(self.key.digest(b"number", salt)[:8], "big") % len(free)]
        self.entries.append(Entry(salt, self._hash(salt, decisions), number))
        return number

    def _decide(self, vector: np.ndarray) -> np.ndarray:
        """Quantized decisions, a number below 2 ** DECISIONS for each group ``(GROUPS,)``."""
        if vector.shape != self._center.shape:
            raise InputError(f"this ledger works on identities of {len(self._center)} numbers, got {len(vector)}")
        sides = self._directions @ ((vector - self._center) / self._spread) > 0
        return np.asarray(sides.reshape(GROUPS, DECISIONS) @ (1 << np.arange(DECISIONS)))

    def _hash(self, salt: bytes, decisions: np.ndarray) -> np.ndarray:
        """Keyed hashes of decisions: a table of what each could hash to comes out of one call, so that large ledgers
        stay quick."""
        stream = hashlib.shake_256(self.key.digest(b"entry", salt)).digest(2 * GROUPS << DECISIONS)
        return np.frombuffer(stream, "<u2").reshape(GROUPS, -1)[np.arange(GROUPS), decisions]

    def save(self, path: Path) -> None:
        """Write the ledger; the key is not in it.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [{"salt": e.salt.hex(), "hashes": e.hashes.tobytes().hex(), "number": e.number} for e in self.entries]
        check = self.key.digest(b"check", str(self.size).encode()).hex()
        write_whole(path, json.dumps({"format": FORMAT, "check": check, "size": self.size, "entries": rows}).encode())

    def load(self, path: Path) -> None:
        """Read entries that ``save`` wrote.

        Raises:
            InputError: the file is damaged, of another kind, or belongs to another key or bank.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise KeyError("format")
            rows = [
                (bytes.fromhex(r["salt"]), bytes.fromhex(r["hashes"]), int(r["number"])) for r in document["entries"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path.name} is not a pseudonym ledger ({type(error).__name__}); name another file or start a new one"
            ) from None
        if not hmac.compare_digest(
            str(document.get("check")), self.key.digest(b"check", str(self.size).encode()).hex()
        ):
            raise InputError(f"{path.name} belongs to another key or bank; use the ones it was made with")
        if any(len(h) != 2 * GROUPS for _, h, _ in rows):
            raise InputError(f"{path.name} was cut off; restore a copy")
        self.entries = [Entry(salt, np.frombuffer(hashes, "<u2"), number) for salt, hashes, number in rows]


@dataclass
class Pseudonyms:
    """Synthetic identities by number, given out under a key that lies in a file beside its ledger.

    Attributes:
        path: of the ledger.
        sampler: of the space in which people are known again; it also draws the synthetic ones.
        bank: the synthetic people, instead of drawn ones.
    """

    ledger: Ledger
    path: Path
    sampler: IdentitySampler
    bank: Bank | None = None

    @classmethod
    def open(cls, folder: Path, name: str, people: int = 1000, bank: Bank | None = None) -> Pseudonyms:
        """Open a key and its ledger, or make them.

        Args:
            people: how many synthetic ones there are; as many as the bank holds where there is one.

        Raises:
            InputError: the key file is damaged, or the ledger belongs to another key or number of people.
        """
        path = folder / f"{name}.key"
        if path.is_file():
            key = Key(path.read_bytes())
        else:
            key = Key.new()
            write_whole(path, key.secret)
            path.chmod(0o600)
        sampler = builtin_sampler("dlib")
        ledger = Ledger(key, people if bank is None else len(bank), sampler.mean, sampler.std)
        kept = folder / f"{name}.ledger.json"
        if kept.is_file():
            ledger.load(kept)
        return cls(ledger, kept, sampler, bank)

    def of(self, identity: Identity) -> tuple[int, Identity]:
        """Number and synthetic identity of a person; a new person is written into the ledger."""
        if identity.space != self.sampler.space:
            raise InputError(
                f"pseudonyms work in the space of {self.sampler.space}, but this identity is of {identity.space}"
            )
        known = len(self.ledger.entries)
        number = self.ledger.number(identity)
        if len(self.ledger.entries) > known:
            self.ledger.save(self.path)
        if self.bank is not None:
            return number, self.bank.identities[number]
        # The key also decides what each number looks like.
        seed = int.from_bytes(self.ledger.key.digest(b"person", number.to_bytes(8, "big"))[:6], "big")
        return number, Identity(self.sampler.sample(1, seed).vectors, self.sampler.space)
