"""Track faces through a batch of images that are frames of one video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...core.progress import Progress, silent
from ...faces.detectors import Detector
from ...faces.face import Face, Faces, ImageSet
from ...faces.names import SensitivityName
from ...imaging.uint8 import to_uint8
from ...imaging.video import VideoFrame
from ...recognition.base import FaceRecognizer
from ...recognition.catalog import built_in_recognizers
from .scan import scan


def track_faces(
    images: Tensor,
    rate: float,
    sensitivity: SensitivityName = "normal",
    detector: Detector | None = None,
    recognizers: Sequence[FaceRecognizer] = (),
    progress: Progress = silent,
) -> Faces:
    """The faces of all frames; the same ``track`` is the same person.

    Args:
        images: ``(B, 3, H, W)``, RGB in [0, 1], in order.
        rate: frames per second.
        recognizers: asked in addition to the built-in ones whether two tracks show one person.
        progress: called before each image.

    Returns:
        Faces in the order of the images. Those that were only followed have no landmarks, so they are redacted.
    """
    asked = (*built_in_recognizers(), *recognizers)
    found = scan(_frames(images), rate, asked, detector, sensitivity, expected=len(images), progress=progress)
    owner = {number: person.number for person in found.people for number in person.tracks}
    # Tracks that belong to nobody get numbers of their own.
    strangers = [t.number for t in found.tracks if t.number not in owner]
    owner |= {number: len(found.people) + place for place, number in enumerate(strangers)}
    faces: list[Face] = []
    for index in range(len(images)):
        here = [t.sightings[index].face(owner[t.number]).in_image(index) for t in found.tracks if index in t.sightings]
        faces += sorted(here, key=lambda face: -face.area)
    return Faces(faces, ImageSet.of(images.float().cpu(), faces))


def _frames(images: Tensor) -> Iterator[VideoFrame]:
    for index, image in enumerate(images):
        yield VideoFrame(index, to_uint8(image.to("cpu", torch.float32)), index, 1)
