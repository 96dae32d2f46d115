"""Occluded faces and faces of small children are not replaced."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from faceveil.pipelines.faces.face import eye_centers, inter_ocular
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer


def microphone(image, face):
    x1, y1, x2, y2 = face.box
    y, x = torch.meshgrid(torch.arange(image.shape[2]), torch.arange(image.shape[3]), indexing="ij")
    disc = (x - (x1 + x2) / 2) ** 2 + (y - (y1 + 0.8 * (y2 - y1))) ** 2 < (0.18 * (x2 - x1)) ** 2
    return torch.where(disc, torch.tensor(0.05), image)


def mask(image, face):
    x1, y1, x2, y2 = (int(v) for v in face.box)
    occluded = image.clone()
    occluded[..., y1 + int(0.55 * (y2 - y1)) : y2, x1:x2] = torch.tensor([0.6, 0.75, 0.85]).view(1, 3, 1, 1)
    return occluded


@pytest.mark.parametrize("occlude", [microphone, mask])
def test_an_occluded_face_gives_a_reason(portrait, portrait_faces, occlude) -> None:
    method, face = AppearanceMethod(trials=1), portrait_faces[0]
    embedding = default_recognizer().embed(portrait, face.points)
    assert method.occlusion_reason(method.prepare(View(portrait, face, embedding))) is None
    assert (
        method.occlusion_reason(method.prepare(View(occlude(portrait, face), face, embedding)))
        == "something is in front of it"
    )


def test_the_policy_acts_on_an_occluded_face(portrait, portrait_faces) -> None:
    image = mask(portrait, portrait_faces[0])
    result = anonymize_batch(image, Settings(), faces=portrait_faces, method=AppearanceMethod(trials=1))
    assert (result.report.faces[0].outcome, result.report.faces[0].reason) == (
        "redacted",
        "something is in front of it",
    )


def test_a_toddlers_proportions_are_refused(portrait_faces) -> None:
    face = portrait_faces[0]
    points = face.points.copy()
    eyes = np.mean(eye_centers(points), axis=0)
    points[:17, 1] = eyes[1] + (points[:17, 1] - eyes[1]) * 1.4 * inter_ocular(points) / (points[8, 1] - eyes[1])
    method = AppearanceMethod(trials=1)
    assert method.unsupported_reason(face) is None
    assert "small child" in method.unsupported_reason(face.with_points(points))


@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (30, 0), (-30, 0), (0, 25), (0, -25), (20, 15)])
def test_proportions_do_not_depend_on_the_pose(portrait_faces, yaw, pitch) -> None:
    """Seen from above or below, a face is short; seen from the side, the eyes are close together."""
    method = AppearanceMethod(trials=1)
    shapes = method.model.shapes
    adult = shapes.mean
    toddler = adult.copy()
    toddler[:17, 1] *= 1.38 / -adult[8, 1]
    turned = (
        cv2.Rodrigues(np.array([0.0, np.radians(yaw), 0.0]))[0]
        @ cv2.Rodrigues(np.array([np.radians(pitch), 0.0, 0.0]))[0]
    )
    faces = []
    for shape in (adult, toddler):
        points = (shape @ turned.T)[:, :2] * [60.0, -60.0] + 256
        faces.append(portrait_faces[0].with_points(points))
    assert method.unsupported_reason(faces[0]) is None
    assert "small child" in method.unsupported_reason(faces[1])
