"""Face redaction: styles and shapes."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.faces.names import REDACTION_SHAPES, REDACTION_STYLES
from faceveil.pipelines.faces.redact import redact


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
