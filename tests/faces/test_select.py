"""Selections fail closed: whatever is not understood is an error, never a face that is kept by mistake."""

from __future__ import annotations

import math

import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.select import Selection

SMALL, MIDDLE, LARGE = (Face((x, 0, x + size, size)) for x, size in ((0, 20), (100, 50), (200, 80)))
FACES = Faces([LARGE, MIDDLE, SMALL])


@pytest.mark.parametrize(
    ("which", "chosen"),
    [
        ("all", [LARGE, MIDDLE, SMALL]),
        ("largest", [LARGE]),
        ("smallest", [SMALL]),
        ("left", [SMALL]),
        ("right", [LARGE]),
        ("0,2", [LARGE, SMALL]),
    ],
)
def test_words_and_numbers(which, chosen) -> None:
    assert list(Selection(which).of(FACES)) == chosen


def test_numbers_count_all_faces_whatever_their_size() -> None:
    assert list(Selection("1", min_size=30).of(FACES)) == [MIDDLE]
    assert list(Selection("2", min_size=30).of(FACES)) == []


@pytest.mark.parametrize("size", [math.nan, math.inf, -1.0])
def test_a_minimum_that_is_no_size_is_refused(size) -> None:
    with pytest.raises(InputError, match="minimum size must be 0 or more pixels"):
        Selection(min_size=size)


@pytest.mark.parametrize("score", [math.nan, 1.5, -0.1])
def test_a_minimum_that_is_no_score_is_refused(score) -> None:
    with pytest.raises(InputError, match="minimum score must be between 0 and 1"):
        Selection(min_score=score)


def test_a_face_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="there is no face 7: 3 were found, numbered from 0"):
        Selection("0,7").of(FACES)
    assert list(Selection("0,7", allow_missing=True).of(FACES)) == [LARGE]
    # In a batch a number may be missing from some images, not from all.
    more = Faces([*FACES, LARGE.in_image(1)])
    assert list(Selection("2").of(more)) == [SMALL]
