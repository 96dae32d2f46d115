"""Face redaction: styles and shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.faces.names import REDACTION_SHAPES, REDACTION_STYLES
from faceveil.pipelines.faces.redact import redact, redaction_window


def _sticker() -> torch.Tensor:
    sticker = torch.ones(1, 4, 32, 32)
    sticker[:, 0] = 0
    return sticker


@pytest.mark.parametrize("style", REDACTION_STYLES)
@pytest.mark.parametrize("shape", REDACTION_SHAPES)
def test_changes_only_the_mask(portrait, portrait_faces, style, shape) -> None:
    result, mask = redact(portrait, portrait_faces[0], style, shape, sticker=_sticker())
    changed = (result != portrait).any(1, keepdim=True)
    assert changed.any()
    assert not (changed & (mask == 0)).any()


@pytest.mark.parametrize("shape", REDACTION_SHAPES)
def test_solid_redaction_removes_the_inner_face(portrait, portrait_faces, shape) -> None:
    result, _ = redact(portrait, portrait_faces[0], "solid", shape)
    for x, y in portrait_faces[0].landmarks[17:]:
        assert torch.all(result[0, :, int(y), int(x)] == 0.5)


@pytest.mark.parametrize("style", REDACTION_STYLES)
def test_a_redacted_face_is_not_recognized(portrait, portrait_faces, style) -> None:
    from faceveil.pipelines.recognition.dlib_resnet import default_recognizer

    face = portrait_faces[0]
    result, _ = redact(portrait, face, style, sticker=_sticker())
    found = [f for f in detect_faces(result) if f.landmarks]
    embed = default_recognizer().embed
    # A blurred face may still be detected, but may not be recognized as the same person.
    assert all(((embed(result, f.points) - embed(portrait, face.points)) ** 2).sum() ** 0.5 > 0.6 for f in found)


def test_a_face_without_landmarks_is_redacted(portrait) -> None:
    result, mask = redact(portrait, Face((180, 60, 270, 180)), "solid", "hull")
    assert torch.all(result[0, :, 120, 225] == 0.5)
    assert mask.sum() > 90 * 120 * 0.7


def test_the_sticker_style_needs_a_sticker(portrait, portrait_faces) -> None:
    with pytest.raises(InputError, match="needs an image"):
        redact(portrait, portrait_faces[0], "sticker")


@pytest.mark.parametrize("style", REDACTION_STYLES)
@pytest.mark.parametrize("shape", REDACTION_SHAPES)
def test_a_window_is_enough(portrait, portrait_faces, style, shape) -> None:
    """A redaction in its window equals one in the whole image, also where the box is tight or partly outside."""
    large = torch.nn.functional.interpolate(portrait, scale_factor=3, mode="bilinear")
    sticker = torch.rand(1, 4, 40, 30, generator=torch.Generator().manual_seed(0))
    points = portrait_faces[0].points * 3
    (x1, y1), (x2, y2) = points.min(0), points.max(0)
    tight = portrait_faces[0].with_points(points).moved(0, 0)
    faces = [
        replace(tight, box=(x1, y1, x2, y2)),
        Face((1400.0, 900.0, 1600.0, 1300.0)),
        Face((-40.0, 5.0, 60.0, 90.0)),
    ]
    for face in faces:
        whole, mask = redact(large, face, style, shape, sticker=sticker)
        rows, columns = redaction_window(face, *large.shape[-2:], style=style, shape=shape)
        moved = face.moved(-columns.start, -rows.start)
        part, part_mask = redact(large[..., rows, columns], moved, style, shape, sticker=sticker)
        assert mask.sum() == pytest.approx(float(part_mask.sum()), abs=1)
        assert (whole[..., rows, columns] - part).abs().max() < 1e-3
