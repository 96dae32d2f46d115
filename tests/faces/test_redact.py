"""Covers."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.errors import InputError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.faces.redact import COVERS, SHAPES, redact


def _sticker() -> torch.Tensor:
    sticker = torch.ones(1, 4, 32, 32)
    sticker[:, 0] = 0
    return sticker


@pytest.mark.parametrize("cover", COVERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_covers_only_the_mask(portrait, portrait_faces, cover, shape) -> None:
    result, mask = redact(portrait, portrait_faces[0], cover, shape, sticker=_sticker())
    changed = (result != portrait).any(1, keepdim=True)
    assert changed.any()
    assert not (changed & (mask == 0)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_solid_leaves_nothing_of_the_inner_face(portrait, portrait_faces, shape) -> None:
    result, _ = redact(portrait, portrait_faces[0], "solid", shape)
    for x, y in portrait_faces[0].landmarks[17:]:
        assert torch.all(result[0, :, int(y), int(x)] == 0.5)


@pytest.mark.parametrize("cover", COVERS)
def test_a_covered_face_is_not_found(portrait, portrait_faces, cover) -> None:
    from faceveil.pipelines.identity.recognise import default_recogniser

    face = portrait_faces[0]
    result, _ = redact(portrait, face, cover, sticker=_sticker())
    found = [f for f in detect_faces(result) if f.landmarks]
    embed = default_recogniser().embed
    # A blur may still look like some face, but not like this one.
    assert all(((embed(result, f.points) - embed(portrait, face.points)) ** 2).sum() ** 0.5 > 0.6 for f in found)


def test_a_face_without_landmarks_is_covered(portrait) -> None:
    result, mask = redact(portrait, Face((180, 60, 270, 180)), "solid", "hull")
    assert torch.all(result[0, :, 120, 225] == 0.5)
    assert mask.sum() > 90 * 120 * 0.7


def test_a_sticker_is_needed(portrait, portrait_faces) -> None:
    with pytest.raises(InputError, match="alpha channel"):
        redact(portrait, portrait_faces[0], "sticker")
