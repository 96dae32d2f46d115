"""The swapper with made-up files of the true signature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import SOME_FAILED, UNPROTECTED
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.identity.bank import Bank, build_bank
from faceveil.pipelines.identity.blend import slerp
from faceveil.pipelines.identity.identity import Identity, load_identity
from faceveil.pipelines.identity.lds import Denoiser, IdentitySampler
from faceveil.pipelines.jobs.photo import TRIES, anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.inswapper.method import InSwapperMethod
from faceveil.pipelines.methods.inswapper.network import InSwapper, PictureSwapper
from faceveil.pipelines.recognition.arcface import SPACE, ArcFace


def test_the_face_is_swapped_and_pasted(inswapper_file, w600k, portrait, portrait_faces) -> None:
    path, emap = inswapper_file
    face = portrait_faces[0]
    identity = ArcFace(w600k).embed(portrait, face.points)
    assert abs(np.linalg.norm(identity) - 1) < 1e-6
    shown = InSwapper(path).swap(portrait, face.points, identity)
    mapped = identity @ emap
    expected = mapped[0] / np.linalg.norm(mapped)
    x, y = (round(v) for v in face.points[30])
    assert abs(float((shown - portrait)[0, :, y, x].mean()) - expected) < 0.02
    far = shown[..., :40, :40]
    assert torch.equal(far, portrait[..., :40, :40])


def test_pictures_without_a_face_give_none(inswapper_file, w600k, portrait) -> None:
    swap = PictureSwapper(inswapper_file[0], w600k)
    assert swap(portrait, portrait).shape == portrait.shape
    assert swap(torch.full((1, 3, 200, 200), 0.5), portrait) is None


def test_other_networks_are_refused(inswapper_file, w600k, tmp_path) -> None:
    with pytest.raises(WeightsError, match="not inswapper_128"):
        InSwapper(w600k)
    with pytest.raises(WeightsError, match="not an ArcFace recognizer"):
        ArcFace(inswapper_file[0])
    (tmp_path / "cut.onnx").write_bytes(b"1234")
    with pytest.raises(WeightsError, match=r"cut\.onnx is not a whole ONNX file"):
        InSwapper(tmp_path / "cut.onnx")


@pytest.fixture
def people(tmp_path):
    """A bank of twenty without pictures."""
    return Bank(Identity(np.random.default_rng(2).normal(size=(20, 512)), SPACE), 1.2)


def test_the_method_runs_inside_the_job(inswapper_file, w600k, people, trio) -> None:
    method = InSwapperMethod(InSwapper(inswapper_file[0]), ArcFace(w600k), people)
    settings = Settings(method="inswapper", policy=Policy.always("pass"), seed=3)
    result = anonymize_batch(trio, settings, method=method)
    assert [row.outcome in ("replaced", "passed") for row in result.report.faces] == [True] * 3
    assert all(len(row.checks) == 1 and row.method == "inswapper" for row in result.report.faces)
    assert torch.equal(result.pixels[result.mask.expand_as(trio) == 0], trio[result.mask.expand_as(trio) == 0])
    assert (result.pixels != trio).any() and isinstance(result.identity, Identity) and result.identity.space == SPACE
    again = anonymize_batch(trio, settings, method=method)
    assert torch.equal(again.pixels, result.pixels)
    assert not torch.equal(anonymize_batch(trio, replace(settings, seed=4), method=method).pixels, result.pixels)


def test_what_is_still_recognized_is_occluded(inswapper_file, w600k, people, portrait) -> None:
    """The made-up swapper only brightens: the recognizer is not fooled, so the policy must act."""
    result = anonymize_batch(
        portrait,
        Settings(method="inswapper"),
        method=InSwapperMethod(InSwapper(inswapper_file[0]), ArcFace(w600k), people),
    )
    (row,) = result.report.faces
    assert row.outcome == "redacted" and row.tries == TRIES and row.checks[0].same_person


def test_strength_moves_from_the_person_to_the_new_one(inswapper_file, w600k, people, portrait, portrait_faces) -> None:
    path, emap = inswapper_file
    method = InSwapperMethod(InSwapper(path), ArcFace(w600k), people)
    prepared = method.prepare(View(portrait, portrait_faces[0], np.zeros(128)))
    assert method.render(prepared, people.identities[0], 0.0).mask.sum() == 0

    def first(identity) -> float:
        mapped = identity.vector @ emap
        return mapped[0] / np.linalg.norm(mapped)

    x, y = (round(v) for v in portrait_faces[0].points[30])
    for strength in (0.5, 1.0, 1.5):
        change = method.render(prepared, people.identities[0], strength)
        seen = float(
            (
                change.patch
                - portrait[
                    ...,
                    change.origin[1] : change.origin[1] + change.patch.shape[-2],
                    change.origin[0] : change.origin[0] + change.patch.shape[-1],
                ]
            )[0, :, y - change.origin[1], x - change.origin[0]].mean()
        )
        assert abs(seen - first(slerp(prepared.own, people.identities[0], strength))) < 0.02


def test_people_come_from_a_bank_a_sampler_or_the_user(inswapper_file, w600k, people, portrait, portrait_faces) -> None:
    network, recognizer = InSwapper(inswapper_file[0]), ArcFace(w600k)
    own = [InSwapperMethod(network, recognizer, people).prepare(View(portrait, portrait_faces[0], np.zeros(128)))]
    sampler = IdentitySampler(Denoiser(512, 16, 1), np.zeros(512), np.full(512, 512**-0.5), SPACE, 512)
    drawn = InSwapperMethod(network, recognizer, sampler).sample_identity(own, 1)
    assert sampler.cosine(drawn.vector, own[0].own.vector)[0, 0] <= 0.28
    with pytest.raises(InputError, match="needs somebody to show"):
        InSwapperMethod(network, recognizer, None).sample_identity(own, 1)
    near = Bank(own[0].own, 1.2)
    with pytest.raises(InputError, match="everybody in the bank resembles"):
        InSwapperMethod(network, recognizer, near).sample_identity(own, 1)
    with pytest.raises(InputError, match="the people given are of dlib"):
        InSwapperMethod(network, recognizer, Bank(Identity(np.ones(128), "dlib"), 0.4))
    with pytest.raises(InputError, match="this one is of dlib"):
        InSwapperMethod(network, recognizer, people).from_identity(own, Identity(np.ones(128), "dlib"), 0)


def test_the_command_line_swaps(inswapper_file, w600k, portrait_file, tmp_path) -> None:
    faces = [
        (v / np.linalg.norm(v), torch.zeros(1, 3, 256, 256)) for v in np.random.default_rng(4).normal(size=(5, 512))
    ]
    build_bank(tmp_path / "bank", faces, SPACE, 1.2)
    out = tmp_path / "out.png"
    swap = [
        "anonymize",
        str(portrait_file),
        "-o",
        str(out),
        "--method",
        "inswapper",
        "--swapper",
        str(inswapper_file[0]),
        "--recognizer",
        str(w600k),
    ]
    assert (
        main(
            [
                *swap,
                "--people",
                str(tmp_path / "bank"),
                "--policy",
                "pass",
                "--save-identity",
                str(tmp_path / "id.safetensors"),
            ]
        )
        == UNPROTECTED
    )
    assert out.is_file() and load_identity(tmp_path / "id.safetensors").space == SPACE
    assert main([*swap[:-2], "--policy", "pass"]) == SOME_FAILED
