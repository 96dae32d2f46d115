"""New people for the faces of a batch of images, as DiffDeID's conditions; *DiffDeID Conditioning* uses it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...core.seeds import face_seed
from ...faces.crops import Place
from ...faces.face import Faces
from ...geometry.builtin import built_in_morphable_model
from ...geometry.coefficients import Coefficients
from ...identity.identity import Identity
from ...identity.lds import IdentitySampler, builtin_sampler
from ...recognition.base import unit
from ...recognition.catalog import open_recognizer
from .conditions import FaceReader, FaceView, conditions_of, paste_mask
from .network import Conditions
from .pipeline import Checkpoint

log = logging.getLogger(__name__)
GEOMETRY_SEED = 1
"""Added to the seed for the geometry, whose noise must not be the identity's."""


@dataclass(frozen=True)
class Described:
    """Conditions of N faces, where their squares belong, and what to paste of them, ``(N, 1, S, S)``."""

    conditions: Conditions
    places: tuple[Place, ...]
    masks: Tensor


def describe_faces(
    checkpoint: Checkpoint,
    images: Tensor,
    faces: Faces,
    level: int,
    seed: int,
    identity: Identity | None = None,
    progress: Progress = silent,
) -> Described:
    """Describe a new person in the place of each face with landmarks.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        identity: people to show, one row or one for each face; sampled at the level when omitted.

    Raises:
        InputError: no face has landmarks, or the identity is of another space or number.
    """
    chosen = [face for face in faces if face.landmarks]
    if not chosen:
        raise InputError("no face with landmarks was found; connect images that show a face from the front")
    if not checkpoint.space:
        raise InputError("this DiffDeID checkpoint was trained on clips; load one for images")
    given = None if identity is None else _given(identity, checkpoint.space, len(chosen))
    model = built_in_morphable_model()
    reader, recognizer = FaceReader(model, checkpoint.network.config.size), open_recognizer(checkpoint.space)
    rows, places, masks = [], [], []
    for done, face in enumerate(chosen):
        progress(done, len(chosen), "describing faces")
        image = images[face.image : face.image + 1]
        view = reader(image, face.points)
        own = face_seed(seed, face.box, face.track)
        vector = (
            sampled(builtin_sampler(checkpoint.space), unit(recognizer.embed(image, face.points)), level, own)
            if given is None
            else given[done]
        )
        coefficients = with_geometry(view, sampled_geometry(builtin_sampler(checkpoint.model), view, level, own))
        conditions, drawn = conditions_of(model, checkpoint.standardizer, view, coefficients, vector)
        rows.append(conditions)
        places.append(Place(face, view.transform, reader.size))
        masks.append(paste_mask(view, drawn, face.points))
    progress(len(chosen), len(chosen), "describing faces")
    return Described(Conditions.cat(rows), tuple(places), torch.cat(masks))


def sampled(sampler: IdentitySampler, original: np.ndarray, level: int, seed: int) -> np.ndarray:
    """A sample at a level; where the level is missed, the log says by how much."""
    found = sampler.level(original, level, seed)
    if found.excess > 0:
        log.warning("level %d was missed by a cosine of %.2f in the space %s", level, found.excess, sampler.space)
    return found.vectors[0]


def sampled_geometry(sampler: IdentitySampler, view: FaceView, level: int, seed: int) -> np.ndarray:
    """Identity coefficients ``(K,)`` of a new person at a level."""
    own = view.coefficients.identity[0].double().numpy()
    return sampled(sampler, own, level, seed + GEOMETRY_SEED)


def with_geometry(view: FaceView, alpha: np.ndarray) -> Coefficients:
    """p': the photo's coefficients with the identity ``alpha`` ``(K,)``."""
    return replace(view.coefficients, identity=torch.from_numpy(alpha)[None].float())


def _given(identity: Identity, space: str, count: int) -> np.ndarray:
    if identity.space != space:
        raise InputError(
            f"this DiffDeID checkpoint needs an identity of the space {space}, but this one is of {identity.space}"
        )
    if len(identity.vectors) not in (1, count):
        raise InputError(f"{len(identity.vectors)} identities do not fit {count} faces; give one, or one for each")
    return np.broadcast_to(identity.vectors, (count, identity.vectors.shape[1]))
