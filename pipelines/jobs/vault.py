"""The vault: the original pixels of each face, sealed for each person, so that who holds the key can bring them back.

Layout: a salt; the sealed blocks of all faces; the sealed index; a sealed block of fixed size with the index's length.
Without the key all of it is random bytes. Each block has its person's key, which is derived from the vault's key and a
random name, so that a person's key opens only that person's faces.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from ..core.errors import InputError, OutputError
from ..core.files import Unfinished, short_reason
from ..core.sealing import KEY_BYTES, SALT_BYTES, TAG_BYTES, Secret, derived, seal, unseal

VERSION = 1
UNKNOWN = -1
"""Stands for faces that nobody knows, and for an image that was redacted as a whole."""
NAME_BYTES = 16
_HEADER = struct.Struct(">IIIIBB")
"""Of a block: x, y, height, width, channels and bytes per value."""
_LENGTH = struct.Struct(">Q")
_END = _LENGTH.size + TAG_BYTES
MAX_NUMBER = 1 << 64
INDEX, END = 0, 1
"""Numbers of the two blocks that are sealed with the vault's own key."""
WRONG = "the vault does not open: the key is another one, or the vault was changed"


@dataclass(frozen=True)
class Sealed:
    """Original pixels of one face in one image.

    Attributes:
        x, y: place of the window in the image.
        mask: ``(h, w)``, bool.
        pixels: of the masked places in reading order, ``(N, C)``, uint8 or uint16.
    """

    x: int
    y: int
    mask: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, original: np.ndarray, mask: np.ndarray) -> Sealed:
        """The masked pixels ``(H, W)`` of an image ``(H, W, C)``."""
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        y, x = int(rows[0]), int(columns[0])
        window = mask[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1]
        height, width = window.shape
        return cls(x, y, window, original[y : y + height, x : x + width][window])

    def restore(self, image: np.ndarray) -> None:
        """Put the pixels back into an image ``(H, W, C)``.

        Raises:
            InputError: the image has another size or depth.
        """
        height, width = self.mask.shape
        window = image[self.y : self.y + height, self.x : self.x + width]
        if (
            window.shape[:2] != self.mask.shape
            or image.shape[2] != self.pixels.shape[1]
            or image.dtype != self.pixels.dtype
        ):
            raise InputError("the vault belongs to an image of another size or depth")
        window[self.mask] = self.pixels

    def to_bytes(self) -> bytes:
        header = _HEADER.pack(self.x, self.y, *self.mask.shape, self.pixels.shape[1], self.pixels.dtype.itemsize)
        return header + zlib.compress(np.packbits(self.mask).tobytes() + self.pixels.tobytes(), 6)

    @classmethod
    def from_bytes(cls, data: bytes) -> Sealed:
        x, y, height, width, channels, size = _HEADER.unpack_from(data)
        values = zlib.decompress(data[_HEADER.size :])
        split = -(-height * width // 8)
        bits = np.unpackbits(np.frombuffer(values[:split], np.uint8))[: height * width]
        pixels = np.frombuffer(values[split:], np.uint8 if size == 1 else np.uint16).reshape(-1, channels)
        return cls(x, y, bits.reshape(height, width).astype(bool), pixels)


class VaultWriter:
    """Writes a vault; use it in a ``with`` statement, and call ``finish`` at its end.

    Args:
        path: of the vault. Nothing is left of it where ``finish`` is not reached.
    """

    def __init__(self, path: Path, secret: Secret) -> None:
        self._salt = os.urandom(SALT_BYTES)
        self._key = secret.key(self._salt)
        self._unfinished = Unfinished(path, private=True)
        self._file: BinaryIO = self._unfinished.path.open("wb")
        self._file.write(self._salt)
        self._people: dict[int, bytes] = {}
        self._blocks: list[tuple[int, int, int]] = []
        self._finished = False

    def add(self, person: int, image: int, sealed: Sealed) -> None:
        """Seal a face of a person in an image or frame."""
        name = self._people.setdefault(person, os.urandom(NAME_BYTES))
        key = derived(self._key, self._salt, b"person" + name)
        block = seal(key, len(self._blocks), sealed.to_bytes(), self._salt)
        self._write(block)
        self._blocks.append((person, image, len(block)))

    def finish(self, digest: str) -> None:
        """Complete the vault for the veiled image or video of which this is the digest.

        Raises:
            OutputError: the file cannot be written.
        """
        names = {str(person): name.hex() for person, name in self._people.items()}
        index = {"version": VERSION, "digest": digest, "people": names, "blocks": self._blocks}
        block = seal(self._key, INDEX, zlib.compress(json.dumps(index).encode()), self._salt)
        self._write(block + seal(self._key, END, _LENGTH.pack(len(block)), self._salt))
        self._write(b"", last=True)
        self._unfinished.finish()
        self._finished = True

    def _write(self, data: bytes, last: bool = False) -> None:
        try:
            self._file.write(data)
            if last:
                self._file.close()
        except OSError as error:
            raise OutputError(f"the vault could not be written ({short_reason(error)}); free some space") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._finished:
            with suppress(OSError):
                self._file.close()
            self._unfinished.discard()


@dataclass(frozen=True)
class Vault:
    """An opened vault.

    Attributes:
        digest: of the veiled image or video.
        keys: of the people that can be restored.
        blocks: number, person, image, offset and length of each block.
    """

    path: Path
    salt: bytes
    digest: str
    keys: Mapping[int, bytes]
    blocks: tuple[tuple[int, int, int, int, int], ...]

    @classmethod
    def open(cls, path: Path, secret: Secret) -> Vault:
        """Open a vault with its key: everyone in it can be restored.

        Raises:
            InputError: the file is missing, the key is another one, or anything was changed.
        """
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                salt = file.read(SALT_BYTES)
                if size < SALT_BYTES + _END + TAG_BYTES:
                    raise InputError(f"{path.name} is no vault, or was cut off")
                key = secret.key(salt)
                file.seek(size - _END)
                end = unseal(key, END, file.read(_END), salt)
                if end is None:
                    raise InputError(WRONG)
                (length,) = _LENGTH.unpack(end)
                file.seek(size - _END - length)
                packed = unseal(key, INDEX, file.read(length), salt)
        except OSError as error:
            raise InputError(f"the vault {path.name} cannot be read ({short_reason(error)})") from None
        if packed is None:
            raise InputError(WRONG)
        index = json.loads(zlib.decompress(packed))
        if index.get("version") != VERSION:
            raise InputError(f"{path.name} was written by a newer version; update this one")
        keys = {int(p): derived(key, salt, b"person" + bytes.fromhex(name)) for p, name in index["people"].items()}
        blocks, offset = [], SALT_BYTES
        for number, (person, image, size_of_block) in enumerate(index["blocks"]):
            blocks.append((number, person, image, offset, size_of_block))
            offset += size_of_block
        if offset + length + _END != size:
            raise InputError(WRONG)
        return cls(path, salt, index["digest"], keys, tuple(blocks))

    @classmethod
    def open_for_person(cls, path: Path, key: bytes) -> Vault:
        """Open a vault with the key of one person, as ``person_key`` exports it.

        Raises:
            InputError: it is no such key, or the key of another vault.
        """
        try:
            document = json.loads(key)
            if document["format"] != PERSON_FORMAT:
                raise ValueError("another format")
            person, salt = int(document["person"]), bytes.fromhex(document["salt"])
            secret = base64.b64decode(document["key"])
            blocks = tuple((int(n), person, int(i), int(o), int(s)) for n, i, o, s in document["blocks"])
            digest = str(document["digest"])
            size = path.stat().st_size if path.is_file() else 0
            if any(n < 0 or n >= MAX_NUMBER or o < 0 or s < 0 or o + s > max(size, o) for n, _, _, o, s in blocks):
                raise ValueError("blocks outside the vault")
        except (ValueError, KeyError, TypeError, OverflowError):
            raise InputError("this is no key of a person; make one with: faceveil vault-person") from None
        try:
            with path.open("rb") as file:
                found = file.read(SALT_BYTES)
        except OSError as error:
            raise InputError(f"the vault {path.name} cannot be read ({short_reason(error)})") from None
        if found != salt or len(secret) != KEY_BYTES:
            raise InputError(f"this key is for another vault than {path.name}, or the vault was changed")
        return cls(path, salt, digest, {person: secret}, blocks)

    def person_key(self, person: int) -> bytes:
        """The key with which one person's faces, and no others, can be restored.

        Raises:
            InputError: the person is not in the vault.
        """
        self._check(person)
        blocks = [[n, image, offset, size] for n, p, image, offset, size in self.blocks if p == person]
        document = {
            "format": PERSON_FORMAT,
            "person": person,
            "salt": self.salt.hex(),
            "key": base64.b64encode(self.keys[person]).decode(),
            "digest": self.digest,
            "blocks": blocks,
        }
        return json.dumps(document).encode()

    def faces(self, person: int | None = None) -> dict[int, list[tuple[int, int, int, int]]]:
        """Image or frame to its blocks, as number, person, offset and length; of one person, or of all.

        Raises:
            InputError: the person is not in the vault.
        """
        if person is not None:
            self._check(person)
        found: dict[int, list[tuple[int, int, int, int]]] = {}
        for number, owner, image, offset, size in self.blocks:
            if owner in self.keys and person in (None, owner):
                found.setdefault(image, []).append((number, owner, offset, size))
        return found

    def read(self, blocks: list[tuple[int, int, int, int]]) -> Iterator[Sealed]:
        """Open the blocks of one image, in the reverse of the order in which their faces were replaced.

        Raises:
            InputError: a block was changed.
        """
        with self.path.open("rb") as file:
            for number, person, offset, size in sorted(blocks, reverse=True):
                file.seek(offset)
                data = unseal(self.keys[person], number, file.read(size), self.salt)
                if data is None:
                    raise InputError(WRONG)
                yield Sealed.from_bytes(data)

    def check(self, digest: str, name: str) -> None:
        """Refuse an image or video that is not exactly the one that was sealed.

        Raises:
            InputError: its digest is another one.
        """
        if digest != self.digest:
            raise InputError(f"{name} is not the file that was sealed, or was changed; nothing was restored")

    def _check(self, person: int) -> None:
        if person not in self.keys:
            known = ", ".join(map(str, sorted(self.keys)))
            raise InputError(f"the vault has no person {person}; it has {known}")


PERSON_FORMAT = "faceveil.vault-person/1"


class Digest:
    """Digest of the pixels of images or frames, in order: what a vault belongs to."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, pixels: np.ndarray) -> Self:
        """Add pixels ``(H, W, C)``, uint8 or uint16."""
        self._hash.update(f"{pixels.shape}/{pixels.dtype}/".encode())
        self._hash.update(np.ascontiguousarray(pixels).tobytes())
        return self

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()
