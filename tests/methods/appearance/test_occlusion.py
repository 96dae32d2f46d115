"""Something in front of a face, and faces too young for the model, are not replaced."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.faces.face import eye_centers, inter_ocular
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer


def microphone(picture, face):
    x1, y1, x2, y2 = face.box
    y, x = torch.meshgrid(torch.arange(picture.shape[2]), torch.arange(picture.shape[3]), indexing="ij")
    disc = (x - (x1 + x2) / 2) ** 2 + (y - (y1 + 0.8 * (y2 - y1))) ** 2 < (0.18 * (x2 - x1)) ** 2
    return torch.where(disc, torch.tensor(0.05), picture)


def mask(picture, face):
    x1, y1, x2, y2 = (int(v) for v in face.box)
    covered = picture.clone()
    covered[..., y1 + int(0.55 * (y2 - y1)) : y2, x1:x2] = torch.tensor([0.6, 0.75, 0.85]).view(1, 3, 1, 1)
    return covered


@pytest.mark.parametrize("cover", [microphone, mask])
def test_a_covered_face_gives_a_doubt(portrait, portrait_faces, cover) -> None:
    method, face = AppearanceMethod(trials=1), portrait_faces[0]
    embedding = default_recognizer().embed(portrait, face.points)
    assert method.occlusion_reason(method.prepare(View(portrait, face, embedding))) is None
    assert (
        method.occlusion_reason(method.prepare(View(cover(portrait, face), face, embedding)))
        == "something covers a part of it"
    )


def test_the_policy_acts_on_a_doubt(portrait, portrait_faces) -> None:
    picture = mask(portrait, portrait_faces[0])
    result = anonymize_batch(picture, Settings(trials=1), faces=portrait_faces)
    assert (result.report.faces[0].outcome, result.report.faces[0].reason) == (
        "redacted",
        "something covers a part of it",
    )


def test_a_toddlers_proportions_are_refused(portrait_faces) -> None:
    face = portrait_faces[0]
    points = face.points.copy()
    eyes = np.mean(eye_centers(points), axis=0)
    points[:17, 1] = eyes[1] + (points[:17, 1] - eyes[1]) * 1.4 * inter_ocular(points) / (points[8, 1] - eyes[1])
    method = AppearanceMethod(trials=1)
    assert method.unsupported_reason(face) is None
    assert "small child" in method.unsupported_reason(face.with_points(points))
