"""Selections fail closed: whatever is not understood is an error, never a face that is kept by mistake."""

from __future__ import annotations

import math

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.select import Selection, painted

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


def tracked_faces() -> Faces:
    """Two people in four images: one grows, one shrinks; the right one is larger in most of them."""
    sizes = ((30, 60), (40, 50), (40, 50), (50, 30))
    return Faces(
        [
            Face((x, 0, x + size, size), image=i, track=track)
            for i, pair in enumerate(sizes)
            for track, (x, size) in enumerate(zip((0, 100), pair, strict=True))
        ]
    )


@pytest.mark.parametrize(
    ("which", "track"), [("largest", 1), ("smallest", 0), ("left", 0), ("right", 1), ("0", 0), ("1", 1)]
)
def test_of_tracked_faces_a_person_is_selected_in_all_images(which, track) -> None:
    faces = tracked_faces()
    assert list(Selection(which).of(faces)) == [f for f in faces if f.track == track]


def test_a_track_is_as_large_as_its_largest_face() -> None:
    faces = tracked_faces()
    assert {f.track for f in Selection(min_size=55).of(faces)} == {1}
    assert len(Selection(min_size=45).of(faces)) == 8
    assert len(Selection(min_size=65).of(faces)) == 0
    with pytest.raises(InputError, match="there is no face 2: 2 were found"):
        Selection("2").of(faces)
    assert len(Selection("1,2", allow_missing=True).of(faces)) == 4


def test_what_belongs_to_no_track_is_selected_with_any_person() -> None:
    alone = Face((200, 0, 220, 20), image=3)
    assert alone in list(Selection("largest").of(Faces([*tracked_faces(), alone])))


def test_a_painted_mask_marks_faces() -> None:
    mask = torch.zeros(1, 1, 200, 300)
    assert list(painted(FACES, mask)) == []
    for face in FACES:
        x, y = (int(sum(face.box[i::2]) / 2) for i in (0, 1))
        dot = mask.clone()
        dot[..., y - 1 : y + 2, x - 1 : x + 2] = 1
        assert face in painted(FACES, dot)
    assert list(painted(FACES, torch.ones_like(mask))) == list(FACES)
    beside = Faces([*FACES, LARGE.in_image(1)])
    with pytest.raises(InputError, match="image 1 has no mask"):
        painted(beside, mask)


def test_a_mask_on_a_tracked_face_in_one_image_marks_it_in_all() -> None:
    faces, masks = tracked_faces(), torch.zeros(4, 1, 100, 200)
    masks[2, 0, 0:40, 0:40] = 1
    assert list(painted(faces, masks)) == [f for f in faces if f.track == 0]


def test_a_quarter_of_a_box_is_enough() -> None:
    x1, y1, x2, y2 = map(int, LARGE.box)
    mask = torch.zeros(1, 1, 200, 300)
    mask[..., y1 : y1 + (y2 - y1) // 3, x1:x2] = 1
    assert LARGE in painted(FACES, mask)
    mask.zero_()
    mask[..., y1 : y1 + (y2 - y1) // 6, x1:x2] = 1
    assert LARGE not in painted(FACES, mask)
