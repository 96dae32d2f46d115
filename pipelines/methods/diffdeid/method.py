"""DiffDeID as a method: identity and geometry of a new person from the LDS, everything else from the photo.

``strength`` chooses the paper's level: 10 levels up to strength 1.5, so 1 is level 7. Level 10 is unrelated to the
person.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
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
from ...identity.blend import slerp
from ...identity.identity import Identity
from ...identity.lds import LEVELS, IdentitySampler, builtin_sampler
from ...recognition.base import FaceRecognizer, unit
from ...recognition.catalog import open_recognizer
from ..base import MAX_STRENGTH, Change, StreamedFrame, View, pasted, too_small
from ..identities import MethodIdentity
from .conditions import FaceReader, FaceView, conditions_of, paste_mask
from .people import NewPerson, Sampling, alpha_of, with_geometry
from .pipeline import STEPS, Checkpoint, DiffDeIDPipeline

log = logging.getLogger(__name__)

NAME = "diffdeid"
MAX_YAW = 60.0
"""Maximum yaw in degrees. Beyond it the landmarks, and so the fitted face, are guesses."""
_GEOMETRY, _CHOICES = "geometry", "choices"


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
        clips: the network for clips, with which videos are reenacted.
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
        clips: Checkpoint | None = None,
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
        self.steps, self.guidance, self.level, self.clips = steps, guidance, level, clips

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        own = unit(self.recognizer.embed(view.image, view.face.points))
        return Prepared(view, self.reader(view.image, view.face.points), own)

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        yaw = float(np.degrees(abs(float(prepared.face.coefficients.angles[0, 1]))))
        return f"its yaw is too large ({yaw:.0f} degrees, the limit is {MAX_YAW:.0f})" if yaw > MAX_YAW else None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        """The person of level 10, and for lower levels the numbers of the noise that they come from.

        Lower levels are sampled from each photo when it is rendered: what is saved must not resemble the original.
        """
        own = unit(np.mean([p.own for p in prepared], axis=0))
        alpha = np.mean([alpha_of(p.face) for p in prepared], axis=0)
        choices = np.full((LEVELS, 4), -1)
        levels = sorted({self.level, LEVELS}) if self.level else range(1, LEVELS + 1)
        for level in levels:
            progress(level - 1, LEVELS, "sampling an identity")
            person, choices[level - 1] = self._sampling(level, seed).choose(own, alpha)
        identity = Identity(person.vector[None], self.checkpoint.space)
        return MethodIdentity(NAME, seed, identity, {_GEOMETRY: person.alpha, _CHOICES: choices})

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        if identity.space != self.checkpoint.space:
            raise InputError(
                f"this DiffDeID checkpoint needs an identity of the space {self.checkpoint.space}, but this one is of"
                f" {identity.space}; embed the face with {self.recognizer.name}"
            )
        own, alpha = prepared[0].own, np.mean([alpha_of(p.face) for p in prepared], axis=0)
        person, _ = self._sampling(LEVELS, seed).choose(own, alpha)
        return MethodIdentity(NAME, seed, identity, {_GEOMETRY: person.alpha})

    @property
    def streams(self) -> bool:
        return self.clips is not None

    def stream(
        self,
        frames: Iterable[tuple[Tensor, Sequence[Face]]],
        recognizers: Sequence[FaceRecognizer],
        seed: int,
        strength: float,
        progress: Progress = silent,
    ) -> Iterator[StreamedFrame]:
        from .video import Reenactment

        waiting: deque[Sequence[Face]] = deque()

        def images() -> Iterator[Tensor]:
            for image, faces in frames:
                waiting.append(faces)
                yield image

        reenactment = Reenactment(
            self, self.clips, recognizers, lambda _: waiting.popleft(), seed, strength, self.steps
        )
        return reenactment(images(), progress)

    def _sampling(self, level: int, seed: int) -> Sampling:
        return Sampling(self.identities, self.geometries, level, seed)

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        person = identity.of(NAME)
        points, image, face = prepared.view.face.points, prepared.view.image, prepared.face
        if strength == 0:
            return pasted(image, face.transform, face.square, torch.zeros_like(face.mask), points)
        new = self.person(prepared, person, strength)
        square, drawn = self.draw(prepared, new, person.seed, progress)
        return pasted(image, face.transform, square, paste_mask(face, drawn, points), points)

    def person(self, prepared: Prepared, identity: MethodIdentity, strength: float) -> NewPerson:
        """The new person for one photo at a strength above 0.

        A sampled person is that of the level; on the way to a given one, the vectors are interpolated.

        Raises:
            InputError: the identity is incomplete.
        """
        level = self.level or level_of(strength)
        if identity.identity is None or _GEOMETRY not in identity.codes:
            raise InputError("this DiffDeID identity is incomplete; save it again")
        vector, alpha = identity.identity.vector, identity.codes[_GEOMETRY]
        if level == LEVELS:
            return NewPerson(vector, alpha)
        own, own_alpha = prepared.own, alpha_of(prepared.face)
        if _CHOICES not in identity.codes:
            share = level / LEVELS
            between = slerp(Identity(own[None], self.checkpoint.space), identity.identity, share)
            return NewPerson(between.vector, (1 - share) * own_alpha + share * alpha)
        choice, sampling = identity.codes[_CHOICES][level - 1], self._sampling(level, identity.seed)
        if min(choice) < 0:
            raise InputError(f"this DiffDeID identity was sampled without level {level}; sample it again")
        found = sampling.again(own, own_alpha, choice)
        if found.excess > 0:
            log.warning("level %d was missed by a cosine of %.2f", level, found.excess)
        return found

    def draw(
        self, prepared: Prepared, person: NewPerson, seed: int, progress: Progress = silent
    ) -> tuple[Tensor, Tensor]:
        """The new square ``(1, 3, S, S)`` and the mask of what was drawn ``(1, 1, S, S)``."""
        coefficients = with_geometry(prepared.face, person.alpha)
        model, standardizer = self.reader.model, self.checkpoint.standardizer
        conditions, drawn = conditions_of(model, standardizer, prepared.face, coefficients, person.vector)
        generator = torch.Generator().manual_seed(seed)
        return self.pipeline.sample(conditions, [generator], self.steps, self.guidance, progress), drawn


def method_of(
    checkpoint: Checkpoint,
    steps: int = STEPS,
    guidance: float = 1.0,
    level: int = 0,
    parser: FaceParser | None = None,
    clips: Checkpoint | None = None,
) -> DiffDeIDMethod:
    """The method with the built-in morphable model and samplers, on the best device.

    Raises:
        WeightsError: the checkpoint was trained on clips, or that of the clips was not.
    """
    if not checkpoint.space:
        raise WeightsError("this DiffDeID checkpoint was trained on clips; choose one for images")
    if clips is not None and clips.space:
        raise WeightsError("the DiffDeID checkpoint for clips was trained on images; make one with diffdeid-video")
    for network in (c.network for c in (checkpoint, clips) if c is not None):
        network.to(best_device())
    return DiffDeIDMethod(
        checkpoint,
        FaceReader(built_in_morphable_model(), checkpoint.network.config.size, parser),
        open_recognizer(checkpoint.space),
        builtin_sampler(checkpoint.space),
        builtin_sampler(checkpoint.model),
        steps,
        guidance,
        level,
        clips,
    )


def level_of(strength: float) -> int:
    """The level, 1 to 10, of a strength above 0 and at most 1.5."""
    return int(np.clip(round(LEVELS * strength / MAX_STRENGTH), 1, LEVELS))
