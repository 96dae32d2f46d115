"""Test the method inswapper with small generated networks that have the inputs and outputs of the real files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import SOME_FAILED, UNPROTECTED
from faceveil.pipelines.core.errors import CannotReplace, InputError, WeightsError
from faceveil.pipelines.identity.bank import Bank, build_bank
from faceveil.pipelines.identity.blend import slerp
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import Denoiser, IdentitySampler
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.policy import Policy
from faceveil.pipelines.jobs.settings import TRIES, Settings
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.identities import load_any_identity
from faceveil.pipelines.methods.inswapper.method import InSwapperMethod
from faceveil.pipelines.methods.inswapper.network import ImageSwapper, InSwapper
from faceveil.pipelines.recognition.arcface import SPACE, ArcFace


def test_the_face_is_swapped_and_pasted(inswapper_file, w600k, portrait, portrait_faces) -> None:
    path, emap = inswapper_file
    face = portrait_faces[0]
    identity = ArcFace(w600k).embed(portrait, face.points)
    assert abs(np.linalg.norm(identity) - 1) < 1e-6
    swapped = InSwapper(path).swap(portrait, face.points, identity)
    mapped = identity @ emap
    expected = mapped[0] / np.linalg.norm(mapped)
    x, y = (round(v) for v in face.points[30])
    assert abs(float((swapped - portrait)[0, :, y, x].mean()) - expected) < 0.02
    far = swapped[..., :40, :40]
    assert torch.equal(far, portrait[..., :40, :40])


def test_images_without_a_face_give_none(inswapper_file, w600k, portrait) -> None:
    swap = ImageSwapper(inswapper_file[0], w600k)
    assert swap(portrait, portrait).shape == portrait.shape
    assert swap(torch.full((1, 3, 200, 200), 0.5), portrait) is None


def test_other_networks_are_refused(inswapper_file, w600k, tmp_path) -> None:
    with pytest.raises(WeightsError, match="not inswapper_128"):
        InSwapper(w600k)
    with pytest.raises(WeightsError, match="not an ArcFace recognizer"):
        ArcFace(inswapper_file[0])
    (tmp_path / "cut.onnx").write_bytes(b"1234")
    with pytest.raises(WeightsError, match=r"cut\.onnx is not a complete ONNX file"):
        InSwapper(tmp_path / "cut.onnx")


@pytest.fixture
def bank(tmp_path):
    """A bank of twenty identities without portraits."""
    return Bank(Identity(np.random.default_rng(2).normal(size=(20, 512)), SPACE), 1.2)


def test_the_method_runs_inside_the_job(inswapper_file, w600k, bank, trio) -> None:
    method = InSwapperMethod(InSwapper(inswapper_file[0]), ArcFace(w600k), bank)
    settings = Settings(method="inswapper", policy=Policy.always("pass"), seed=3)
    result = anonymize_batch(trio, settings, method=method)
    # The tiny network does not change the person, so dlib matches every face, and the policy passes them.
    assert [row.outcome for row in result.report.faces] == ["passed"] * 3
    assert all(len(row.checks) == 2 and row.method == "inswapper" for row in result.report.faces)
    assert torch.equal(result.pixels[result.mask.expand_as(trio) == 0], trio[result.mask.expand_as(trio) == 0])
    assert (result.pixels != trio).any()
    assert [(i.method, i.identity.space) for i in result.identities] == [("inswapper", SPACE)] * 3
    again = anonymize_batch(trio, settings, method=method)
    assert torch.equal(again.pixels, result.pixels)
    assert not torch.equal(anonymize_batch(trio, replace(settings, seed=4), method=method).pixels, result.pixels)


def test_a_face_that_is_still_recognized_is_redacted(inswapper_file, w600k, bank, portrait) -> None:
    """The generated swapper only brightens the face, so the recognizer still matches it and the policy must act."""
    result = anonymize_batch(
        portrait,
        Settings(method="inswapper"),
        method=InSwapperMethod(InSwapper(inswapper_file[0]), ArcFace(w600k), bank),
    )
    (row,) = result.report.faces
    assert row.outcome == "redacted" and row.tries == TRIES and row.checks[0].same_person


def test_strength_moves_from_the_person_to_the_identity(inswapper_file, w600k, bank, portrait, portrait_faces) -> None:
    path, emap = inswapper_file
    method = InSwapperMethod(InSwapper(path), ArcFace(w600k), bank)
    prepared = method.prepare(View(portrait, portrait_faces[0], np.zeros(128)))
    identity = method.from_identity([prepared], bank.identities[0], 0)
    assert method.render(prepared, identity, 0.0).mask.sum() == 0

    def first(identity) -> float:
        mapped = identity.vector @ emap
        return mapped[0] / np.linalg.norm(mapped)

    x, y = (round(v) for v in portrait_faces[0].points[30])
    for strength in (0.5, 1.0, 1.5):
        change = method.render(prepared, identity, strength)
        brightness = float(
            (
                change.patch
                - portrait[
                    ...,
                    change.origin[1] : change.origin[1] + change.patch.shape[-2],
                    change.origin[0] : change.origin[0] + change.patch.shape[-1],
                ]
            )[0, :, y - change.origin[1], x - change.origin[0]].mean()
        )
        assert abs(brightness - first(slerp(prepared.own, bank.identities[0], strength))) < 0.02


def test_identities_come_from_a_bank_a_sampler_or_the_user(
    inswapper_file, w600k, bank, portrait, portrait_faces
) -> None:
    network, recognizer = InSwapper(inswapper_file[0]), ArcFace(w600k)
    own = [InSwapperMethod(network, recognizer, bank).prepare(View(portrait, portrait_faces[0], np.zeros(128)))]
    sampler = IdentitySampler(Denoiser(512, 16, 1), np.zeros(512), np.full(512, 512**-0.5), SPACE, 512)
    sampled = InSwapperMethod(network, recognizer, sampler).sample_identity(own, 1)
    assert sampler.cosine(sampled.identity.vector, own[0].own.vector)[0, 0] <= 0.28
    with pytest.raises(InputError, match="no source of new identities"):
        InSwapperMethod(network, recognizer, None).sample_identity(own, 1)
    near = Bank(own[0].own, 1.2)
    with pytest.raises(CannotReplace, match="all identities in the bank are too similar"):
        InSwapperMethod(network, recognizer, near).sample_identity(own, 1)
    with pytest.raises(InputError, match="the source is of dlib"):
        InSwapperMethod(network, recognizer, Bank(Identity(np.ones(128), "dlib"), 0.4))
    with pytest.raises(InputError, match="this one is of dlib"):
        InSwapperMethod(network, recognizer, bank).from_identity(own, Identity(np.ones(128), "dlib"), 0)


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
        "--inswapper-swapper",
        str(inswapper_file[0]),
        "--inswapper-recognizer",
        str(w600k),
    ]
    assert (
        main(
            [
                *swap,
                "--inswapper-source",
                str(tmp_path / "bank"),
                "--policy",
                "pass",
                "--save-identity",
                str(tmp_path / "id.safetensors"),
            ]
        )
        == UNPROTECTED
    )
    assert out.is_file() and load_any_identity(tmp_path / "id.safetensors").identity.space == SPACE
    assert main([*swap[:-2], "--policy", "pass"]) == SOME_FAILED
