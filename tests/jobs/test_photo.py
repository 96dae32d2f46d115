"""The photo job: plan, policy, verification, order."""

from __future__ import annotations

import json

import faceveil
import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, PolicyStop
from faceveil.pipelines.core.seeds import face_seed
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.pseudonym import Pseudonyms
from faceveil.pipelines.imaging.image import LoadedImage
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.jobs.people import by_person, identity_in, person_in
from faceveil.pipelines.jobs.photo import anonymize_batch, search_identity
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.base import Change
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer

QUICK = {"trials": 2, "tries": 1}


@pytest.fixture(scope="module")
def veiled(portrait):
    return anonymize_batch(portrait, Settings(trials=8))


def test_the_portrait_becomes_somebody_else(portrait, portrait_faces, veiled) -> None:
    row = veiled.report.faces[0]
    assert row.outcome == "replaced"
    assert row.checks[0].distance >= 0.6
    assert not row.checks[0].same_person
    embed = default_recognizer().embed
    assert (
        np.linalg.norm(embed(veiled.pixels, veiled.faces[0].points) - embed(portrait, portrait_faces[0].points)) > 0.55
    )
    assert torch.equal(torch.where(veiled.mask > 0, portrait, veiled.pixels), portrait)


def test_the_report_holds_no_picture_no_embedding_and_no_path(veiled) -> None:
    text = veiled.report.to_json()
    document = json.loads(text)
    assert document["faces"][0]["outcome"] == "replaced"
    assert len(text) < 2000
    assert "embedding" not in text and "/" not in text.replace("faceveil.report/1", "")


def test_the_public_function_takes_arrays_and_pillow_images() -> None:
    from PIL import Image

    array = astronaut()
    a = faceveil.anonymize(array, method="solid")
    b = faceveil.anonymize(Image.fromarray(array), method="solid")
    assert torch.equal(a.pixels, b.pixels)
    assert a.image.size == (512, 512)


def test_same_seed_same_bytes(portrait) -> None:
    a, b = (anonymize_batch(portrait, Settings(seed=5, **QUICK)) for _ in range(2))
    assert torch.equal(a.pixels, b.pixels)


def test_removing_a_face_leaves_the_others(trio, trio_faces) -> None:
    assert len(trio_faces) == 3
    whole = anonymize_batch(trio, Settings(**QUICK), trio_faces)
    for gone in range(3):
        rest = Faces(f for i, f in enumerate(trio_faces) if i != gone)
        part = anonymize_batch(trio, Settings(**QUICK), rest)
        for face in rest:
            x1, y1, x2, y2 = (round(v) for v in face.box)
            assert torch.equal(part.pixels[..., y1:y2, x1:x2], whole.pixels[..., y1:y2, x1:x2])


def test_seeds_follow_the_person_or_the_place() -> None:
    face = Face((10, 10, 50, 50))
    assert face_seed(1, face) != face_seed(2, face)
    tracked = [Face((i, 10, 50 + i, 50), track=7) for i in (0, 30)]
    assert face_seed(1, tracked[0]) == face_seed(1, tracked[1])


class _Paint:
    """A method that paints the face red, to follow the order of pasting."""

    name = "paint"

    def unsupported_reason(self, face):
        return None

    def prepare(self, view):
        return view

    def occlusion_reason(self, prepared):
        return None

    def sample_identity(self, prepared, seed):
        return seed

    def from_identity(self, prepared, identity, seed):
        return seed

    def render(self, view, identity, strength):
        x1, y1, x2, y2 = (int(v) for v in view.face.box)
        window = view.image[..., y1:y2, x1:x2] * 0
        window[:, 0] = 1.0
        return Change(window, (x1, y1), torch.ones_like(window[:, :1]), view.face.points)


def test_overlapping_faces_never_show_an_original_pixel_again(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    shifted = face.moved(30, 10)
    result = anonymize_batch(portrait, Settings(policy=Policy.always("pass")), Faces([face, shifted]), method=_Paint())
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    for f in (face, shifted):
        x1, y1, x2, y2 = (int(v) for v in f.box)
        assert torch.all(result.pixels[0, :, y1:y2, x1:x2] == red)


def test_overlapping_real_replacements_change_both(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    result = anonymize_batch(portrait, Settings(**QUICK), Faces([face, face.moved(14, 6)]))
    x1, y1, x2, y2 = (round(v) for v in face.box)
    inner = result.pixels[..., y1 + 40 : y2 - 20, x1 + 20 : x2 - 20]
    assert (inner != portrait[..., y1 + 40 : y2 - 20, x1 + 20 : x2 - 20]).any(1).float().mean() > 0.9


class _Lazy(_Paint):
    def render(self, view, identity, strength):
        change = super().render(view, identity, strength)
        x1, y1, x2, y2 = (int(v) for v in view.face.box)
        window = view.image[..., y1 - 40 : y2 + 40, x1 - 40 : x2 + 40].clone()
        return Change(window, (x1 - 40, y1 - 40), torch.ones_like(window[:, :1]), change.points)


class _Broken(_Paint):
    def render(self, view, identity, strength):
        raise ArithmeticError("singular")


class _Picky(_Paint):
    def unsupported_reason(self, face):
        return "it is a Tuesday"


@pytest.mark.parametrize(
    ("method", "reason", "tries"),
    [
        (_Lazy, "the recognizer still knows it", 3),
        (_Broken, "the method failed on it", 0),
        (_Picky, "it is a Tuesday", 0),
    ],
)
def test_policy_on_a_face_that_is_not_protected(portrait, portrait_faces, method, reason, tries) -> None:
    redacted = anonymize_batch(portrait, Settings(), portrait_faces, method=method())
    row = redacted.report.faces[0]
    assert (row.outcome, row.reason, row.tries) == ("redacted", reason, tries)
    assert redacted.report.safe
    x, y = (int(v) for v in portrait_faces[0].points[30])
    assert torch.all(redacted.pixels[0, :, y, x] == 0.5)
    with pytest.raises(PolicyStop, match=reason):
        anonymize_batch(portrait, Settings(policy=Policy.always("stop")), portrait_faces, method=method())
    passed = anonymize_batch(portrait, Settings(policy=Policy.always("pass")), portrait_faces, method=method())
    assert passed.report.faces[0].outcome == "passed"
    assert not passed.report.safe


def test_policy_when_nobody_is_found() -> None:
    empty = torch.full((1, 3, 96, 96), 0.2)
    covered = anonymize_batch(empty, Settings())
    assert torch.all(covered.pixels == 0.5)
    assert "whole picture was covered" in covered.report.summary()
    assert torch.equal(anonymize_batch(empty, Settings(policy=Policy.always("pass"))).pixels, empty)
    with pytest.raises(PolicyStop, match="no face was found"):
        anonymize_batch(empty, Settings(policy=Policy.always("stop")))


def test_an_empty_plan_leaves_faces_out_on_purpose_but_an_empty_picture_is_occluded(portrait) -> None:
    assert torch.equal(anonymize_batch(portrait, Settings(), Faces()).pixels, portrait)
    assert torch.all(anonymize_batch(torch.full((1, 3, 96, 96), 0.2), Settings(), Faces()).pixels == 0.5)


def test_faces_that_are_not_selected_are_kept(trio, trio_faces) -> None:
    result = anonymize_batch(trio, Settings(method="solid", selection=Selection("largest")))
    assert sorted(r.outcome for r in result.report.faces) == ["kept", "kept", "redacted"]


def test_people_are_chosen_by_reference(trio, trio_faces, portrait) -> None:
    me = person_in(LoadedImage(portrait))
    everybody_kept = anonymize_batch(trio, Settings(method="solid", exclude=(me,)))
    assert torch.equal(everybody_kept.pixels, trio)
    stranger = me[::-1].copy()
    assert anonymize_batch(trio, Settings(method="solid", include=(stranger,))).report.count("kept") == 3
    assert len(by_person(trio, trio_faces, portrait, None)) == 3
    assert len(by_person(trio, trio_faces, None, portrait)) == 0


def test_one_identity_for_several_pictures(portrait) -> None:
    pictures = [LoadedImage(portrait), LoadedImage(portrait.flip(-1))]
    settings = Settings(**QUICK)
    identity = search_identity(pictures, settings)
    results = [anonymize_batch(p.pixels, settings, identity=identity) for p in pictures]
    embed = default_recognizer().embed
    shown = [embed(r.pixels, r.faces[0].points) for r in results]
    assert np.linalg.norm(shown[0] - shown[1]) < 0.6
    with pytest.raises(InputError, match="only covers faces"):
        search_identity(pictures, Settings(method="solid"))


def test_an_interruption_goes_through(portrait) -> None:
    class Interrupt(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        anonymize_batch(portrait, Settings(method="solid"), progress=stop)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"strength": -0.1},
        {"strength": 1.6},
        {"strength": float("nan")},
        {"tries": 0},
        {"seed": -1},
    ],
)
def test_wrong_settings_are_refused(wrong) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)


def test_a_group_gets_one_identity_each(trio, trio_faces) -> None:
    people = Identity(builtin_sampler("dlib").sample(3, 0).vectors, "dlib")
    settings = Settings(policy=Policy.always("pass"))
    result = anonymize_batch(trio, settings, trio_faces, identity=people)
    shown = identity_in(result.pixels, trio_faces)
    closeness = shown.cosine(people)
    own = identity_in(trio, trio_faces).cosine(people)
    assert (np.diag(closeness) > np.diag(own)).all()
    with pytest.raises(InputError, match="2 identities were given for 3 faces"):
        anonymize_batch(trio, settings, trio_faces, identity=Identity(people.vectors[:2], "dlib"))


def test_pseudonyms_know_a_person_again(portrait, tmp_path) -> None:
    """The same person in another picture, on another day, looks like the same new person; under another key like
    somebody else."""
    settings, darker = Settings(policy=Policy.always("pass")), (portrait * 0.9).flip(-1)
    first = anonymize_batch(portrait, settings, identity=Pseudonyms.open(tmp_path, "mine"))
    again = anonymize_batch(darker, settings, identity=Pseudonyms.open(tmp_path, "mine"))
    other = anonymize_batch(portrait, settings, identity=Pseudonyms.open(tmp_path, "theirs"))
    a, b, c = (identity_in(r.pixels) for r in (first, again, other))
    assert a.cosine(b).item() > a.cosine(c).item()
    assert first.report.faces[0].outcome == again.report.faces[0].outcome
