"""The ledger of pseudonyms: which synthetic identity each person has, under a key that the user holds.

This is locality-sensitive hashing with a key. An embedding is projected on many secret random directions, and each
sign is one bit. A group of bits is one code. The ledger stores the codes of each person, encrypted with the key and a
salt of the entry, and the number of the synthetic identity.

A face belongs to an entry when enough codes match: the closer two embeddings are, the more codes match. Without the key
an entry is random numbers, and the salts make two entries differ even for the same face. With the key the codes can be
read, and from them the embedding can be estimated.

A second recognizer can object: where it finds two faces too different, they are two people.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import write_whole
from .identity import Identity

FORMAT = "faceveil.ledger/4"
GROUPS, BITS = 1024, 6
"""Codes of an entry, and bits of each."""
MIN_MATCHES = 134
"""Matching codes that identify a person: the number at a cosine of .62 in the standardized space. Photos of one person
reach .82 (280 codes), different people .46 (79 codes)."""
SECOND_SPACE = "faceveil"
"""Space of the recognizer that can object."""
MIN_SECOND_MATCHES = 65
"""Matching codes below which it objects: the number at a cosine of .40. Of 1,653 pairs of strangers dlib alone takes 82
for one person, both together 19; of 660 pairs of varied photos of one person 1.8 % are then taken for two people."""
OLDER_ENTRY_SHARE = 0.55
"""An older entry is preferred to the best one when it has at least this share of the best one's matching codes."""
KEY_BYTES = 32
SALT_BYTES = 16


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes.

    With the key and the ledger one can test whether a face is in the ledger, and estimate embeddings from it, so store
    them in different places.

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
        encrypted: codes of 8 bits each, ``(GROUPS,)``, combined with a key stream by exclusive or.
        second: the same of the second recognizer; None where it was not asked.
        number: number of the synthetic identity.
    """

    salt: bytes
    encrypted: np.ndarray
    second: np.ndarray | None
    number: int


class Ledger:
    """Assigns synthetic identities to people and stores the assignment under a key.

    Args:
        key: the user's secret.
        capacity: how many synthetic identities there are.
        mean: of the embeddings of the space, ``(D,)``.
        std: standard deviation of the embeddings of the space, ``(D,)``.
        min_matches: matching codes that identify a person.

    Raises:
        InputError: the capacity is below 1.
    """

    def __init__(
        self, key: Key, capacity: int, mean: np.ndarray, std: np.ndarray, min_matches: int = MIN_MATCHES
    ) -> None:
        if capacity < 1:
            raise InputError(f"a ledger needs at least 1 synthetic identity, got {capacity}")
        self.key, self.capacity, self.min_matches = key, capacity, min_matches
        self._mean, self._std = mean, std
        self._directions = key.directions(len(mean))
        self._second_directions: np.ndarray | None = None
        self._clear()

    def _clear(self) -> None:
        self._entries: list[Entry] = []
        self._known = np.empty((0, GROUPS), np.uint8)
        self._second_known = np.empty((0, GROUPS), np.uint8)
        self._has_second = np.empty(0, bool)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All people, the oldest entry first."""
        return tuple(self._entries)

    def number(self, identity: Identity, second: Identity | None = None) -> int:
        """Return the number of a person's synthetic identity; a new person gets a free number and a new entry.

        Args:
            second: the same face in ``SECOND_SPACE``.

        Raises:
            InputError: all synthetic identities are assigned.
        """
        known = self.find(identity, second)
        if known is not None:
            return known
        return self._enroll(self._codes(identity.vector), None if second is None else self._second_codes(second))

    def find(self, identity: Identity, second: Identity | None = None) -> int | None:
        """Return the number of a person's synthetic identity; None for a new person.

        Args:
            second: the same face in ``SECOND_SPACE``; entries that it finds too different are left out.
        """
        counts = self.count_matches(identity)
        if second is not None:
            alike = np.count_nonzero(self._second_known == self._second_codes(second), axis=1)
            counts = np.where(self._has_second & (alike < MIN_SECOND_MATCHES), 0, counts)
        if not len(counts) or counts.max() < self.min_matches:
            return None
        # A bad photo may have created a second entry for one person. The older entry is kept, unless another one
        # matches clearly better.
        enough = max(self.min_matches, OLDER_ENTRY_SHARE * counts.max())
        return self._entries[int((counts >= enough).argmax())].number

    def count_matches(self, identity: Identity) -> np.ndarray:
        """Count for each entry how many of its ``GROUPS`` codes match this face, ``(N,)``."""
        return np.count_nonzero(self._known == self._codes(identity.vector), axis=1)

    def _enroll(self, codes: np.ndarray, second: np.ndarray | None = None) -> int:
        taken = {entry.number for entry in self._entries}
        free = [n for n in range(self.capacity) if n not in taken]
        if not free:
            raise InputError(f"all {self.capacity} synthetic identities are taken; use a larger bank")
        salt = secrets.token_bytes(SALT_BYTES)
        # The number depends on the key and the salt, not on the face: under two keys one person's pseudonyms are
        # unrelated.
        number = free[int.from_bytes(self.key.digest(b"number", salt)[:8], "big") % len(free)]
        encrypted = None if second is None else second ^ self._stream(salt, b"second")
        self._append([Entry(salt, codes ^ self._stream(salt), encrypted, number)])
        return number

    def _append(self, entries: Sequence[Entry]) -> None:
        """Add entries, and what they say in plain codes."""
        none = np.zeros(GROUPS, np.uint8)
        known = [e.encrypted ^ self._stream(e.salt) for e in entries]
        second = [none if e.second is None else e.second ^ self._stream(e.salt, b"second") for e in entries]
        self._entries += entries
        self._known = np.concatenate([self._known, *(codes[None] for codes in known)])
        self._second_known = np.concatenate([self._second_known, *(codes[None] for codes in second)])
        self._has_second = np.concatenate([self._has_second, [e.second is not None for e in entries]]).astype(bool)

    def _codes(self, vector: np.ndarray) -> np.ndarray:
        """Compute the sign bits of all projections, packed as one number below 2 ** BITS a group, ``(GROUPS,)``."""
        if vector.shape != self._mean.shape:
            raise InputError(
                f"this ledger needs identities of {len(self._mean)} dimensions, got {len(vector)}; embed the face with"
                " the ledger's recognizer"
            )
        return _signs(self._directions, (vector - self._mean) / self._std)

    def _second_codes(self, identity: Identity) -> np.ndarray:
        """The same for a face in ``SECOND_SPACE``."""
        if identity.space != SECOND_SPACE:
            raise InputError(
                f"the second identity must be of {SECOND_SPACE}, but this one is of {identity.space}; embed the same"
                f" face with {SECOND_SPACE}"
            )
        if self._second_directions is None:
            self._second_directions = self.key.directions(len(identity.vector))
        return _signs(self._second_directions, identity.vector)

    def _stream(self, salt: bytes, use: bytes = b"entry") -> np.ndarray:
        """Random numbers ``(GROUPS,)`` of 8 bits that depend on the key, a salt and their use."""
        return np.frombuffer(hashlib.shake_256(self.key.digest(use, salt)).digest(GROUPS), np.uint8)

    def save(self, path: Path) -> None:
        """Write the ledger as JSON. The file does not contain the key.

        Raises:
            OutputError: the file cannot be written.
        """
        rows = [
            {
                "salt": e.salt.hex(),
                "codes": e.encrypted.tobytes().hex(),
                "second": "" if e.second is None else e.second.tobytes().hex(),
                "number": e.number,
            }
            for e in self._entries
        ]
        document = {"format": FORMAT, "check": self._check(), "entries": rows, "seal": self._seal(rows)}
        write_whole(path, json.dumps(document).encode(), private=True)

    def _check(self) -> str:
        """Tells whether a ledger is of this key and capacity."""
        return self.key.digest(b"check", str(self.capacity).encode()).hex()

    def _seal(self, rows: object) -> str:
        """Tells whether an entry was changed, added or removed."""
        return self.key.digest(b"seal", json.dumps(rows).encode()).hex()

    def load(self, path: Path) -> None:
        """Read entries that ``save`` wrote.

        Raises:
            InputError: the file is damaged, of another kind, or belongs to another key or capacity.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise InputError(
                    f"{path.name} is no ledger of format {FORMAT}; use the version of FaceVeil that made it, or start a"
                    " new ledger under another name"
                )
            check, seal = (str(document[name]).encode("utf-8", "replace") for name in ("check", "seal"))
            rows = [
                (bytes.fromhex(r["salt"]), bytes.fromhex(r["codes"]), bytes.fromhex(r["second"]), int(r["number"]))
                for r in document["entries"]
            ]
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{path.name} is not a pseudonym ledger ({type(error).__name__}); name another file or start a new one"
            ) from None
        if not hmac.compare_digest(check, self._check().encode()):
            raise InputError(
                f"{path.name} belongs to another key or another number of synthetic identities; use the key and the"
                " bank that it was made with"
            )
        numbers = [number for *_, number in rows]
        whole = len(set(numbers)) == len(numbers) and all(0 <= number < self.capacity for number in numbers)
        whole &= all(
            len(salt) == SALT_BYTES and len(codes) == GROUPS and len(second) in (0, GROUPS)
            for salt, codes, second, _ in rows
        )
        if not whole or not hmac.compare_digest(seal, self._seal(document["entries"]).encode()):
            raise InputError(f"{path.name} is damaged: it is not as it was saved; restore a backup copy")
        self._clear()
        self._append(
            [
                Entry(salt, np.frombuffer(codes, np.uint8), np.frombuffer(second, np.uint8) if second else None, number)
                for salt, codes, second, number in rows
            ]
        )


def _signs(directions: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The sign bits of the projections of ``vector`` ``(D,)``, packed as one number a group, ``(GROUPS,)``."""
    signs = directions @ vector > 0
    return np.asarray(signs.reshape(GROUPS, BITS) @ (1 << np.arange(BITS)), dtype=np.uint8)
