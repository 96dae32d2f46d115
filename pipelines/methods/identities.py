"""What a method needs to show one person again; this module alone saves and loads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..core.errors import InputError
from ..core.files import write_whole
from ..core.stored import read_safetensors
from ..identity.identity import FORMAT as IDENTITY_FORMAT
from ..identity.identity import Identity, load_identity, save_identity

FORMAT = "faceveil.method-identity/1"
_CODES, _VECTORS = "codes.", "identity.vectors"
_REMEDY = "check its name and folder, or save it again"


@dataclass(frozen=True)
class MethodIdentity:
    """One person as one method shows them.

    Attributes:
        method: name of the method that made it and can render it again.
        seed: of the random stream that it was drawn from.
        identity: the embedding that is shown, for methods that take one.
        codes: arrays by name, for methods with codes of their own.
    """

    method: str
    seed: int = 0
    identity: Identity | None = None
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def of(self, method: str) -> MethodIdentity:
        """Itself, where it belongs to ``method``.

        Raises:
            InputError: it belongs to another one.
        """
        if self.method != method:
            raise InputError(f"this identity was made by the method {self.method}; {method} cannot show it")
        return self


def save_any_identity(path: Path, identity: Identity | MethodIdentity) -> None:
    """Write an identity, or what a method needs to show one again, as safetensors: no image and no file name.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    if isinstance(identity, Identity):
        save_identity(path, identity)
        return
    tensors = {_CODES + name: _tensor(value) for name, value in identity.codes.items()}
    metadata = {"format": FORMAT, "method": identity.method, "seed": str(identity.seed)}
    if identity.identity is not None:
        tensors[_VECTORS] = _tensor(identity.identity.vectors)
        metadata["space"] = identity.identity.space
    write_whole(path, save(tensors, metadata))


def load_any_identity(path: Path) -> Identity | MethodIdentity:
    """Read what ``save_any_identity`` wrote.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    tensors, metadata = read_safetensors(path, "identity file", _REMEDY, InputError)
    if metadata.get("format") == IDENTITY_FORMAT:
        return load_identity(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path.name} is not an identity file; name one that Save Identity or --save-identity wrote")
    arrays = {name: tensor.float().numpy() for name, tensor in tensors.items()}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(f"identity file {path.name} holds values that are not finite; save it again")
    try:
        identity = Identity(arrays[_VECTORS], metadata["space"]) if _VECTORS in arrays else None
        seed = int(metadata["seed"])
        codes = {name.removeprefix(_CODES): array for name, array in arrays.items() if name.startswith(_CODES)}
        return MethodIdentity(metadata["method"], seed, identity, codes)
    except (KeyError, ValueError):
        raise InputError(f"identity file {path.name} is damaged; save it again") from None


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
