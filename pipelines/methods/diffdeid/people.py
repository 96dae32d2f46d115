"""New people for the faces of a batch of images, as DiffDeID's conditions; *DiffDeID Conditioning* uses it."""

from __future__ import annotations

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

GEOMETRY_SEED = 1
"""Added to the seed for the geometry, whose noise must not be the identity's."""


@dataclass(frozen=True)
class Described:
    """N described faces.

    Attributes:
        conditions: for the network.
        places: where the squares belong.
        masks: what to paste of them, ``(N, 1, S, S)``.
        excess: by how much a cosine each face missed the level; 0 where it was met, or where nothing was sampled.
        untouched: faces without landmarks, which are not described.
    """

    conditions: Conditions
    places: tuple[Place, ...]
    masks: Tensor
    excess: tuple[float, ...]
    untouched: int


def describe_faces(
    checkpoint: Checkpoint,
    images: Tensor,
    faces: Faces,
    level: int,
    seed: int,
    identity: Identity | None = None,
    coefficients: Coefficients | None = None,
    progress: Progress = silent,
) -> Described:
    """Describe a new person in the place of each face with landmarks.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        identity: people to show, one row or one for each face; sampled at the level when omitted.
        coefficients: p', one row for each face with landmarks; when omitted, the photo's with a sampled identity.

    Raises:
        InputError: no face has landmarks, or identity or coefficients are of another space, model or number.
    """
    chosen = [face for face in faces if face.landmarks]
    if not chosen:
        raise InputError("no face with landmarks was found; connect images that show a face from the front")
    if not checkpoint.space:
        raise InputError("this DiffDeID checkpoint was trained on clips; load one for images")
    given = None if identity is None else _given(identity, checkpoint.space, len(chosen))
    if coefficients is not None and (coefficients.model != checkpoint.model or len(coefficients) != len(chosen)):
        raise InputError(
            f"{len(coefficients)} rows of coefficients of {coefficients.model} do not fit {len(chosen)} faces and a"
            f" checkpoint of {checkpoint.model}; estimate them from the same faces with the built-in model"
        )
    model = built_in_morphable_model()
    reader, recognizer = FaceReader(model, checkpoint.network.config.size), open_recognizer(checkpoint.space)
    samplers = builtin_sampler(checkpoint.space), builtin_sampler(checkpoint.model)
    rows, places, masks, excess = [], [], [], []
    for done, face in enumerate(chosen):
        progress(done, len(chosen), "describing faces")
        image = images[face.image : face.image + 1]
        view = reader(image, face.points)
        sampling = Sampling(*samplers, level, face_seed(seed, face.box, face.track))
        own, alpha = unit(recognizer.embed(image, face.points)), alpha_of(view)
        all_given = given is not None and coefficients is not None
        person = NewPerson(own, alpha) if all_given else sampling.choose(own, alpha)[0]
        vector = person.vector if given is None else given[done]
        changed = with_geometry(view, person.alpha) if coefficients is None else coefficients[done]
        conditions, drawn = conditions_of(model, checkpoint.standardizer, view, changed, vector)
        excess.append(person.excess)
        rows.append(conditions)
        places.append(Place(face, view.transform, reader.size))
        masks.append(paste_mask(view, drawn, face.points))
    progress(len(chosen), len(chosen), "describing faces")
    untouched = len(faces) - len(chosen)
    return Described(Conditions.cat(rows), tuple(places), torch.cat(masks), tuple(excess), untouched)


@dataclass(frozen=True)
class NewPerson:
    """z'_id ``(D,)``, identity coefficients ``(K,)``, and by how much a cosine missed the level; 0 where none did."""

    vector: np.ndarray
    alpha: np.ndarray
    excess: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """Samples new people at a level, the same person for all photos of somebody.

    Args:
        identities, geometries: samplers of z_id and of the identity coefficients.
        level: 1 to 10.
        seed: of the person.
    """

    identities: IdentitySampler
    geometries: IdentitySampler
    level: int
    seed: int

    def choose(self, own: np.ndarray, alpha: np.ndarray) -> tuple[NewPerson, np.ndarray]:
        """A new person for ``own`` ``(D,)`` and ``alpha`` ``(K,)``, and the choice ``(4,)`` that repeats them.

        The choice are numbers of noise vectors: it says nothing about the original.
        """
        first = self.identities.level(own, self.level, self.seed)
        second = self.geometries.level(alpha, self.level, self.seed + GEOMETRY_SEED)
        person = NewPerson(first.vectors[0], second.vectors[0], max(first.excess, second.excess))
        return person, np.array([*first.choice, *second.choice])

    def again(self, own: np.ndarray, alpha: np.ndarray, choice: np.ndarray) -> NewPerson:
        """The person of a choice for another photo."""
        a, b, c, d = (int(n) for n in choice)
        first = self.identities.level_again(own, self.level, self.seed, (a, b))
        second = self.geometries.level_again(alpha, self.level, self.seed + GEOMETRY_SEED, (c, d))
        return NewPerson(first.vectors[0], second.vectors[0], max(first.excess, second.excess))


def alpha_of(view: FaceView) -> np.ndarray:
    """Identity coefficients ``(K,)`` of the photo."""
    return view.coefficients.identity[0].double().numpy()


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
