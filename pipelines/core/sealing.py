"""Authenticated encryption: keys from a file or a passphrase, and sealed blocks that nobody can read or change.

AES-256-GCM seals (NIST SP 800-38D); HKDF-SHA256 (RFC 5869) derives keys from random secrets, scrypt (RFC 7914) from
passphrases. All of it is the ``cryptography`` package's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .files import short_reason

KEY_BYTES = 32
SALT_BYTES = 16
NONCE_BYTES, TAG_BYTES = 12, 16
MIN_SECRET, MAX_SECRET = 16, 1 << 20
"""Bytes of a key file."""
MIN_PASSPHRASE = 12
"""Characters."""
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**17, 8, 1
"""OWASP's recommendation of 2025: 128 MB and some tenths of a second for each guess."""
REMEDY = "install it with: pip install cryptography"


@dataclass(frozen=True)
class Secret:
    """What the owner keeps.

    Attributes:
        value: bytes of a key file, or a passphrase in UTF-8.
        guessable: whether it is a passphrase, which needs a slow derivation.
    """

    value: bytes
    guessable: bool = False

    @classmethod
    def from_file(cls, path: Path) -> Secret:
        """Read a key file.

        Raises:
            InputError: the file is missing, too short, or too large to be a key.
        """
        try:
            value = path.read_bytes() if path.stat().st_size <= MAX_SECRET else b""
        except OSError as error:
            raise InputError(f"the key {path.name} cannot be read ({short_reason(error)})") from None
        if len(value) < MIN_SECRET:
            raise InputError(
                f"{path.name} is no key file of {MIN_SECRET} bytes to 1 MB; make one with: faceveil vault-key"
            )
        return cls(value)

    @classmethod
    def from_passphrase(cls, text: str) -> Secret:
        """A passphrase.

        Raises:
            InputError: it is too short.
        """
        if len(text) < MIN_PASSPHRASE:
            raise InputError(f"the passphrase has {len(text)} characters; use at least {MIN_PASSPHRASE}")
        return cls(text.encode("utf-8", "surrogateescape"), guessable=True)

    @classmethod
    def new(cls) -> Secret:
        """A random one."""
        return cls(os.urandom(KEY_BYTES))

    def key(self, salt: bytes) -> bytes:
        """The key of one vault, of ``KEY_BYTES``."""
        _check_installed()
        if not self.guessable:
            return derived(self.value, salt, b"faceveil vault")
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        return Scrypt(salt=salt, length=KEY_BYTES, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P).derive(self.value)


def derived(secret: bytes, salt: bytes, purpose: bytes) -> bytes:
    """Derive a key for one purpose from a secret that cannot be guessed."""
    _check_installed()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(secret)


def seal(key: bytes, number: int, data: bytes, bound: bytes) -> bytes:
    """Encrypt a block.

    Args:
        number: of the block; never twice with one key.
        bound: what the block belongs to; it must be the same to open it.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(number.to_bytes(NONCE_BYTES, "big"), data, bound)


def unseal(key: bytes, number: int, data: bytes, bound: bytes) -> bytes | None:
    """Decrypt a block; None where the key is another one, or anything was changed."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(number.to_bytes(NONCE_BYTES, "big"), data, bound)
    except (InvalidTag, ValueError):
        return None


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise InputError(f"a vault needs the package cryptography; {REMEDY}")
