"""Pseudonyms: one person gets the same synthetic identity in every image, under a key that the user holds.

Two ways to recognize a person again: a ledger beside the key, or, without a ledger, the nearest of some people who are
drawn under the key. The second survives the loss of everything but the key, and is far less stable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import locked, write_whole
from .bank import Bank
from .identity import Identity
from .lds import IdentitySampler, builtin_sampler
from .ledger import Key, Ledger

CAPACITY = 1000
"""Synthetic identities of a ledger."""
REGIONS = 64
"""Synthetic identities without a ledger. Of 120 varied photos of 10 people 59 % then keep the pseudonym of the person's
first photo, and 21 % of the people share one; with 16 it is 74 and 45 %, with 256 44 and 11 %
(``benchmarks/pseudonyms.py``)."""
KEY_SUFFIX, LEDGER_SUFFIX = ".key", ".ledger.json"


class Regions:
    """Numbers people without remembering them: each belongs to the nearest of some people who are drawn under the key.

    Args:
        sampler: draws the people.
        count: how many; with more, strangers share a number less often, and views of one person differ more often.
    """

    def __init__(self, key: Key, sampler: IdentitySampler, count: int = REGIONS) -> None:
        self.key, self.capacity, self._sampler = key, count, sampler
        self._centers = sampler.sample(count, _seed(key.digest(b"regions", str(count).encode()))).vectors

    def number(self, identity: Identity) -> int:
        """The number of a person, below ``capacity``."""
        return int(self._sampler.cosine(identity.vector, self._centers)[0].argmax())


@dataclass
class Pseudonyms:
    """Assigns synthetic identities to people under a key; key and ledger are files in one folder.

    Attributes:
        people: assigns a number to each person.
        path: file of the ledger.
        sampler: of the space in which people are recognized; it also samples the synthetic identities.
        bank: supplies the synthetic identities instead of the sampler.
    """

    people: Ledger | Regions
    path: Path
    sampler: IdentitySampler
    bank: Bank | None = None
    _stamp: tuple[int, int, int] | None = None

    @classmethod
    def open(
        cls, folder: Path, name: str, capacity: int = CAPACITY, bank: Bank | None = None, ledger: bool = True
    ) -> Pseudonyms:
        """Open the files ``NAME.key`` and ``NAME.ledger.json``, or create them.

        Args:
            folder: of both files.
            name: of both files.
            capacity: how many synthetic identities a ledger has; ignored with a bank, whose size is taken.
            bank: supplies the synthetic identities.
            ledger: without one, the key and the face alone determine the pseudonym, among ``REGIONS``.

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
        count = capacity if bank is None else len(bank)
        people: Ledger | Regions
        if ledger:
            people = Ledger(key, count, sampler.mean, sampler.std)
        else:
            people = Regions(key, sampler, REGIONS if bank is None else min(REGIONS, count))
        opened = cls(people, folder / f"{name}{LEDGER_SUFFIX}", sampler, bank)
        if isinstance(people, Ledger):
            opened._refresh(people)
        return opened

    def assign(self, identity: Identity, second: Identity | None = None) -> tuple[int, Identity]:
        """Return the number and the synthetic identity of a person; a new person is added to the ledger file.

        Args:
            second: the same face in ``ledger.SECOND_SPACE``; people whom its recognizer tells apart keep different
                numbers. Only a ledger uses it.

        Raises:
            InputError: the identity is of another space, or all synthetic identities are assigned.
            OutputError: the ledger cannot be written or locked.
        """
        if identity.space != self.sampler.space:
            raise InputError(
                f"pseudonyms need identities of {self.sampler.space}, but this one is of {identity.space}; embed the"
                f" face with {self.sampler.space}"
            )
        if isinstance(self.people, Ledger):
            number = self._number_in(self.people, identity, second)
        else:
            number = self.people.number(identity)
        key = self.people.key
        if self.bank is not None:
            order = np.random.default_rng(_seed(key.digest(b"bank"))).permutation(len(self.bank))
            # A number of a ledger is random already.
            return number, self.bank.identities[number if isinstance(self.people, Ledger) else int(order[number])]
        # The seed depends on the key: under two keys one number stands for different identities.
        seed = _seed(key.digest(b"person", number.to_bytes(8, "big")))
        return number, Identity(self.sampler.sample(1, seed).vectors, self.sampler.space)

    def _number_in(self, ledger: Ledger, identity: Identity, second: Identity | None) -> int:
        self._refresh(ledger)
        number = ledger.find(identity, second)
        if number is None:
            with locked(self.path):
                # Another process may have added this person since.
                self._refresh(ledger)
                number = ledger.number(identity, second)
                ledger.save(self.path)
                self._stamp = _stamp(self.path)
        return number

    def _refresh(self, ledger: Ledger) -> None:
        """Read what other processes have added.

        Raises:
            InputError: the ledger is damaged, or was deleted since it was read.
        """
        if not self.path.is_file():
            if self._stamp is not None:
                raise InputError(f"{self.path.name} was deleted while it was in use; restore it from a backup copy")
        elif (stamp := _stamp(self.path)) != self._stamp:
            ledger.load(self.path)
            self._stamp = stamp


def _seed(digest: bytes) -> int:
    return int.from_bytes(digest[:6], "big")


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size
