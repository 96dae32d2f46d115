"""IDDiffuse as a method: the nearest synthetic person of a bank, drawn with the texture of the photo.

``strength`` sets gamma = 1 - strength: 1 and more draw the synthetic person, values below keep a part of the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import CannotReplace, InputError
from ...core.progress import Progress, silent
from ...faces.align import apply, arcface_transform
from ...faces.detect import detect_faces
from ...faces.face import Face, inter_ocular
from ...faces.masks import box_mask, hull_mask
from ...identity.bank import Bank
from ...identity.identity import Identity
from ...recognition.base import FaceRecognizer, unit
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .conditions import SIZE, blended
from .network import Denoiser
from .pairs import aligned, nearest_person
from .pipeline import STEPS, Checkpoint, IDDiffusePipeline

NAME = "iddiffuse"
GROW, FEATHER = 0.15, 0.12
"""Growth and feather of the pasted face in inter-ocular distances."""
_PERSON = "person"
Upscaler = Callable[[Tensor], Tensor]
"""From ``(1, 3, S, S)`` to a larger square, in [0, 1]."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face of an image, its aligned square ``(1, 3, 112, 112)`` in [0, 1], and its identity."""

    image: Tensor
    face: Face
    square: Tensor
    own: Identity


class IDDiffuseMethod:
    """See ``Method``.

    Args:
        recognizer: of the checkpoint's identity space.
        bank: synthetic people with portraits, of the same space.
        skip_similar: leave out people whom the recognizer would match with the original; the paper does not.
        upscaler: enlarges the drawn square before it is pasted.

    Raises:
        InputError: the recognizer or the bank is of another space, or the bank has no portraits.
    """

    name = NAME

    def __init__(
        self,
        checkpoint: Checkpoint,
        recognizer: FaceRecognizer,
        bank: Bank,
        steps: int = STEPS,
        skip_similar: bool = False,
        upscaler: Upscaler | None = None,
    ) -> None:
        for what, space in (("recognizer", recognizer.name), ("bank", bank.space)):
            if space != checkpoint.space:
                raise InputError(
                    f"this IDDiffuse checkpoint needs a {what} of {checkpoint.space}, but this one is of {space}"
                )
        if bank.folder is None:
            raise InputError("this bank contains no portraits; build one with: faceveil bank")
        self.checkpoint, self.recognizer, self.bank = checkpoint, recognizer, bank
        self.pipeline = IDDiffusePipeline(checkpoint.network)
        self.steps, self.skip_similar, self.upscaler = steps, skip_similar, upscaler

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        return prepare(self.recognizer, view.image, view.face)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        return None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        """The bank's person for this one. It does not depend on the seed: consistency is the method's purpose."""
        own = Identity(np.concatenate([p.own.vectors for p in prepared]), self.checkpoint.space).average()
        return self._person(own, seed, self.skip_similar)

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        """The bank's person nearest to ``identity``."""
        if identity.space != self.checkpoint.space:
            raise InputError(
                f"this IDDiffuse checkpoint needs an identity of the space {self.checkpoint.space}, but this one is of"
                f" {identity.space}; embed the face with {self.recognizer.name}"
            )
        return self._person(identity.average(), seed, False)

    def _person(self, identity: Identity, seed: int, skip_similar: bool) -> MethodIdentity:
        try:
            number = nearest_person(self.bank, identity, skip_similar)
        except InputError as error:
            raise CannotReplace(str(error)) from None
        return MethodIdentity(NAME, seed, self.bank.identities[number], {_PERSON: np.array([number])})

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        person = identity.of(NAME)
        if person.identity is None or _PERSON not in person.codes:
            raise InputError("this IDDiffuse identity is incomplete; save it again")
        points, image, network = prepared.face.points, prepared.image, self.checkpoint.network
        if strength == 0:
            nothing = torch.zeros(1, 1, SIZE, SIZE)
            return pasted(image, arcface_transform(points, SIZE), prepared.square, nothing, points)
        number, gamma = int(person.codes[_PERSON][0]), max(0.0, 1 - strength)
        tokens = identity_tokens(network, prepared, self.bank, number, gamma)
        with torch.no_grad():
            texture = network.texture((prepared.square * 2 - 1).to(network.scale.device, network.dtype))
        generator = torch.Generator().manual_seed(person.seed)
        square = self.pipeline.sample(tokens, texture, [generator], self.steps, progress)
        if self.upscaler is not None:
            square = self.upscaler(square)
        size = square.shape[-1]
        transform = arcface_transform(points, size)
        return pasted(image, transform, square, paste_mask(transform, points, size), points)


def prepare(recognizer: FaceRecognizer, image: Tensor, face: Face) -> Prepared:
    """Analyze one face of ``image`` ``(1, 3, H, W)``."""
    own = Identity(unit(recognizer.embed(image, face.points)), recognizer.name)
    return Prepared(image, face, aligned(image, face.points, SIZE), own)


@torch.no_grad()
def identity_tokens(network: Denoiser, prepared: Prepared, bank: Bank, number: int, gamma: float) -> Tensor:
    """Tokens ``(1, 50, T)`` between the face's own person (gamma 1) and one of the bank (gamma 0)."""
    device, dtype = network.scale.device, network.dtype

    def encoded(square: Tensor, vector: np.ndarray) -> Tensor:
        row = torch.from_numpy(vector)[None].to(device, dtype)
        return network.identity((square * 2 - 1).to(device, dtype), row)  # type: ignore[no-any-return]

    synthetic = encoded(aligned_portrait(bank.portrait(number)), bank.identities[number].vector)
    return blended(encoded(prepared.square, prepared.own.vector), synthetic, gamma)


def aligned_portrait(portrait: Tensor) -> Tensor:
    """The face of a bank's portrait ``(1, 3, 256, 256)``, aligned as for ArcFace, ``(1, 3, 112, 112)``.

    Raises:
        InputError: no face is found in it.
    """
    found = [face for face in detect_faces(portrait, rotated=False) if face.landmarks]
    if not found:
        raise InputError("a portrait of the bank shows no face; build the bank again")
    return aligned(portrait, max(found, key=lambda f: f.area).points, SIZE)


def paste_mask(transform: np.ndarray, points: np.ndarray, size: int) -> Tensor:
    """What to paste of a new square ``(1, 1, size, size)``: the face with a soft edge, nothing at the square's border.

    Args:
        transform: from the image to the square.
        points: 68 landmarks in pixels of the image.
    """
    inside = apply(transform, points)
    feather = FEATHER * inter_ocular(inside)
    face = hull_mask(inside, size, size, grow=GROW, feather=feather)
    border = box_mask((2 * feather, 2 * feather, size - 2 * feather, size - 2 * feather), size, size, 0.0, feather)
    return torch.minimum(face, border)
