"""The plan of a job: whether given faces belong to the images, and which faces are there."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings


@pytest.mark.parametrize(
    ("face", "sentence"),
    [
        (Face((10, 10, 50, 50), image=5), "a face in image 5, but there is 1 image"),
        (Face((900, 10, 950, 50)), "outside its image of 512 x 512 pixels"),
    ],
)
def test_a_plan_of_other_images_is_refused(portrait, face, sentence) -> None:
    with pytest.raises(InputError, match=sentence):
        anonymize_batch(portrait, Settings(method="solid"), Faces([face]))


def test_a_plan_of_a_similar_image_is_refused(portrait, portrait_faces) -> None:
    """The same face on the same wall, elsewhere: the scenes are alike, the places are not."""
    face = torch.nn.functional.interpolate(portrait, size=(256, 256), mode="area")
    left, right = torch.ones(1, 3, 800, 800), torch.ones(1, 3, 800, 800)
    left[..., 20:276, 20:276] = face
    right[..., 520:776, 520:776] = face
    plan = detect_faces(left)
    assert len(plan) == 1 and anonymize_batch(left, Settings(method="solid"), plan).report.safe
    with pytest.raises(InputError, match=r"detected in another image|does not fit image 0"):
        anonymize_batch(right, Settings(method="solid"), plan)
    drawn_by_hand = Faces(plan)
    with pytest.raises(InputError, match="does not fit image 0"):
        anonymize_batch(right, Settings(), drawn_by_hand)


def test_a_plan_whose_landmarks_lie_beside_the_face_is_refused(portrait, portrait_faces) -> None:
    """The boxes still overlap; verified at the wrong landmarks, the person would count as replaced."""
    x1, _, x2, _ = portrait_faces[0].box
    moved = portrait.roll((round(0.4 * (x2 - x1)), round(0.13 * (x2 - x1))), (3, 2))
    with pytest.raises(InputError, match="does not fit image 0"):
        anonymize_batch(moved, Settings(), Faces(portrait_faces))


@pytest.mark.parametrize("first", ["solid", "blur"])
def test_selected_faces_can_be_redacted_twice(trio, trio_faces, first) -> None:
    """Faces that were left out of the selection are no sign of another image."""
    selected = trio_faces.only([trio_faces[1]])
    once = anonymize_batch(trio, Settings(method=first), selected).pixels
    again = anonymize_batch(once, Settings(method="solid"), selected)
    assert again.report.summary() == "1 face: 1 redacted"


def test_a_plan_survives_json_and_an_edit_of_the_image(trio, trio_faces) -> None:
    plan = Faces.from_json(trio_faces.only(trio_faces[1:]).to_json())
    assert plan.images == Faces.from_json(trio_faces.to_json()).images
    assert anonymize_batch(trio**0.8, Settings(method="solid"), plan).report.safe


def test_what_nobody_sees_is_not_called_replaced(portrait_faces) -> None:
    wall = torch.ones(1, 3, 512, 512)
    row = anonymize_batch(wall, Settings(policy=Policy(no_face="pass")), Faces(portrait_faces)).report.faces[0]
    assert (row.outcome, row.reason) == ("redacted", "no face was found at its place")


def test_a_plan_whose_faces_were_all_removed_changes_nothing(portrait, portrait_faces) -> None:
    """The plan knows that there was a face."""
    nobody = portrait_faces.only([])
    result = anonymize_batch(portrait, Settings(method="solid"), nobody)
    assert torch.equal(result.pixels, portrait)
    assert result.report.text() == "no face was chosen, so nothing was changed"
