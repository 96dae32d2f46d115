"""A person of the appearance model: residual codes, what they look like in a photo, and how they are kept in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError
from ...images import write_whole
from ...stored import read_safetensors
from .frame import REGIONS
from .network import TRAITS, AppearanceModel
from .render import Look, Subject

FORMAT = "faceveil.persona/1"
LIMIT = 1.7
"""No ``z`` is larger: beyond 2 faces fall apart."""


@dataclass(frozen=True)
class Persona:
    """An identity of this model: residual codes a region, storable and re-usable on another photo.

    Attributes:
        codes: region name to ``z`` ``(Z,)``.
        traits: attributes that belong to a person and not to a photo, ``(11,)``, so that one looks alike in all photos.
        seed: of the noise that drew it.
    """

    codes: dict[str, np.ndarray]
    traits: np.ndarray
    seed: int


def attributes_of(subject: Subject, traits: np.ndarray) -> np.ndarray:
    """A photo's attributes ``(A + 1,)`` with the traits ``(11,)`` of a person."""
    attributes = subject.attributes.copy()
    attributes[TRAITS] = traits
    return attributes


def look_of(model: AppearanceModel, persona: Persona, subject: Subject) -> Look:
    """What a persona looks like with this photo's light, head turn and mouth: ``v = W a + E z``."""
    textures, shapes = {}, {}
    attributes = attributes_of(subject, persona.traits)
    for name in REGIONS:
        joint = model.expected(name, attributes) + model.person(name, persona.codes[name])
        k = model.regions[name].components
        textures[name], shapes[name] = joint[:k], joint[k:].astype(np.float64)
    return Look(textures, shapes)


def random_codes(
    model: AppearanceModel, name: str, count: int, spread: float, generator: torch.Generator
) -> np.ndarray:
    """Random residual codes of one region, ``(count, Z)``, normal with a standard deviation of ``spread``."""
    size = model.regions[name].residual.shape[1]
    return (torch.randn(count, size, generator=generator) * spread).clamp(-LIMIT, LIMIT).numpy()


def save_persona(path: Path, persona: Persona) -> None:
    """Write an identity as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    values = {**persona.codes, "traits": persona.traits}
    tensors = {name: torch.from_numpy(np.asarray(value, dtype=np.float32).copy()) for name, value in values.items()}
    write_whole(path, save(tensors, {"format": FORMAT, "seed": str(persona.seed)}))


def load_persona(path: Path, model: AppearanceModel) -> Persona:
    """Read an identity back.

    Raises:
        InputError: the file is missing, damaged, of another kind, or does not fit the model.
    """
    stored, metadata = read_safetensors(
        path, "identity file", "check its name and folder, or save it again", InputError
    )
    tensors = {key: value.float().numpy() for key, value in stored.items()}
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path.name} is not an identity of format {FORMAT}; save one with --save-identity")
    expected = {n: (r.residual.shape[1],) for n, r in model.regions.items()} | {"traits": TRAITS.shape}
    if {k: v.shape for k, v in tensors.items()} != expected:
        raise InputError(f"identity file {path.name} was made for another model; save it again with this one")
    if not all(np.isfinite(v).all() for v in tensors.values()):
        raise InputError(f"identity file {path.name} holds values that are not finite; save it again")
    traits = tensors.pop("traits")
    return Persona(tensors, traits, int(metadata.get("seed", 0)))
