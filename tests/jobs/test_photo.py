"""The photo job: plan, policy, verification, order."""

from __future__ import annotations

import json
from dataclasses import replace

import faceveil
import numpy as np
import pytest
import torch
from dummy.method import Paint
from faceveil.pipelines.core.errors import InputError, PolicyStop
from faceveil.pipelines.core.seeds import face_seed
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.identity.pseudonym import Pseudonyms
from faceveil.pipelines.imaging.image import LoadedImage
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.jobs.people import embed_identities, embed_reference, filter_by_person
from faceveil.pipelines.jobs.photo import anonymize_batch, search_identity
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.report import Check
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.jobs.verify import Verification
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.base import Change
from faceveil.pipelines.recognition.base import FaceRecognizer
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.pipelines.recognition.thresholds import Threshold, threshold_of

SEARCH = 2
"""Renderings of a search: enough for what these tests look at."""


def quick(pixels, faces=None, **settings):
    """A replacement with a short search and one try."""
    chosen = Settings(**{"tries": 1} | settings)
    return anonymize_batch(pixels, chosen, faces, method=AppearanceMethod(trials=SEARCH))


@pytest.fixture(scope="module")
def veiled(portrait):
    return anonymize_batch(portrait, Settings(), method=AppearanceMethod(trials=8))


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
    a, b = (quick(portrait, seed=5) for _ in range(2))
    assert torch.equal(a.pixels, b.pixels)


def test_removing_a_face_leaves_the_others(trio, trio_faces) -> None:
    assert len(trio_faces) == 3
    whole = quick(trio, trio_faces)
    for gone in range(3):
        rest = Faces(f for i, f in enumerate(trio_faces) if i != gone)
        part = quick(trio, rest)
        for face in rest:
            x1, y1, x2, y2 = (round(v) for v in face.box)
            assert torch.equal(part.pixels[..., y1:y2, x1:x2], whole.pixels[..., y1:y2, x1:x2])


def test_seeds_follow_the_person_or_the_place() -> None:
    face = Face((10, 10, 50, 50))
    assert face_seed(1, face.box) != face_seed(2, face.box)
    tracked = [Face((i, 10, 50 + i, 50), track=7) for i in (0, 30)]
    assert face_seed(1, tracked[0].box, 7) == face_seed(1, tracked[1].box, 7)


def test_overlapping_faces_never_show_an_original_pixel_again(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    shifted = face.moved(30, 10)
    result = anonymize_batch(
        portrait, Settings(policy=Policy.always("pass")), portrait_faces.only([face, shifted]), method=Paint()
    )
    red = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    for f in (face, shifted):
        x1, y1, x2, y2 = (int(v) for v in f.box)
        assert torch.all(result.pixels[0, :, y1:y2, x1:x2] == red)


def test_overlapping_real_replacements_change_both(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    result = quick(portrait, Faces([face, face.moved(14, 6)]))
    x1, y1, x2, y2 = (round(v) for v in face.box)
    inner = result.pixels[..., y1 + 40 : y2 - 20, x1 + 20 : x2 - 20]
    assert (inner != portrait[..., y1 + 40 : y2 - 20, x1 + 20 : x2 - 20]).any(1).float().mean() > 0.9


class _Lazy(Paint):
    def render(self, view, identity, strength, progress):
        change = super().render(view, identity, strength, progress)
        x1, y1, x2, y2 = (int(v) for v in view.face.box)
        patch = view.image[..., y1 - 40 : y2 + 40, x1 - 40 : x2 + 40].clone()
        return Change(patch, (x1 - 40, y1 - 40), torch.ones_like(patch[:, :1]), change.points)


class _Broken(Paint):
    def render(self, view, identity, strength, progress):
        raise ArithmeticError("singular")


class _Picky(Paint):
    def unsupported_reason(self, face):
        return "it is a Tuesday"


@pytest.mark.parametrize(
    ("method", "reason", "tries"),
    [
        (_Lazy, "dlib and faceveil still match it", 3),
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
    redacted = anonymize_batch(empty, Settings())
    assert torch.all(redacted.pixels == 0.5)
    assert "whole image was redacted" in redacted.report.summary()
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
    me = embed_reference(LoadedImage(portrait))
    everybody_kept = anonymize_batch(trio, Settings(method="solid", exclude=(me,)))
    assert torch.equal(everybody_kept.pixels, trio)
    stranger = me[::-1].copy()
    assert anonymize_batch(trio, Settings(method="solid", include=(stranger,))).report.count("kept") == 3
    assert len(filter_by_person(trio, trio_faces, portrait, None)) == 3
    assert len(filter_by_person(trio, trio_faces, None, portrait)) == 0


def test_a_tracked_person_is_selected_with_the_frames_without_landmarks(trio, trio_faces, portrait) -> None:
    known = replace(trio_faces[0], track=0)
    lost = replace(known, landmarks=())
    assert len(filter_by_person(trio, Faces([known, lost]), portrait, None)) == 2
    assert len(filter_by_person(trio, Faces([known, lost]), None, portrait)) == 0
    assert len(filter_by_person(trio, Faces([known, replace(lost, track=None)]), None, portrait)) == 1


def test_one_identity_for_several_images(portrait) -> None:
    images = [LoadedImage(portrait), LoadedImage(portrait.flip(-1))]
    method = AppearanceMethod(trials=SEARCH)
    identity = search_identity(images, Settings(tries=1), method)
    results = [anonymize_batch(i.pixels, Settings(tries=1), method=method, identity=identity) for i in images]
    assert all(r.identities == (identity,) for r in results)
    embed = default_recognizer().embed
    shown = [embed(r.pixels, r.faces[0].points) for r in results]
    assert np.linalg.norm(shown[0] - shown[1]) < 0.6


def test_identities_come_back_one_for_each_face(trio, trio_faces) -> None:
    """And render the same pixels again."""
    first = quick(trio, trio_faces)
    assert [i is not None for i in first.identities] == [r.outcome == "replaced" for r in first.report.faces]
    again = anonymize_batch(trio, Settings(), trio_faces, identity=first.identities)
    replaced = [f for f, r in zip(trio_faces, first.report.faces, strict=True) if r.outcome == "replaced"]
    for face in replaced:
        x1, y1, x2, y2 = (round(v) for v in face.box)
        assert torch.equal(again.pixels[..., y1:y2, x1:x2], first.pixels[..., y1:y2, x1:x2])


def test_a_redacted_face_returns_no_identity(portrait, portrait_faces) -> None:
    result = anonymize_batch(portrait, Settings(), portrait_faces, method=_Lazy())
    assert result.report.faces[0].outcome == "redacted"
    assert result.identities == (None,)


def test_progress_never_runs_backwards_and_reaches_into_the_search(portrait, portrait_faces) -> None:
    steps = []
    quickly = AppearanceMethod(trials=8)
    anonymize_batch(
        portrait, Settings(tries=1), portrait_faces, method=quickly, progress=lambda *step: steps.append(step)
    )
    shares = [done / total for done, total, _ in steps]
    assert shares == sorted(shares) and shares[-1] == 1
    assert sum(what == "searching an identity" for _, _, what in steps) >= 6


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
    shown = embed_identities(result.pixels, trio_faces)
    closeness = shown.cosine(people)
    own = embed_identities(trio, trio_faces).cosine(people)
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
    a, b, c = (embed_identities(r.pixels) for r in (first, again, other))
    assert a.cosine(b).item() > a.cosine(c).item()


def test_a_strength_below_one_is_verified_and_reported(portrait, portrait_faces) -> None:
    """A match is not hidden by the setting that asked for it."""
    result = quick(portrait, portrait_faces, strength=0.1)
    row = result.report.faces[0]
    assert row.checks[0].same_person
    assert (row.outcome, row.reason, row.tries) == ("passed", "dlib and faceveil still match it at strength 0.1", 1)
    assert not result.report.safe and (result.pixels != portrait).any()
    lazy = anonymize_batch(portrait, Settings(strength=0.5), portrait_faces, method=_Lazy())
    assert lazy.report.faces[0].reason == "the method changed none of its pixels"


def test_strength_zero_keeps_the_person_and_says_so(portrait, portrait_faces) -> None:
    result = quick(portrait, portrait_faces, strength=0.0)
    row = result.report.faces[0]
    assert (row.outcome, row.reason) == ("kept", "strength 0 keeps the person")
    assert torch.equal(result.pixels, portrait)
    assert not result.report.safe and row.checks[0].same_person


class _Recognizer(FaceRecognizer):
    """Sees the same face everywhere, or fails."""

    name, dimension, alignment = "test", 2, "none"

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def embed_many(self, images, landmarks):
        if self.broken and images[0].shape[-1] < 500:
            raise RuntimeError("out of memory")
        return np.tile([1.0, 0.0], (len(images), 1))

    def threshold_at(self, false_match_rate=None):
        return Threshold(0.5, None, "this test")


def test_the_worst_recognizer_decides(portrait, portrait_faces) -> None:
    result = anonymize_batch(
        portrait,
        Settings(tries=1),
        portrait_faces,
        method=AppearanceMethod(trials=SEARCH),
        recognizers=[_Recognizer()],
    )
    row = result.report.faces[0]
    assert [c.same_person for c in row.checks] == [False, False, True]
    assert (row.outcome, row.reason) == ("redacted", "test still matches it")


def test_a_recognizer_that_could_not_compare_did_not_pass(portrait, portrait_faces) -> None:
    result = anonymize_batch(
        portrait,
        Settings(tries=1),
        portrait_faces,
        method=AppearanceMethod(trials=SEARCH),
        recognizers=[_Recognizer(broken=True)],
    )
    row = result.report.faces[0]
    assert [c.recognizer for c in row.checks] == ["dlib", "faceveil"] and not row.checks[0].same_person
    assert (row.outcome, row.reason) == ("redacted", "test could not compare it")


def test_a_recognizer_without_a_threshold_cannot_verify(portrait, portrait_faces) -> None:
    recognizer = _Recognizer()
    recognizer.threshold_at = lambda *_: threshold_of("farl")  # type: ignore[method-assign]
    with pytest.raises(InputError, match="no threshold is known for farl"):
        anonymize_batch(portrait, Settings(), portrait_faces, recognizers=[recognizer])


def test_a_change_that_changes_nothing_is_a_failure(portrait, portrait_faces, monkeypatch) -> None:
    monkeypatch.setattr(
        "faceveil.pipelines.jobs.replace.verify",
        lambda change, originals, recognizers, rounds: Verification(
            (Check("test", 0.5, 1.0, False),), (), change.points
        ),
    )
    result = anonymize_batch(portrait, Settings(), portrait_faces, method=_Lazy())
    row = result.report.faces[0]
    assert (row.outcome, row.reason) == ("redacted", "the method changed none of its pixels")


def test_the_report_names_what_really_ran(portrait, portrait_faces) -> None:
    painted = anonymize_batch(portrait, Settings(policy=Policy.always("pass")), portrait_faces, method=Paint())
    assert painted.report.faces[0].method == "dummy"
    redacted = anonymize_batch(portrait, Settings(), portrait_faces, method=_Broken())
    assert redacted.report.faces[0].method == "solid"
    assert redacted.report.faces[0].seed == face_seed(0, portrait_faces[0].box)
