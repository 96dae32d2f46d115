"""DiffDeID behind the interface of all methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import LEVELS, builtin_sampler, target_cosine
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.diffdeid.method import DiffDeIDMethod, level_of
from faceveil.pipelines.methods.diffdeid.people import alpha_of, describe_faces, with_geometry
from faceveil.pipelines.methods.diffdeid.spec import DiffDeIDOptions
from faceveil.pipelines.methods.identities import MethodIdentity
from faceveil.pipelines.methods.registry import open_method
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer


@pytest.fixture(scope="module")
def method(checkpoint_file) -> DiffDeIDMethod:
    return open_method("diffdeid", DiffDeIDOptions(checkpoint_file, steps=2))


@pytest.fixture(scope="module")
def prepared(method, portrait, portrait_faces):
    face = portrait_faces[0]
    return method.prepare(View(portrait, face, default_recognizer().embed(portrait, face.points)))


@pytest.fixture(scope="module")
def person(method, prepared) -> MethodIdentity:
    return method.sample_identity([prepared], 4)


def test_strength_chooses_the_level():
    assert [level_of(s) for s in (0.01, 0.15, 0.75, 1.0, 1.5)] == [1, 1, 5, 7, 10]


def test_strength_0_is_the_photo(method, prepared, person):
    change = method.render(prepared, person, 0.0)
    assert not change.mask.any()


def test_only_the_face_changes(method, prepared, person, portrait):
    change = method.render(prepared, person, 1.5)
    x, y = change.origin
    height, width = change.patch.shape[-2:]
    before = portrait[..., y : y + height, x : x + width]
    assert torch.equal(torch.where(change.mask > 0, before, change.patch), before)
    assert change.mask.any() and not change.mask.all()
    again = method.render(prepared, person, 1.5)
    assert torch.equal(change.patch, again.patch)


def at_level(method: DiffDeIDMethod, level: int) -> DiffDeIDMethod:
    return DiffDeIDMethod(
        method.checkpoint, method.reader, method.recognizer, method.identities, method.geometries, 2, 1.0, level
    )


def test_identity_and_geometry_follow_the_level(method, prepared, person):
    cosines, moved = [], []
    for level in (1, 4, 7, 10):
        new = at_level(method, level).person(prepared, person, 1.0)
        cosines.append(builtin_sampler("dlib").cosine(new.vector[None], prepared.own)[0, 0])
        moved.append(np.linalg.norm(new.alpha - alpha_of(prepared.face)))
        assert cosines[-1] <= target_cosine(level) + 0.05
        assert new.excess == 0
    assert cosines == sorted(cosines, reverse=True)
    assert moved[-1] > moved[0]


def test_what_stays_of_the_coefficients(prepared):
    changed = with_geometry(prepared.face, np.ones(40))
    for name in ("expression", "texture", "lighting", "angles", "translation", "gaze"):
        assert torch.equal(getattr(changed, name), getattr(prepared.face.coefficients, name))
    assert (changed.identity == 1).all()


@pytest.mark.parametrize("level", [3, 7, 10])
def test_two_photos_of_a_person_get_one_new_person(method, prepared, person, portrait, portrait_faces, level):
    """Another photo, a little noisier: dlib takes both new people for one."""
    noisy = (portrait + 0.03 * torch.randn(portrait.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    face = portrait_faces[0]
    other = method.prepare(View(noisy, face, default_recognizer().embed(noisy, face.points)))
    a, b = (at_level(method, level).person(photo, person, 1.0) for photo in (prepared, other))
    assert np.linalg.norm(prepared.own - other.own) > 0.02
    assert np.linalg.norm(a.vector - b.vector) < 0.3 if level < 10 else np.array_equal(a.vector, b.vector)


def test_a_level_that_was_not_sampled_is_refused(method, prepared):
    person = at_level(method, 7).sample_identity([prepared], 4)
    assert at_level(method, 7).person(prepared, person, 1.0).vector.shape == (128,)
    with pytest.raises(InputError, match="sampled without level 3"):
        at_level(method, 3).person(prepared, person, 1.0)


def test_what_is_saved_does_not_resemble_the_person(prepared, person):
    assert person.identity is not None
    assert builtin_sampler("dlib").cosine(person.identity.vectors, prepared.own)[0, 0] <= target_cosine(LEVELS) + 0.05


def test_a_given_identity_is_shown(method, prepared):
    given = Identity(builtin_sampler("dlib").sample(1, 3).vectors, "dlib")
    person = method.from_identity([prepared], given, 0)
    assert np.array_equal(method.person(prepared, person, 1.5).vector, given.vector)
    with pytest.raises(InputError, match="space"):
        method.from_identity([prepared], Identity(np.ones((1, 4)), "other"), 0)


def test_foreign_and_incomplete_identities_are_refused(method, prepared, person):
    with pytest.raises(InputError, match="made by the method appearance"):
        method.render(prepared, MethodIdentity("appearance"), 1.0)
    with pytest.raises(InputError, match="incomplete"):
        method.render(prepared, replace(person, codes={}), 1.0)


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(WeightsError, match="faceveil train diffdeid"):
        open_method("diffdeid", DiffDeIDOptions(tmp_path / "none.safetensors"))


def test_faces_of_a_batch(checkpoint, trio, trio_faces):
    described = describe_faces(checkpoint, trio, trio_faces, 10, 5)
    assert len(described.conditions) == len(described.places) == len(described.masks) == 3
    assert described.excess == (0.0, 0.0, 0.0)
    one = describe_faces(checkpoint, trio, replace_faces(trio_faces, 1), 10, 5)
    for a, b in zip(described.conditions.rows([1]).parts(), one.conditions.parts(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(InputError, match="2 identities do not fit 3 faces"):
        describe_faces(checkpoint, trio, trio_faces, 10, 5, Identity(np.eye(2, 128), "dlib"))
    with pytest.raises(InputError, match="no face with landmarks"):
        describe_faces(checkpoint, trio, type(trio_faces)(()), 10, 5)


def replace_faces(faces, index):
    return type(faces)((faces[index],))
