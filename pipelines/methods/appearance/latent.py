"""The appearance latent: the residual codes of one person, and the appearance they give in a photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...core.errors import InputError
from ..identities import MethodIdentity
from .canonical import REGIONS
from .network import TRAITS, AppearanceModel
from .render import Appearance, Subject

NAME = "appearance"
"""Of the method."""
MAX_CODE = 1.7
"""Bound of each number of ``z``: beyond 2 faces fall apart."""
_TRAITS = "traits"


@dataclass(frozen=True)
class AppearanceLatent:
    """One person of this model.

    Attributes:
        codes: region name to residual code ``z`` ``(Z,)``.
        traits: attributes of the person rather than of the photo, ``(11,)``, the same in all of the person's photos.
        seed: of the random stream that the codes were sampled from.
    """

    codes: dict[str, np.ndarray]
    traits: np.ndarray
    seed: int

    def method_identity(self) -> MethodIdentity:
        """The same, to be kept and rendered again."""
        return MethodIdentity(NAME, self.seed, codes={**self.codes, _TRAITS: self.traits})


def latent_of(model: AppearanceModel, identity: MethodIdentity) -> AppearanceLatent:
    """The latent of a kept identity.

    Raises:
        InputError: it belongs to another method, or to a model of other sizes.
    """
    codes = dict(identity.of(NAME).codes)
    expected = {n: (r.residual.shape[1],) for n, r in model.regions.items()} | {_TRAITS: TRAITS.shape}
    if {name: code.shape for name, code in codes.items()} != expected:
        raise InputError("this identity was made with another appearance model; make it again with this one")
    return AppearanceLatent({n: codes[n] for n in REGIONS}, codes[_TRAITS], identity.seed)


def attributes_of(subject: Subject, traits: np.ndarray) -> np.ndarray:
    """A photo's attributes ``(A + 1,)`` with the traits ``(11,)`` of a person."""
    attributes = subject.attributes.copy()
    attributes[TRAITS] = traits
    return attributes


def appearance_of(model: AppearanceModel, latent: AppearanceLatent, subject: Subject) -> Appearance:
    """What a latent looks like with this photo's light, head turn and mouth: ``v = W a + E z``."""
    textures, shapes = {}, {}
    attributes = attributes_of(subject, latent.traits)
    for name in REGIONS:
        joint = model.expected(name, attributes) + model.person(name, latent.codes[name])
        k = model.regions[name].components
        textures[name], shapes[name] = joint[:k], joint[k:].astype(np.float64)
    return Appearance(textures, shapes)


def random_codes(
    model: AppearanceModel, name: str, count: int, spread: float, generator: torch.Generator
) -> np.ndarray:
    """Random residual codes of one region, ``(count, Z)``, normal with a standard deviation of ``spread``."""
    size = model.regions[name].residual.shape[1]
    return (torch.randn(count, size, generator=generator) * spread).clamp(-MAX_CODE, MAX_CODE).numpy()
