"""Banks of synthetic people: a folder with one embedding and one portrait each, searched by embedding distance."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.files import write_whole
from ..core.progress import Progress, silent
from ..core.stored import read_safetensors
from ..imaging.image import LoadedImage
from ..imaging.load import load_image
from ..imaging.save import save_image
from .identity import Identity

FORMAT = "faceveil.bank/1"
REMEDY = "build one with: faceveil bank"
CROP = 256
"""Side of a portrait in pixels."""
_VECTORS = "bank.safetensors"
_UNFINISHED = "unfinished"
"""Empty file in the folder of a bank while it is built."""


@dataclass(frozen=True)
class Bank:
    """A set of synthetic people.

    Attributes:
        identities: one vector for each person.
        threshold: two unit vectors with a smaller L2 distance show the same person.
        folder: contains one portrait for each person, ``00000.webp`` and so on, 256 px, FFHQ alignment; None for a bank
            without portraits.
    """

    identities: Identity
    threshold: float
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def space(self) -> str:
        return self.identities.space

    def portrait(self, number: int) -> Tensor:
        """Load the portrait of one person, ``(1, 3, 256, 256)``, RGB in [0, 1].

        Raises:
            InputError: the bank has no portraits, or this file is missing.
        """
        if self.folder is None:
            raise InputError("this bank contains no portraits; build one from a folder of face images")
        return load_image(self.folder / _crop_name(number)).pixels

    def nearest_free(self, identity: Identity, taken: Collection[int] = (), min_distance: float | None = None) -> int:
        """Find the nearest synthetic person that is not yet assigned: the mapping f of IDDiffuse.

        Args:
            taken: numbers of the synthetic people that are already assigned.
            min_distance: minimum L2 distance between the unit vectors of the synthetic person and ``identity``. The
                default is the threshold: below it the recognizer would match the two. The paper has no such minimum.

        Returns:
            The number of the synthetic person.

        Raises:
            InputError: the identity is of another space, or no synthetic person is free and far enough away.
        """
        limit = self.threshold if min_distance is None else min_distance
        cosines = self.identities.cosine(identity.average())[:, 0]
        distances = np.sqrt(np.maximum(0, 2 - 2 * cosines))
        distances[distances < limit] = np.inf
        distances[list(taken)] = np.inf
        number = int(distances.argmin())
        if not np.isfinite(distances[number]):
            raise InputError(
                f"none of the {len(self)} synthetic people is free and different enough; build a larger bank"
            )
        return number

    def different_from(self, identity: Identity) -> np.ndarray:
        """Return the numbers of all synthetic people that the recognizer does not match with ``identity``."""
        return np.flatnonzero(self.identities.cosine(identity.average())[:, 0] < 1 - self.threshold**2 / 2)


def build_bank(
    folder: Path, faces: Iterable[tuple[np.ndarray, Tensor]], space: str, threshold: float, progress: Progress = silent
) -> Bank:
    """Collect faces and write them as a bank. Duplicates, closer than half the threshold, are skipped.

    Args:
        folder: where the bank is written; created when missing.
        faces: unit vector ``(D,)`` and portrait ``(1, 3, 256, 256)`` of each person.
        space: name of the recognizer's space.
        threshold: two unit vectors with a smaller L2 distance show the same person.

    Raises:
        InputError: there are no faces, or the folder is not empty. A folder in which a build was interrupted is used.
        OutputError: a file cannot be written.
    """
    from safetensors.torch import save

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder.name} is no folder; name a new one for the bank")
    if folder.exists() and any(folder.iterdir()) and not (folder / _UNFINISHED).is_file():
        raise InputError(f"{folder.name} is not empty; name a new folder for the bank")
    write_whole(folder / _UNFINISHED, b"")
    (folder / _VECTORS).unlink(missing_ok=True)
    kept: list[np.ndarray] = []
    for index, (vector, portrait) in enumerate(faces):
        if kept and np.linalg.norm(np.stack(kept) - vector, axis=1).min() < threshold / 2:
            continue
        save_image(LoadedImage(portrait), folder / _crop_name(len(kept)))
        kept.append(vector)
        progress(index, index + 1, "building the bank")
    # Of an interrupted build with other faces.
    number = len(kept)
    while (folder / _crop_name(number)).is_file():
        (folder / _crop_name(number)).unlink()
        number += 1
    if not kept:
        (folder / _UNFINISHED).unlink()
        raise InputError("no face was found to build a bank from; name a folder of portraits, one person each")
    tensors = {"vectors": torch.from_numpy(np.stack(kept)).float()}
    # Written last, so that an interrupted build does not open as a bank.
    write_whole(folder / _VECTORS, save(tensors, {"format": FORMAT, "space": space, "threshold": repr(threshold)}))
    (folder / _UNFINISHED).unlink()
    return Bank(Identity(np.stack(kept), space), threshold, folder)


def load_bank(folder: Path) -> Bank:
    """Open a bank.

    Raises:
        InputError: the folder contains no bank, or its file is damaged.
    """
    if (folder / _UNFINISHED).is_file():
        raise InputError(f"the bank {folder.name} is unfinished; build it again with: faceveil bank")
    tensors, metadata = read_safetensors(folder / _VECTORS, f"bank {folder.name}:", REMEDY, InputError)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{folder.name} contains no bank of format {FORMAT}; {REMEDY}")
    try:
        return Bank(
            Identity(tensors["vectors"].double().numpy(), metadata["space"]), float(metadata["threshold"]), folder
        )
    except (InputError, KeyError, ValueError):
        raise InputError(f"the bank {folder.name} is damaged; {REMEDY}") from None


def _crop_name(number: int) -> str:
    return f"{number:05}.webp"
