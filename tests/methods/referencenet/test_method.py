"""The referencenet method in a job, with tiny random networks whose output is noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.photo import anonymize, anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.identities import MethodIdentity
from faceveil.pipelines.methods.referencenet.method import ReferenceNetMethod
from faceveil.pipelines.methods.registry import method_spec

FIXTURE = Path(__file__).parent / "fixture"


@pytest.fixture
def method(pipeline) -> ReferenceNetMethod:
    return ReferenceNetMethod(pipeline, steps=1)


def test_only_the_face_changes(method, portrait, portrait_faces) -> None:
    settings = Settings(method="referencenet", tries=1)
    result = anonymize_batch(portrait, settings, faces=portrait_faces, method=method)
    report = result.report.faces[0]
    assert (report.method, report.outcome) == ("referencenet", "replaced")
    outside = (result.mask == 0).expand_as(portrait)
    assert torch.equal(result.pixels[outside], portrait[outside])
    # The square crop includes hair and shoulders; only the face is pasted.
    assert 0.02 < float(result.mask.mean()) < 0.25
    again = anonymize_batch(portrait, settings, faces=portrait_faces, method=method)
    assert torch.equal(again.pixels, result.pixels)


def test_strength_zero_returns_the_photo(method, portrait, portrait_faces) -> None:
    prepared = method.prepare(View(portrait, portrait_faces[0], None))
    change = method.render(prepared, MethodIdentity("referencenet", 0), 0.0)
    assert float(change.mask.sum()) == 0
    x, y = change.origin
    height, width = change.patch.shape[-2:]
    assert torch.equal(change.patch, portrait[..., y : y + height, x : x + width])


def test_missing_network_files_are_refused(portrait, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        WeightsError, match=r"missing from .*; get .* from https://huggingface.co/hkung/face-anon-simple"
    ):
        anonymize(portrait, method="referencenet")


def test_command_line_opens_network_files(tmp_path, capsys) -> None:
    assert main(["sample", str(tmp_path / "a.png")]) == 0
    arguments = [
        "anonymize",
        str(tmp_path / "a.png"),
        "-o",
        str(tmp_path / "b.png"),
        "--method",
        "referencenet",
        "--referencenet-steps",
        "1",
    ]
    assert main([*arguments, "--referencenet-checkpoint", str(tmp_path)]) == 1
    assert "hkung/face-anon-simple" in capsys.readouterr().err
    files = [
        "--referencenet-checkpoint",
        str(FIXTURE),
        "--referencenet-vae",
        str(FIXTURE / "vae"),
        "--referencenet-image-encoder",
        str(FIXTURE / "image_encoder"),
    ]
    assert main([*arguments, *files]) == 0
    assert load_image(tmp_path / "b.png").pixels.shape == (1, 3, 512, 512)


def test_single_files_open_what_folders_do(portrait, portrait_faces) -> None:
    """A node names files: the unet's, the VAE's and the image encoder's."""
    weights = "diffusion_pytorch_model.safetensors"
    spec = method_spec("referencenet")
    by_file, by_folder = (
        spec.open(spec.options(checkpoint=checkpoint, vae=vae, image_encoder=encoder, steps=1))
        for checkpoint, vae, encoder in (
            (FIXTURE / "unet" / weights, FIXTURE / "vae" / weights, FIXTURE / "image_encoder" / "model.safetensors"),
            (FIXTURE, FIXTURE / "vae", FIXTURE / "image_encoder"),
        )
    )
    assert isinstance(by_file, ReferenceNetMethod)
    assert torch.equal(*(_square(method, portrait, portrait_faces) for method in (by_file, by_folder)))


def _square(method, portrait, faces) -> torch.Tensor:
    prepared = method.prepare(View(portrait, faces[0], None))
    return method.render(prepared, method.sample_identity([prepared], 3), 1.0).patch
