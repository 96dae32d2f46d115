"""Pseudonyms: one person gets the same synthetic identity in every image, under a key that the user holds.

This is locality-sensitive hashing with a key. An embedding is projected on many secret random directions, and each sign
is one bit. Groups of bits are hashed with the key and a salt of the ledger entry. The ledger stores only these hashes,
the salt and the number of the synthetic identity.

A face belongs to an entry when enough hashes match: the closer two embeddings are, the more hashes match. Without the
key the directions, and therefore the hashes, are random numbers. The salts make the hashes of two entries differ even
for the same face.
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
from ..core.files import locked, write_whole
from .bank import Bank
from .identity import Identity
from .lds import IdentitySampler, builtin_sampler

FORMAT = "faceveil.ledger/2"
GROUPS, BITS = 1024, 6
"""Hashes of an entry, and bits that each hash is computed from."""
MIN_MATCHES = 134
"""Matching hashes that identify a person: the number at a cosine of .62 in the standardized space. Photos of one person
reach .82 (280 hashes), different people .46 (79 hashes)."""
OLDER_ENTRY_SHARE = 0.55
"""An older entry is preferred to the best one when it has at least this share of the best one's matching hashes."""
KEY_BYTES = 32
KEY_SUFFIX, LEDGER_SUFFIX = ".key", ".ledger.json"


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes.

    With the key and the ledger one can test whether a face is in the ledger, so store them in different places.

    Raises:
        InputError: the secret is not 32 bytes long.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise InputError(f"a pseudonym key has {KEY_BYTES} bytes, got {len(self.secret)}; make one with Key.new()")

    @classmethod
    def new(cls) -> Key:
        """Create a random key."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def digest(self, *parts: bytes) -> bytes:
        """Compute HMAC-SHA256 of the parts, joined by zero bytes."""
        return hmac.new(self.secret, b"\0".join(parts), hashlib.sha256).digest()

    def directions(self, dimensions: int) -> np.ndarray:
        """Generate the secret random directions ``(GROUPS * BITS, D)``."""
        seed = int.from_bytes(self.digest(b"directions", str(dimensions).encode()), "big")
        return np.random.default_rng(seed).normal(size=(GROUPS * BITS, dimensions))


@dataclass(frozen=True)
class Entry:
    """One person in a ledger.

    Attributes:
        salt: 16 random bytes.
        hashes: keyed hashes of 16 bits each, ``(GROUPS,)``.
        number: number of the synthetic identity.
    """

    salt: bytes
    hashes: np.ndarray
    number: int


class Ledger:
    """Assigns synthetic identities to people and stores the assignment as keyed hashes.

    Args:
        key: the user's secret.
        capacity: how many synthetic identities there are.
        mean: of the embeddings of the space, ``(D,)``.
        std: standard deviation of the embeddings of the space, ``(D,)``.
        min_matches: matching hashes that identify a person.
    """

    def __init__(
        self, key: Key, capacity: int, mean: np.ndarray, std: np.ndarray, min_matches: int = MIN_MATCHES
    ) -> None:
        self.key, self.capacity, self.min_matches = key, capacity, min_matches
        self._mean, self._std = mean, std
        self._directions = key.directions(len(mean))
        self.entries: list[Entry] = []

    def number(self, identity: Identity) -> int:
        """Return the number of a person's synthetic identity; a new person gets a free number and a new entry.

        Raises:
            InputError: all synthetic identities are assigned.
        """
        known = self.find(identity)
        return self._enroll(self._codes(identity.vector)) if known is None else known

    def find(self, identity: Identity) -> int | None:
        """Return the number of a person's synthetic identity; None for a new person."""
        counts = self.count_matches(identity)
        if counts and max(counts) >= self.min_matches:
            # A bad photo may have created a second entry for one person. The older entry is kept, unless another one
            # matches clearly better.
            enough = max(self.min_matches, OLDER_ENTRY_SHARE * max(counts))
            return next(entry.number for entry, count in zip(self.entries, counts, strict=True) if count >= enough)
        return None

    def count_matches(self, identity: Identity) -> list[int]:
        """Count for each entry how many of its ``GROUPS`` hashes match this face."""
        codes = self._codes(identity.vector)
        return [int((self._hash(entry.salt, codes) == entry.hashes).sum()) for entry in self.entries]

    def _enroll(self, codes: np.ndarray) -> int:
        taken = {entry.number for entry in self.entries}
        free = [n for n in range(self.capacity) if n not in taken]
        if not free:
            raise InputError(f"all {self.capacity} synthetic identities are taken; use a larger bank")
        salt = secrets.token_bytes(16)
        # The number depends on the key and the salt, not on the face: under two keys one person's pseudonyms are
        # unrelated.
        number = free[int.from_bytes(self.key.digest(b"number", salt)[:8], "big") % len(free)]
        self.entries.append(Entry(salt, self._hash(salt, codes), number))
        return number

    def _codes(self, vector: np.ndarray) -> np.ndarray:
        """Compute the sign bits of all projections, packed as one number below 2 ** BITS per group, ``(GROUPS,)``."""
        if vector.shape != self._mean.shape:
            raise InputError(
                f"this ledger needs identities of {len(self._mean)} dimensions, got {len(vector)}; embed the face with"
                " the ledger's recognizer"
            )
        signs = self._directions @ ((vector - self._mean) / self._std) > 0
        return np.asarray(signs.reshape(GROUPS, BITS) @ (1 << np.arange(BITS)))

    def _hash(self, salt: bytes, codes: np.ndarray) -> np.ndarray:
        """Compute keyed hashes of codes, ``(GROUPS,)``.

        One SHAKE-256 call generates the hashes of all possible codes, which are then looked up. This keeps large
        ledgers fast.
        """
        stream = hashlib.shake_256(self.key.digest(b"entry", salt)).digest(2 * GROUPS << BITS)
        return np.frombuffer(stream, "<u2").reshape(GROUPS, -1)[np.arange(GROUPS), codes]

    def save(self, path: Path) -> None:
        """Write the ledger as JSON. The file does not contain the key.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [{"salt": e.salt.hex(), "hashes": e.hashes.tobytes().hex(), "number": e.number} for e in self.entries]
        check = self.key.digest(b"check", str(self.capacity).encode()).hex()
        document = {"format": FORMAT, "check": check, "size": self.capacity, "entries": rows}
        write_whole(path, json.dumps(document).encode(), private=True)

    def load(self, path: Path) -> None:
        """Read entries that ``save`` wrote.

        Raises:
            InputError: the file is damaged, of another kind, or belongs to another key or capacity.
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
            str(document.get("check")), self.key.digest(b"check", str(self.capacity).encode()).hex()
        ):
            raise InputError(
                f"{path.name} belongs to another key or another number of synthetic identities; use the key and the"
                " bank that it was made with"
            )
        numbers = [number for _, _, number in rows]
        if len(set(numbers)) < len(numbers) or not all(0 <= number < self.capacity for number in numbers):
            raise InputError(f"{path.name} has numbers that cannot be; restore a backup copy")
        if any(len(h) != 2 * GROUPS for _, h, _ in rows):
            raise InputError(f"{path.name} is incomplete; restore a backup copy")
        self.entries = [Entry(salt, np.frombuffer(hashes, "<u2"), number) for salt, hashes, number in rows]


@dataclass
class Pseudonyms:
    """Assigns synthetic identities to people under a key; key and ledger are files in one folder.

    Attributes:
        ledger: assigns a number to each person.
        path: file of the ledger.
        sampler: of the space in which people are recognized; it also samples the synthetic identities.
        bank: supplies the synthetic identities instead of the sampler.
    """

    ledger: Ledger
    path: Path
    sampler: IdentitySampler
    bank: Bank | None = None
    _stamp: tuple[int, int, int] | None = None

    @classmethod
    def open(cls, folder: Path, name: str, capacity: int = 1000, bank: Bank | None = None) -> Pseudonyms:
        """Open the files ``NAME.key`` and ``NAME.ledger.json``, or create them.

        Args:
            folder: of both files.
            name: of both files.
            capacity: how many synthetic identities there are; ignored with a bank, whose size is taken.
            bank: supplies the synthetic identities.

        Raises:
            InputError: the key file is damaged, or the ledger belongs to another key or capacity.
            OutputError: the key file cannot be written or locked.
        """
        path = folder / f"{name}{KEY_SUFFIX}"
        if not path.is_file():
            with locked(path):
                # Another process may have been first.
                if not path.is_file():
                    write_whole(path, Key.new().secret, private=True)
        key = Key(path.read_bytes())
        sampler = builtin_sampler("dlib")
        ledger = Ledger(key, capacity if bank is None else len(bank), sampler.mean, sampler.std)
        ledger_path = folder / f"{name}{LEDGER_SUFFIX}"
        opened = cls(ledger, ledger_path, sampler, bank)
        opened._refresh()
        return opened

    def assign(self, identity: Identity) -> tuple[int, Identity]:
        """Return the number and the synthetic identity of a person; a new person is added to the ledger file.

        Raises:
            InputError: the identity is of another space, or all synthetic identities are assigned.
            OutputError: the ledger cannot be written or locked.
        """
        if identity.space != self.sampler.space:
            raise InputError(
                f"pseudonyms need identities of {self.sampler.space}, but this one is of {identity.space}; embed the"
                f" face with {self.sampler.space}"
            )
        self._refresh()
        number = self.ledger.find(identity)
        if number is None:
            with locked(self.path):
                # Another process may have added this person since.
                self._refresh()
                number = self.ledger.number(identity)
                self.ledger.save(self.path)
                self._stamp = _stamp(self.path)
        if self.bank is not None:
            return number, self.bank.identities[number]
        # The seed depends on the key: under two keys one number stands for different identities.
        seed = int.from_bytes(self.ledger.key.digest(b"person", number.to_bytes(8, "big"))[:6], "big")
        return number, Identity(self.sampler.sample(1, seed).vectors, self.sampler.space)

    def _refresh(self) -> None:
        """Read what other processes have added.

        Raises:
            InputError: the ledger is damaged, or was deleted since it was read.
        """
        if not self.path.is_file():
            if self._stamp is not None:
                raise InputError(f"{self.path.name} was deleted while it was in use; restore it from a backup copy")
        elif (stamp := _stamp(self.path)) != self._stamp:
            self.ledger.load(self.path)
            self._stamp = stamp


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
