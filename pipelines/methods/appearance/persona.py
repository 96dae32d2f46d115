"""Keep an identity of the appearance model in a file: its residual codes, no picture and no name of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from ...images import write_whole
from .network import TRAITS, AppearanceModel
from .search import Persona

FORMAT = "faceveil.persona/1"


def save_persona(path: Path, persona: Persona) -> None:
    """Write an identity as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    import torch
    from safetensors.torch import save

    values = {**persona.codes, "traits": persona.traits}
    tensors = {name: torch.from_numpy(np.asarray(value, dtype=np.float32).copy()) for name, value in values.items()}
    write_whole(path, save(tensors, {"format": FORMAT, "seed": str(persona.seed)}))


def load_persona(path: Path, model: AppearanceModel) -> Persona:
    """Read an identity back.

    Raises:
        InputError: the file is missing, damaged, of another kind, or does not fit the model.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"identity file {path.name} does not exist; check its name and folder")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float().numpy() for key in file.keys()}  # not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"identity file {path.name} is not a whole safetensors file ({error}); save it again") from None
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path.name} is not an identity of format {FORMAT}; save one with --save-identity")
    expected = {n: (r.residual.shape[1],) for n, r in model.regions.items()} | {"traits": TRAITS.shape}
    if {k: v.shape for k, v in tensors.items()} != expected:
        raise InputError(f"identity file {path.name} was made for another model; save it again with this one")
    if not all(np.isfinite(v).all() for v in tensors.values()):
        raise InputError(f"identity file {path.name} holds values that are not finite; save it again")
    traits = tensors.pop("traits")
    return Persona(tensors, traits, int(metadata.get("seed", 0)))
