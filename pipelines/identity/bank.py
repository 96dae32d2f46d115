"""A bank of synthetic people: identities of one space with one picture each, kept as a folder, found by nearness."""

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
_VECTORS = "bank.safetensors"


@dataclass(frozen=True)
class Bank:
    """Synthetic people.

    Attributes:
        identities: one vector a person.
        threshold: L2 distance of unit vectors below which two are one person.
        folder: holds a picture of each, ``00000.webp`` and so on, 256 px in the FFHQ alignment; None for a bank without
            pictures.
    """

    identities: Identity
    threshold: float
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def space(self) -> str:
        return self.identities.space

    def picture(self, number: int) -> Tensor:
        """A person's face ``(1, 3, 256, 256)``.

        Raises:
            InputError: the bank has no pictures, or this one is gone.
        """
        if self.folder is None:
            raise InputError("this bank holds no pictures; build one from a folder of faces")
        return load_image(self.folder / _crop_name(number)).pixels

    def nearest_free(self, identity: Identity, taken: Collection[int] = (), apart: float | None = None) -> int:
        """IDDiffuse's mapping f: the number of the nearest synthetic person whom nobody has yet.

        Args:
            taken: numbers that are given out.
            apart: L2 distance of unit vectors that the synthetic person keeps; the threshold when omitted, because
                somebody whom the recognizer takes for the original would hide nobody. The paper has no such limit.

        Raises:
            InputError: the identity is of another space, or nobody is free and far enough.
        """
        limit = self.threshold if apart is None else apart
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

    def strangers(self, identity: Identity) -> np.ndarray:
        """Numbers of all whom the recognizer tells from ``identity``."""
        return np.flatnonzero(self.identities.cosine(identity.average())[:, 0] < 1 - self.threshold**2 / 2)


def build_bank(
    folder: Path, faces: Iterable[tuple[np.ndarray, Tensor]], space: str, threshold: float, progress: Progress = silent
) -> Bank:
    """Collect people and write them; somebody who is already there is left out.

    Args:
        folder: for the bank; made when missing.
        faces: unit vector ``(D,)`` and picture ``(1, 3, 256, 256)`` of each.

    Raises:
        InputError: there are no faces, or the folder holds something.
        OutputError: a file cannot be written.
    """
    from safetensors.torch import save

    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder.name} is not empty; name a new folder for the bank")
    kept: list[np.ndarray] = []
    for seen, (vector, picture) in enumerate(faces):
        if kept and np.linalg.norm(np.stack(kept) - vector, axis=1).min() < threshold / 2:
            continue
        save_image(LoadedImage(picture), folder / _crop_name(len(kept)))
        kept.append(vector)
        progress(seen, seen + 1, "building the bank")
    if not kept:
        raise InputError("no face was found to build a bank from; name a folder of portraits, one person each")
    tensors = {"vectors": torch.from_numpy(np.stack(kept)).float()}
    # Written last: a bank that was interrupted is not one.
    write_whole(folder / _VECTORS, save(tensors, {"format": FORMAT, "space": space, "threshold": repr(threshold)}))
    return Bank(Identity(np.stack(kept), space), threshold, folder)


def load_bank(folder: Path) -> Bank:
    """Open a bank.

    Raises:
        InputError: the folder holds none, or the file is damaged.
    """
    tensors, metadata = read_safetensors(folder / _VECTORS, f"bank {folder.name}:", REMEDY, InputError)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{folder.name} holds no bank of format {FORMAT}; {REMEDY}")
    try:
        return Bank(
            Identity(tensors["vectors"].double().numpy(), metadata["space"]), float(metadata["threshold"]), folder
        )
    except (InputError, KeyError, ValueError):
        raise InputError(f"the bank {folder.name} is damaged; {REMEDY}") from None


def _crop_name(number: int) -> str:
    return f"{number:05}.webp"
