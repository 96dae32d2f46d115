"""Choose faces by whose they are: reference photos of people to take or to leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..faces.detect import Detector, detect_faces
from ..faces.face import Face, Faces
from ..identity.identity import Identity
from ..imaging.image import LoadedImage
from ..recognition.base import FaceRecognizer
from ..recognition.catalog import open_recognizer
from ..recognition.dlib_resnet import default_recognizer


def person_in(picture: LoadedImage, detector: Detector | None = None) -> np.ndarray:
    """The default recognizer's embedding of the largest face of a reference photo.

    Raises:
        InputError: no face is found in it.
    """
    return default_recognizer().embed(picture.pixels, _largest(picture.pixels, detector).points)


def identity_in(pixels: Tensor, faces: Faces | None = None, recognizer: FaceRecognizer | None = None) -> Identity:
    """Identities of faces of a batch ``(B, 3, H, W)``.

    Args:
        faces: which; the largest of each picture when omitted.
        recognizer: dlib's when omitted.

    Raises:
        InputError: a picture shows no face, or a face has no landmarks.
    """
    recognizer = recognizer or open_recognizer()
    if faces is None:
        faces = Faces(replace(_largest(pixels[i : i + 1]), image=i) for i in range(len(pixels)))
    if not faces:
        raise InputError("there are no faces to embed; connect pictures that show some")
    return Identity(recognizer.embed_faces(pixels, faces), recognizer.name)


def _largest(pixels: Tensor, detector: Detector | None = None) -> Face:
    found = [f for f in detect_faces(pixels, detector) if f.landmarks]
    if not found:
        raise InputError(
            "no face was found in the reference photo; use one that shows the person's face from the front"
        )
    return found[0]


def is_wanted(
    recognizer: FaceRecognizer,
    embedding: np.ndarray | None,
    include: Sequence[np.ndarray],
    exclude: Sequence[np.ndarray],
) -> bool:
    """Whether a face is to be worked on; a face that cannot be compared counts as a stranger."""

    def known(people: Sequence[np.ndarray]) -> bool:
        return embedding is not None and any(recognizer.distance(p, embedding) < recognizer.threshold for p in people)

    return not known(exclude) and (not include or known(include))


def by_person(pixels: Tensor, faces: Faces, only: Tensor | None, without: Tensor | None) -> Faces:
    """Faces of a batch ``(B, 3, H, W)`` that show the person in ``only`` and not the one in ``without`` (pictures, or
    none)."""
    include, exclude = ([] if p is None else [person_in(LoadedImage(p[:1]))] for p in (only, without))
    recognizer = default_recognizer()

    def embedding(face: Face) -> np.ndarray | None:
        return recognizer.embed(pixels[face.image : face.image + 1], face.points) if face.landmarks else None

    return Faces(face for face in faces if is_wanted(recognizer, embedding(face), include, exclude))
