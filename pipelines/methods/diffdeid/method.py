"""DiffDeID as a method: identity and geometry of a new person from the LDS, everything else from the photo.

``strength`` chooses the paper's level: 10 levels up to strength 1.5, so 1 is level 7. Level 10 is unrelated to the
person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.devices import best_device
from ...core.errors import InputError, WeightsError
from ...core.progress import Progress, silent
from ...faces.face import Face
from ...faces.parse import FaceParser
from ...geometry.builtin import built_in_morphable_model
from ...geometry.coefficients import Coefficients
from ...identity.blend import slerp
from ...identity.identity import Identity
from ...identity.lds import LEVELS, IdentitySampler, builtin_sampler
from ...recognition.base import FaceRecognizer, unit
from ...recognition.catalog import open_recognizer
from ..base import MAX_STRENGTH, Change, View, pasted, too_small
from ..identities import MethodIdentity
from .conditions import FaceReader, FaceView, conditions_of, paste_mask
from .people import GEOMETRY_SEED, sampled, sampled_geometry, with_geometry
from .pipeline import STEPS, Checkpoint, DiffDeIDPipeline

NAME = "diffdeid"
MAX_YAW = 60.0
"""Maximum yaw in degrees. Beyond it the landmarks, and so the fitted face, are guesses."""
_GEOMETRY, _SAMPLED = "geometry", "sampled"


@dataclass(frozen=True)
class Prepared:
    """An analyzed face: its image, the conditions that stay, and its own z_id ``(D,)``."""

    view: View
    face: FaceView
    own: np.ndarray


class DiffDeIDMethod:
    """See ``Method``.

    Args:
        checkpoint: the trained network for images.
        reader: analyzes faces at the network's size with the checkpoint's morphable model.
        recognizer: of the checkpoint's identity space.
        identities, geometries: samplers of z_id and of the identity coefficients.
        steps, guidance: as for ``DiffDeIDPipeline.sample``.
        level: 1 to 10; 0 for the level of the strength.
    """

    name = NAME

    def __init__(
        self,
        checkpoint: Checkpoint,
        reader: FaceReader,
        recognizer: FaceRecognizer,
        identities: IdentitySampler,
        geometries: IdentitySampler,
        steps: int = STEPS,
        guidance: float = 1.0,
        level: int = 0,
    ) -> None:
        for what, space, needed in (
            ("recognizer", recognizer.name, checkpoint.space),
            ("identity sampler", identities.space, checkpoint.space),
            ("geometry sampler", geometries.space, checkpoint.model),
        ):
            if space != needed:
                raise InputError(f"this DiffDeID checkpoint needs a {what} of {needed}, but this one is of {space}")
        self.checkpoint, self.reader, self.recognizer = checkpoint, reader, recognizer
        self.identities, self.geometries = identities, geometries
        self.pipeline = DiffDeIDPipeline(checkpoint.network)
        self.steps, self.guidance, self.level = steps, guidance, level

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        own = unit(self.recognizer.embed(view.image, view.face.points))
        return Prepared(view, self.reader(view.image, view.face.points), own)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        yaw = float(np.degrees(abs(prepared.face.coefficients.angles[0, 1])))
        return f"its yaw is too large ({yaw:.0f} degrees, the limit is {MAX_YAW:.0f})" if yaw > MAX_YAW else None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        """The person of level 10, the same in all photos.

        Lower levels are sampled from each photo when it is rendered: what is saved must not resemble the original.
        """
        own = unit(np.mean([p.own for p in prepared], axis=0))
        vector = self.identities.level(own, LEVELS, seed).vectors
        codes = self._geometry(prepared, seed) | {_SAMPLED: np.ones(1)}
        return MethodIdentity(NAME, seed, Identity(vector, self.checkpoint.space), codes)

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        if identity.space != self.checkpoint.space:
            raise InputError(
                f"this DiffDeID checkpoint needs an identity of the space {self.checkpoint.space}, but this one is of"
                f" {identity.space}; embed the face with {self.recognizer.name}"
            )
        return MethodIdentity(NAME, seed, identity, self._geometry(prepared, seed))

    def _geometry(self, prepared: Sequence[Prepared], seed: int) -> dict[str, np.ndarray]:
        alpha = np.mean([p.face.coefficients.identity[0].double().numpy() for p in prepared], axis=0)
        return {_GEOMETRY: self.geometries.level(alpha, LEVELS, seed + GEOMETRY_SEED).vectors[0]}

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        person = identity.of(NAME)
        points, image, face = prepared.view.face.points, prepared.view.image, prepared.face
        if strength == 0:
            return pasted(image, face.transform, face.square, torch.zeros_like(face.mask), points)
        square, drawn = self.draw(prepared, person, strength, progress)
        return pasted(image, face.transform, square, paste_mask(face, drawn, points), points)

    def draw(
        self, prepared: Prepared, person: MethodIdentity, strength: float, progress: Progress = silent
    ) -> tuple[Tensor, Tensor]:
        """The new square ``(1, 3, S, S)`` and the mask of what was drawn ``(1, 1, S, S)``, at a strength above 0."""
        vector, coefficients = self.deidentified(prepared, person, strength)
        conditions, drawn = conditions_of(
            self.reader.model, self.checkpoint.standardizer, prepared.face, coefficients, vector
        )
        generator = torch.Generator().manual_seed(person.seed)
        return self.pipeline.sample(conditions, [generator], self.steps, self.guidance, progress), drawn

    def deidentified(
        self, prepared: Prepared, person: MethodIdentity, strength: float
    ) -> tuple[np.ndarray, Coefficients]:
        """z'_id ``(D,)`` and p' of a new person at a strength above 0.

        A sampled person is that of the level; on the way to a given one, the vectors are interpolated.
        """
        if person.identity is None or _GEOMETRY not in person.codes:
            raise InputError("this DiffDeID identity is incomplete; save it again")
        level = self.level or level_of(strength)
        own_alpha = prepared.face.coefficients.identity[0].double().numpy()
        vector, alpha = person.identity.vector, person.codes[_GEOMETRY]
        if level < LEVELS and _SAMPLED in person.codes:
            vector = sampled(self.identities, prepared.own, level, person.seed)
            alpha = sampled_geometry(self.geometries, prepared.face, level, person.seed)
        elif level < LEVELS:
            share = level / LEVELS
            vector = slerp(Identity(prepared.own[None], self.checkpoint.space), person.identity, share).vector
            alpha = (1 - share) * own_alpha + share * alpha
        return vector, with_geometry(prepared.face, alpha)


def method_of(
    checkpoint: Checkpoint,
    steps: int = STEPS,
    guidance: float = 1.0,
    level: int = 0,
    parser: FaceParser | None = None,
) -> DiffDeIDMethod:
    """The method with the built-in morphable model and samplers, on the best device.

    Raises:
        WeightsError: the checkpoint was trained on clips.
    """
    if not checkpoint.space:
        raise WeightsError("this DiffDeID checkpoint was trained on clips; choose one for images")
    checkpoint.network.to(best_device())
    return DiffDeIDMethod(
        checkpoint,
        FaceReader(built_in_morphable_model(), checkpoint.network.config.size, parser),
        open_recognizer(checkpoint.space),
        builtin_sampler(checkpoint.space),
        builtin_sampler(checkpoint.model),
        steps,
        guidance,
        level,
    )


def level_of(strength: float) -> int:
    """The level, 1 to 10, of a strength above 0 and at most 1.5."""
    return int(np.clip(round(LEVELS * strength / MAX_STRENGTH), 1, LEVELS))
