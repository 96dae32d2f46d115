"""Identities: unit vectors in the embedding space of one recognizer, and their files."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.files import write_whole
from ..core.stored import read_safetensors

FORMAT = "faceveil.identity/1"


@dataclass(frozen=True)
class Identity:
    """One or more unit vectors of one space.

    Attributes:
        vectors: ``(N, D)``, float64; normalized to unit length on construction.
        space: name of the recognizer's space; identities of different spaces cannot be mixed.

    Raises:
        InputError: the vectors are not ``(N, D)``, not finite, or zero.
    """

    vectors: np.ndarray
    space: str

    def __post_init__(self) -> None:
        vectors = np.atleast_2d(np.asarray(self.vectors, dtype=np.float64))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True) if vectors.ndim == 2 else np.zeros(1)
        if vectors.ndim != 2 or vectors.size == 0 or not np.isfinite(vectors).all() or not (lengths > 1e-9).all():
            raise InputError("an identity needs finite, nonzero vectors of shape (N, D); embed the face again")
        object.__setattr__(self, "vectors", vectors / lengths)

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> Identity:
        return Identity(self.vectors[index], self.space)

    @property
    def vector(self) -> np.ndarray:
        """The vector ``(D,)`` of an identity that has exactly one.

        Raises:
            InputError: there are several vectors.
        """
        if len(self) != 1:
            raise InputError(f"one identity is needed, but there are {len(self)}; average them or choose one")
        return self.vectors[0]

    def average(self) -> Identity:
        """Average the vectors of several photos of one person."""
        return Identity(self.vectors.mean(0), self.space)

    def cosine(self, other: Identity) -> np.ndarray:
        """Compute the cosine similarity of each vector with each vector of ``other``, ``(N, M)``.

        Raises:
            InputError: the spaces differ.
        """
        same_space([self, other])
        return self.vectors @ other.vectors.T


def same_space(identities: Sequence[Identity]) -> str:
    """Return the space that all identities share.

    Raises:
        InputError: the spaces differ, or there are no identities.
    """
    spaces = sorted({i.space for i in identities})
    if len(spaces) != 1:
        raise InputError(
            f"identities of different recognizers cannot be mixed ({', '.join(spaces) or 'none given'}); embed all with"
            " the same one"
        )
    return spaces[0]


def save_identity(path: Path, identity: Identity, when: datetime.date | None = None) -> None:
    """Write vectors, space, recognizer and date as a safetensors file. It contains no image and no source file name.

    Args:
        when: the date to store; today (UTC) when omitted.

    Raises:
        OutputError: the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    date = (when or datetime.datetime.now(datetime.UTC).date()).isoformat()
    tensors = {"vectors": torch.from_numpy(identity.vectors.astype(np.float32))}
    write_whole(
        path,
        save(
            tensors,
            {"format": FORMAT, "space": identity.space, "recognizer": recognizer_of(identity.space), "date": date},
        ),
    )


def recognizer_of(space: str) -> str:
    """Return the recognizer that a space belongs to: ``arcface`` for ``arcface-w600k``."""
    return re.split("[-_:]", space)[0]


def load_identity(path: Path, space: str | None = None) -> Identity:
    """Read an identity.

    Args:
        space: the required space; any space is accepted when omitted.

    Raises:
        InputError: the file is missing, damaged, of another kind or space, or contains values that are not finite.
    """
    tensors, metadata = read_safetensors(
        path, "identity file", "check its name and folder, or save it again", InputError
    )
    if metadata.get("format") != FORMAT or "vectors" not in tensors:
        raise InputError(f"{path.name} is not an identity of format {FORMAT}; save one with Save Identity")
    vectors = tensors["vectors"].double().numpy()
    if vectors.ndim != 2 or vectors.size == 0:
        raise InputError(f"identity file {path.name} has vectors of shape {vectors.shape}, not (N, D); save it again")
    if space is not None and metadata.get("space") != space:
        raise InputError(
            f"identity file {path.name} belongs to the recognizer {metadata.get('space')}, but {space} is needed; embed"
            " the face again"
        )
    try:
        return Identity(vectors, metadata["space"])
    except (InputError, KeyError):
        raise InputError(
            f"identity file {path.name} has zero or non-finite vectors, or names no space; save it again"
        ) from None
