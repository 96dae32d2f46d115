"""The 3D nodes inside ComfyUI: in inference mode, with progress, interruptible, with a picture under each."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def image(run) -> torch.Tensor:
    return run("SamplePortrait")[0]


@pytest.fixture(scope="module")
def found(run, image):
    return run("EstimateCoefficients", image=image)


def test_a_face_is_fitted_and_shown(found, image) -> None:
    geometry, overlay, numbers = found
    assert len(geometry.estimate) == 1 and float(geometry.estimate.errors) < 0.02
    assert overlay.shape == image.shape and (overlay != image).any(-1).float().mean() < 0.1
    assert "face 0: pitch" in numbers and "landmark error" in numbers


def test_fitting_can_be_interrupted(run, image) -> None:
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("EstimateCoefficients", image=image)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("EditCoefficients", {"jaw_width": 2.0, "smile": 1.0, "yaw": 10.0}),
        ("PerturbCoefficients", {"scale": 1.0}),
        ("SampleGeometry", {"level": 10}),
    ],
)
def test_changes_have_a_picture(run, found, node, inputs) -> None:
    before = run("Render3DFace", coefficients=found[0], size=384)[0]
    changed, picture = run(node, coefficients=found[0], **inputs)
    assert picture.shape == (1, 384, 384, 3) and (picture - before).abs().max() > 0.05
    assert changed.images == found[0].images


def test_parts_of_another_face(run, found) -> None:
    smiling, _ = run("EditCoefficients", coefficients=found[0], smile=2.0, yaw=15.0)
    taken, _ = run("ReplaceCoefficients", coefficients=found[0], other=smiling, parts="expression")
    assert torch.equal(taken.estimate.coefficients.expression, smiling.estimate.coefficients.expression)
    assert torch.equal(taken.estimate.coefficients.angles, found[0].estimate.coefficients.angles)
    turned, _ = run("ReplaceCoefficients", coefficients=found[0], other=smiling, parts="pose", share=0.5)
    assert not torch.equal(turned.estimate.coefficients.angles, found[0].estimate.coefficients.angles)
    with pytest.raises(Exception, match="parts must be one or more of identity"):
        run("ReplaceCoefficients", coefficients=found[0], other=smiling, parts="ears")


@pytest.mark.parametrize("style", ["shaded", "normals", "depth", "wireframe"])
def test_drawing(run, found, image, style) -> None:
    alone, mask = run("Render3DFace", coefficients=found[0], style=style, size=256)
    assert alone.shape == (1, 256, 256, 3) and mask.shape == (1, 256, 256) and alone[mask == 0].max() == 0
    over, covered = run("Render3DFace", coefficients=found[0], style=style, image=image)
    assert torch.equal(over[covered == 0], image[covered == 0]) and (over != image).any()


def test_reshape_then_veil(run, found, image) -> None:
    edited, _ = run("EditCoefficients", coefficients=found[0], jaw_width=3.0)
    bent, mask = run("ReshapeFace", image=image, coefficients=found[0], edited=edited)
    assert torch.equal(bent[mask == 0], image[mask == 0]) and (bent != image).any()
    assert '"outcome": "replaced"' in run("VeilFaces", image=bent)[4]


def test_clips_and_groups(run, image) -> None:
    clip = torch.cat([image, image.roll(2, 2)])
    geometry, overlay, _ = run("EstimateCoefficients", image=clip, smoothing=1.0)
    assert geometry.images == (0, 1) and len(overlay) == 2
    assert torch.equal(geometry.estimate.coefficients.identity[0], geometry.estimate.coefficients.identity[1])
    group = run("SamplePortrait", picture="group")[0]
    several, _, numbers = run("EstimateCoefficients", image=group)
    assert several.images == (0, 0, 0) and len(numbers.splitlines()) == 3
    with pytest.raises(Exception, match="belong to image 1, but the batch has 1 images"):
        run("Render3DFace", coefficients=geometry, image=image)
    with pytest.raises(Exception, match="no face with landmarks was found"):
        run("EstimateCoefficients", image=torch.full((1, 64, 64, 3), 0.5))


def test_files(run, found, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    run("SaveCoefficients", coefficients=found[0])
    again, picture = run("LoadCoefficients", file="coefficients_00001_.safetensors")
    assert (
        torch.equal(again.estimate.coefficients.identity, found[0].estimate.coefficients.identity)
        and picture.shape[-1] == 3
    )
    with pytest.raises(Exception, match="choose one of Save Coefficients"):
        run("LoadCoefficients", file="../x.safetensors")


def test_models(run, found, tmp_path, monkeypatch) -> None:
    import folder_paths

    model, picture = run("LoadMorphableModel", model="built-in")
    assert model.name == found[0].model.name and picture.shape == (1, 384, 384, 3)
    with pytest.raises(Exception, match="is not in models/faceveil"):
        run("LoadMorphableModel", model="BFM_model_front.mat")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "faceveil", ([str(tmp_path)], {".pth"}))
    (tmp_path / "epoch_20.pth").write_bytes(b"1")
    with pytest.raises(Exception, match=r"regressor epoch_20\.pth"):
        run("EstimateCoefficients", image=torch.zeros(1, 8, 8, 3), regressor="epoch_20.pth")
