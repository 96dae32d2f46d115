"""Property-based tests: whatever JSON, numbers or boxes are given, an outcome is true and an error is one sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import FaceVeilError
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.resample import resize
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBER = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(10**400), 10**400) | st.floats(-20, 80)
POINT = st.lists(NUMBER, min_size=2, max_size=2)
ROW = st.fixed_dictionaries(
    {
        "box": st.lists(NUMBER, min_size=4, max_size=4) | ANY_JSON,
        "landmarks": st.just([])
        | st.lists(st.lists(NUMBER, min_size=2, max_size=2), min_size=68, max_size=68)
        | ANY_JSON,
        "score": NUMBER | ANY_JSON,
        "image": st.integers(-2, 3) | ANY_JSON,
        "origin": st.sampled_from(["measured", "manual"]) | ANY_JSON,
    }
)
IMAGES = st.none() | st.fixed_dictionaries(
    {
        "count": st.integers(0, 2) | ANY_JSON,
        "width": st.just(48) | ANY_JSON,
        "height": st.just(40) | ANY_JSON,
        "fingerprints": st.just(["0" * 64]) | ANY_JSON,
        "places": st.just([]) | ANY_JSON,
    }
)
SIDE = st.integers(1, 90)
STARTS = (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"RIFF")
"""First bytes of image formats."""


def one_sentence(error: FaceVeilError) -> None:
    assert "\n" not in str(error)
    assert 10 < len(str(error)) < 500


@QUICK
@given(document=ANY_JSON | st.fixed_dictionaries({"format": st.just("faceveil.faces/1"), "faces": ANY_JSON}))
def test_any_json_is_a_plan_or_one_sentence(document: object) -> None:
    try:
        Faces.from_json(json.dumps(document))
    except FaceVeilError as error:
        one_sentence(error)


@QUICK
@given(rows=st.lists(ROW, min_size=1, max_size=3), images=IMAGES)
def test_a_plan_redacts_what_it_says(rows: list[object], images: object) -> None:
    """An accepted plan comes back the same from JSON; each redacted row has changed pixels in its box."""
    pixels = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    try:
        faces = Faces.from_json(json.dumps({"format": "faceveil.faces/1", "faces": rows, "images": images}))
        result = anonymize_batch(pixels, Settings(method="solid"), faces)
    except FaceVeilError as error:
        one_sentence(error)
        return
    changed = (result.pixels != pixels).any(1)[0]
    assert not bool((changed & (result.mask[0, 0] == 0)).any())
    assert [row.outcome for row in result.report.faces] == ["redacted"] * len(faces)
    for face in faces:
        x1, y1, x2, y2 = face.box
        assert bool(changed[max(0, math.floor(y1)) : math.ceil(y2), max(0, math.floor(x1)) : math.ceil(x2)].any())


@QUICK
@given(text=st.text(max_size=12), size=NUMBER, score=NUMBER)
def test_a_selection_selects_or_refuses(text: str, size: float, score: float) -> None:
    face = Face((5.0, 5.0, 25.0, 35.0), score=0.5)
    try:
        chosen = Selection(text or "all", size, score).of(Faces([face]))
    except FaceVeilError as error:
        one_sentence(error)
        return
    assert 0 <= size < math.inf and 0 <= score <= 1
    assert (face in chosen) == (size <= 30 and score <= 0.5)


@FEW
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    style=st.sampled_from(["solid", "pixelate", "blur"]),
    data=st.data(),
)
def test_redaction_of_any_box_in_any_size(width: int, height: int, style: str, data: st.DataObject) -> None:
    """Pixels outside the mask never change, and a solid redaction leaves nothing of the box."""
    x = sorted(data.draw(st.tuples(st.floats(-20, width + 20), st.floats(-20, width + 20))))
    y = sorted(data.draw(st.tuples(st.floats(-20, height + 20), st.floats(-20, height + 20))))
    pixels = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    try:
        faces = Faces([Face((x[0], y[0], x[1], y[1]), origin="manual")])
        result = anonymize_batch(pixels, Settings(method=style, shape="box"), faces)
    except FaceVeilError as error:
        one_sentence(error)
        return
    assert bool((result.pixels == pixels)[result.mask.expand_as(pixels) == 0].all())
    inside = result.pixels[..., max(0, round(y[0])) : round(y[1]), max(0, round(x[0])) : round(x[1])]
    assert style != "solid" or inside.numel() == 0 or float((inside - 0.5).abs().max()) < 0.01


@FEW
@given(
    data=st.binary(max_size=400),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"RIFF"]),
)
def test_any_bytes_are_an_image_or_one_sentence(tmp_path: Path, data: bytes, start: bytes) -> None:
    (tmp_path / "a.png").write_bytes(start + data)
    try:
        load_image(tmp_path / "a.png")
    except FaceVeilError as error:
        one_sentence(error)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 3), (17, 400), (63, 65)])
def test_images_of_any_size_are_searched(size: tuple[int, int]) -> None:
    result = anonymize_batch(torch.rand(1, 3, *size), Settings(method="solid"))
    assert result.pixels.shape == (1, 3, *size)
    assert float(result.mask.min()) == 1


@FEW
@given(x=st.floats(-1.5, 1.5), y=st.floats(-1.5, 1.5))
def test_a_plan_moved_over_a_real_face_never_says_replaced_of_another_place(x: float, y: float) -> None:
    """Landmarks beside the face: the plan is refused or the place is redacted."""
    portrait = PORTRAIT
    face = FACE.moved(x * FACE.size, y * FACE.size)
    moved = Faces([face])
    near = math.hypot(x, y) < 0.2
    try:
        result = anonymize_batch(portrait, Settings(method="solid"), moved)
    except FaceVeilError as error:
        one_sentence(error)
        return
    (row,) = result.report.faces
    assert row.outcome == "redacted" or near


def _portrait() -> tuple[torch.Tensor, Face]:
    from faceveil.pipelines.faces.detect import detect_faces
    from faceveil.pipelines.imaging.image import as_image

    small = resize(as_image(astronaut()).pixels[..., 0:320, 60:380], 160, 160)
    (face,) = detect_faces(small)
    return small, face


PORTRAIT, FACE = _portrait()
