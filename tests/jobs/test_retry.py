"""Faces are generated again until no recognizer matches them, and the policy acts on the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, PolicyStop
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.faces.crops import crop_faces
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.retry import until_different
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.spec import AppearanceOptions
from faceveil.pipelines.methods.registry import open_method
from faceveil.pipelines.recognition.base import FaceRecognizer
from faceveil.pipelines.recognition.catalog import built_in_recognizers


@pytest.fixture(scope="module")
def squares(trio, trio_faces) -> tuple[torch.Tensor, torch.Tensor, tuple]:
    """Original squares, those of other people, and their places."""
    result = anonymize_batch(trio, Settings(), trio_faces, open_method("appearance", AppearanceOptions(search=4)))
    assert result.report.safe
    crops, other = crop_faces(trio, trio_faces, 256), crop_faces(result.pixels, trio_faces, 192)
    return crops.images, other.images, crops.places


@pytest.fixture(scope="module")
def recognizers() -> tuple[FaceRecognizer, ...]:
    return built_in_recognizers()


def small(squares: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(squares, size=(192, 192), mode="bilinear", antialias=True)


def test_it_stops_when_all_are_different(squares, recognizers) -> None:
    originals, other, places = squares
    seeds = []

    def generate(seed, progress):
        seeds.append(seed)
        made = small(originals)
        made[0] = other[0]
        return other.clone() if seed == 9 else made

    found = until_different(originals, places, generate, recognizers, 7, 5, "redact")
    assert seeds == [7, 8, 9]
    assert [(f.outcome, f.tries, f.seed) for f in found.report.faces] == [("replaced", 1, 7), *[("replaced", 3, 9)] * 2]
    assert found.report.safe and torch.equal(found.squares, other)
    assert len(found.report.faces[0].checks) == len(recognizers)


def test_what_still_matches_is_redacted(squares, recognizers) -> None:
    originals, other, places = squares
    made = torch.cat([other[:1], small(originals)[1:]])
    found = until_different(originals, places, lambda *_: made, recognizers, 0, 2, "redact")
    assert [f.outcome for f in found.report.faces] == ["replaced", "redacted", "redacted"]
    assert "still match" in found.report.faces[1].reason and found.report.faces[1].tries == 2
    middle = found.squares[1, :, 80:112, 80:112]
    assert (middle - 0.5).abs().max() < 1e-6
    # All of a redaction is pasted, also what lies outside the face.
    gray = ((found.squares[1:2] - 0.5).abs().amax(1, keepdim=True) < 1e-6).float()
    assert bool((found.masks[1:2] >= gray - 1e-3).all()) and found.masks[1].mean() > found.masks[0].mean()
    passed = until_different(originals, places, lambda *_: made, recognizers, 0, 1, "pass")
    assert passed.report.exposed == 2 and torch.equal(passed.squares, made)
    with pytest.raises(PolicyStop, match="face 1 was not protected"):
        until_different(originals, places, lambda *_: made, recognizers, 0, 1, "stop")


def test_a_face_that_cannot_be_compared_is_redacted(squares, recognizers) -> None:
    originals, other, places = squares

    class Blind(type(recognizers[0])):  # type: ignore[misc]
        def embed_many(self, images, landmarks):
            found = super().embed_many(images, landmarks)
            return found if images[0].shape[-1] == 256 else found * np.nan

    found = until_different(originals, places, lambda *_: other.clone(), [*recognizers, Blind()], 0, 1, "redact")
    assert [f.outcome for f in found.report.faces] == ["redacted"] * 3
    assert "could not compare" in found.report.faces[0].reason
    bare = tuple(replace(p, face=replace(p.face, landmarks=())) for p in places)
    found = until_different(originals, bare, lambda *_: other.clone(), recognizers, 0, 3, "redact")
    assert {f.reason for f in found.report.faces} == {"no recognizer could compare it"}
    assert (found.squares - other).abs().amax((1, 2, 3)).min() > 0.1


def test_a_displaced_original_is_found(squares, recognizers) -> None:
    """Upside down: the landmarks that are expected there do not fit it."""
    originals, _, places = squares
    made = small(originals).flip(-2)
    found = until_different(originals, places, lambda *_: made, recognizers, 0, 1, "pass")
    # Where the flipped face lies inside what is pasted, it must be noticed.
    assert [face.outcome for face in found.report.faces].count("passed") >= 2


def test_the_last_seed_is_followed_by_the_first(squares, recognizers) -> None:
    originals, _, places = squares
    seeds = []
    until_different(
        originals, places, lambda s, _: seeds.append(s) or small(originals), recognizers, 2**64 - 1, 2, "redact"
    )
    assert seeds == [2**64 - 1, 0]


def test_it_can_be_interrupted_and_bad_input_is_named(squares, recognizers) -> None:
    originals, other, places = squares

    def interrupted(done, total, what):
        raise KeyboardInterrupt

    def generate(seed, progress):
        progress(0, 2, "sampling")
        return other

    with pytest.raises(KeyboardInterrupt):
        until_different(originals, places, generate, recognizers, 0, 1, "redact", interrupted)
    with pytest.raises(InputError, match="connect both outputs of Crop Faces"):
        until_different(originals[:1], places, generate, recognizers, 0, 1, "redact", silent)
    for wrong in (other[:1], other[..., :100]):
        with pytest.raises(InputError, match="connect the latent of the crops"):
            until_different(originals, places, lambda *_, w=wrong: w, recognizers, 0, 1, "redact")
