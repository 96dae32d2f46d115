"""Appearance latent: the residual codes of one person, and the texture and shape codes they give in a photo."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ...core.errors import InputError
from ..identities import MethodIdentity
from .canonical import REGIONS
from .network import TRAITS, AppearanceModel
from .render import Appearance, Subject
from .shape import Correction

NAME = "appearance"
"""Name of the method."""
MAX_CODE = 3.0
"""Limit of the absolute value of each element of ``z``. Real people rarely exceed it."""
_TRAITS, _CORRECTION = "traits", "correction"


@dataclass(frozen=True)
class AppearanceLatent:
    """Latent codes of one person.

    Attributes:
        codes: region name to residual code ``z`` ``(Z,)``.
        traits: the attributes that belong to the person, not to the photo, ``(12,)``; the same in all photos of the
            person.
        seed: of the random generator that the codes were sampled from.
    """

    codes: dict[str, np.ndarray]
    traits: np.ndarray
    seed: int

    def method_identity(self) -> MethodIdentity:
        """Convert to a method identity, which can be saved."""
        return MethodIdentity(NAME, self.seed, codes={**self.codes, _TRAITS: self.traits})


def latent_of(model: AppearanceModel, identity: MethodIdentity) -> AppearanceLatent:
    """Convert a method identity back to a latent.

    Raises:
        InputError: the identity belongs to another method, or to a model with other code sizes.
    """
    codes = {name: code for name, code in identity.of(NAME).codes.items() if name != _CORRECTION}
    expected = {n: (r.residual.shape[1],) for n, r in model.regions.items()} | {_TRAITS: TRAITS.shape}
    if {name: code.shape for name, code in codes.items()} != expected:
        raise InputError("this identity was made with another appearance model; create a new one with this model")
    return AppearanceLatent({n: codes[n] for n in REGIONS}, codes[_TRAITS], identity.seed)


def with_correction(identity: MethodIdentity, values: np.ndarray) -> MethodIdentity:
    """The same identity with a correction of the expression, ``(4,)``, that holds in all frames of a video."""
    return replace(identity, codes={**identity.codes, _CORRECTION: values})


def correction_of(identity: MethodIdentity) -> Correction | None:
    """The correction that ``with_correction`` stored; None where there is none."""
    values = identity.codes.get(_CORRECTION)
    return None if values is None else Correction(*(float(v) for v in values))


def attributes_of(subject: Subject, traits: np.ndarray) -> np.ndarray:
    """Replace the traits ``(12,)`` in a photo's attributes; returns ``(A + 1,)``."""
    attributes = subject.attributes.copy()
    attributes[TRAITS] = traits
    return attributes


def appearance_of(model: AppearanceModel, latent: AppearanceLatent, subject: Subject) -> Appearance:
    """Compute the codes of a latent for the light, yaw and mouth of this photo: ``v = W a + E z``."""
    textures, shapes = {}, {}
    attributes = attributes_of(subject, latent.traits)
    for name in REGIONS:
        joint = model.expected(name, attributes) + model.deviation(name, latent.codes[name])
        k = model.regions[name].components
        textures[name], shapes[name] = joint[:k], joint[k:].astype(np.float64)
    return Appearance(textures, shapes)


def random_codes(
    model: AppearanceModel, name: str, count: int, spread: float, generator: torch.Generator
) -> np.ndarray:
    """Sample residual codes ``(count, Z)`` of one region from N(0, ``spread``^2), clamped to +-``MAX_CODE``."""
    size = model.regions[name].residual.shape[1]
    return (torch.randn(count, size, generator=generator) * spread).clamp(-MAX_CODE, MAX_CODE).numpy()
