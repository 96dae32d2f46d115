"""Alpha is part of the image: it hides no face and keeps no copy of one."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.faces.transparency import detect_in_transparent
from faceveil.pipelines.imaging.image import LoadedImage
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.jobs.photo import anonymize_loaded
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod


@pytest.fixture(scope="module")
def gray(portrait):
    """The portrait's luminance, ``(1, 1, 512, 512)``."""
    return portrait.mean(1, keepdim=True)


@pytest.mark.parametrize("color", [0.0, 1.0])
def test_a_face_that_only_alpha_shows_is_redacted(portrait_faces, gray, tmp_path, color) -> None:
    """Black or white pixels whose alpha is the face: viewers show it on a background of the other color."""
    drawn = LoadedImage(torch.full((1, 3, 512, 512), color), gray)
    save_image(drawn, tmp_path / "a.png")
    assert main(["anonymize", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]) == 0
    result = load_image(tmp_path / "b.png")
    x1, y1, x2, y2 = (round(v) for v in portrait_faces[0].box)
    assert result.alpha is None or torch.all(result.alpha[..., y1 + 10 : y2 - 10, x1 + 10 : x2 - 10] == 1)
    assert not detect_in_transparent(result.pixels, result.alpha)


def test_a_copy_of_the_face_in_alpha_goes(portrait, portrait_faces, gray) -> None:
    result = anonymize_loaded(LoadedImage(portrait, gray), Settings(), method=AppearanceMethod(trials=2))
    assert result.report.faces[0].outcome == "replaced"
    assert torch.all(result.alpha[result.mask > 0] == 1)
    assert torch.equal(result.alpha[result.mask == 0], gray[result.mask == 0])
    assert torch.equal(result.first.alpha, result.alpha)
    x, y = (int(v) for v in portrait_faces[0].points[30])
    assert result.alpha[0, 0, y, x] == 1


def test_a_redacted_image_is_opaque() -> None:
    empty = LoadedImage(torch.full((1, 3, 64, 64), 0.3), torch.full((1, 1, 64, 64), 0.5))
    assert torch.all(anonymize_loaded(empty, Settings()).alpha == 1)


def test_an_opaque_alpha_costs_no_search(portrait, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr("faceveil.pipelines.faces.transparency.detect_faces", lambda *_: calls.append(1) or ())
    detect_in_transparent(portrait, torch.ones(1, 1, 512, 512))
    assert len(calls) == 1
