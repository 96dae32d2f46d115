"""IDEudemon inside ComfyUI: its nodes fit together, and fitting works although the host runs in inference mode."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

LANDMARKS = "none: landmarks"


@pytest.fixture(scope="module")
def package(nodes) -> Any:
    """The package's modules as ComfyUI loaded them."""
    return lambda name: importlib.import_module(f"faceveil_pack.{name}")


@pytest.fixture(scope="module")
def image(package) -> torch.Tensor:
    samples = package("pipelines.imaging.samples")
    return package("pipelines.imaging.image").as_image(samples.group()).pixels.movedim(1, -1)


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory) -> Path:
    """A tiny HeadNeRF and a tiny restorer in a model folder."""
    import folder_paths

    headnerf = package("pipelines.methods.ideudemon.headnerf")
    restorer = package("pipelines.methods.ideudemon.restorer")
    root = tmp_path_factory.mktemp("models")
    folder_paths.add_model_folder_path("faceveil", str(root))
    torch.manual_seed(0)
    network = headnerf.HeadNeRF(headnerf.HeadNeRFConfig(8, 32, 64, 64))
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(2.2 if name.endswith("weight") else 1.0)
        network.fg_CD_predictor.density_module.bias.fill_(0.3)
    package("pipelines.methods.ideudemon.checkpoint").save_headnerf(root / "headnerf-tiny.safetensors", network)
    small = restorer.RestorerNetwork(restorer.RestorerConfig(32, (8, 16), 1))
    restorer.save_restorer(root / "restorer-tiny.safetensors", small)
    return root


@pytest.fixture(scope="module")
def fitted(run, folder, image) -> Any:
    with torch.inference_mode():
        (loaded,) = run("LoadHeadNeRF", checkpoint="headnerf-tiny.safetensors")
        return run("FitHeadNeRF", image=image, headnerf=loaded, iterations=2, parser=LANDMARKS, vgg="none")


def test_the_graph_gives_an_image(run, folder, image, fitted):
    heads, crops, masks, places, pictures = fitted
    assert crops.shape == pictures.shape == (3, 32, 32, 3)
    with torch.inference_mode():
        (protected,) = run("ProtectIdentity", heads=heads, scale=0.25, seed=3)
        own, _ = run("RenderHeadNeRF", heads=heads, pitch=0.0, yaw=0.0)
        drawn, drawn_masks = run("RenderHeadNeRF", heads=protected, pitch=0.0, yaw=0.0)
        hybrid, gaps = run("HybridComposition", image=crops, mask=masks, drawn=drawn, drawn_mask=drawn_masks, fill=True)
        (restored,) = run("RestoreFace", crops=hybrid, restorer="restorer-tiny.safetensors", share=1.0)
        result, changed = run("PasteFaces", image=image, crops=restored, places=places)
    assert torch.allclose(own, pictures, atol=1e-5)
    assert not torch.equal(own, drawn)
    assert torch.equal(hybrid[masks <= 0.5], crops[masks <= 0.5])
    assert gaps.shape == masks.shape
    assert restored.shape == crops.shape and not torch.equal(restored, hybrid)
    assert torch.equal(result[changed == 0], image[changed == 0])
    assert 0.005 < float(changed.mean()) < 0.6


def test_scale_0_and_a_turned_camera(run, fitted):
    heads = fitted[0]
    (same,) = run("ProtectIdentity", heads=heads, scale=0.0, seed=3)
    assert torch.equal(same.fits[0].codes.identity, heads.fits[0].codes.identity.clamp(-1, 1))
    front, _ = run("RenderHeadNeRF", heads=heads, pitch=0.0, yaw=0.0)
    side, _ = run("RenderHeadNeRF", heads=heads, pitch=0.0, yaw=30.0)
    assert not torch.equal(front, side)


def test_a_mesh_is_composed_without_any_file(run, image):
    """Estimate, perturb, render over the photo, compose: the parametric step with the built-in model."""
    with torch.inference_mode():
        coefficients, *_ = run("EstimateCoefficients", image=image)
        perturbed = run("PerturbCoefficients", coefficients=coefficients, scale=1.0, seed=1, parts="identity, texture")
        drawn, drawn_mask = run(
            "Render3DFace", coefficients=perturbed[0], style="shaded", size=512, opacity=1.0, image=image
        )
        faces, *_ = run("ParseFace", image=image, parser=LANDMARKS)
        hybrid, _ = run("HybridComposition", image=image, mask=faces, drawn=drawn, drawn_mask=drawn_mask, fill=True)
    assert hybrid.shape == image.shape
    assert torch.equal(hybrid[faces <= 0.5], image[faces <= 0.5])
    assert not torch.equal(hybrid, image)


def test_the_masks_of_a_face(run, image):
    face, head, skin, brows, eyes, nose, mouth, hair, glasses = run("ParseFace", image=image, parser=LANDMARKS)
    for mask in (face, head, skin, brows, eyes, nose, mouth, hair):
        assert mask.shape == image.shape[:3]
        assert 0.0005 < float(mask.mean()) < 0.9
    assert float(glasses.sum()) == 0
    assert bool((face >= eyes - 1e-3).all()) and bool((head >= face - 1e-3).all())


@pytest.mark.parametrize(
    ("texture", "restorer"), [("photo", "none"), ("drawn", "none"), ("drawn", "restorer-tiny.safetensors")]
)
def test_veil_faces_runs_the_method(run, folder, image, texture, restorer):
    method = {
        "method": "ideudemon",
        "headnerf": "none",
        "restorer": restorer,
        "parser": "none",
        "vgg": "none",
        "texture": texture,
        "iterations": 2,
    }
    outputs = run("VeilFaces", image=image, method=method, strength=1.0, seed=1)
    assert not torch.equal(outputs[0], image)


def test_missing_files_and_wrong_sizes_are_one_sentence(run, folder, image, fitted):
    with pytest.raises(Exception, match="models/faceveil"):
        run("LoadHeadNeRF", checkpoint="none")
    with pytest.raises(Exception, match="face restorer"):
        run("RestoreFace", crops=fitted[1], restorer="gone.pth", share=1.0)
    with pytest.raises(Exception, match="squares"):
        run("RestoreFace", crops=image, restorer="restorer-tiny.safetensors", share=1.0)
    with pytest.raises(Exception, match="do not fit"):
        run("HybridComposition", image=image, mask=fitted[2], drawn=fitted[1], drawn_mask=fitted[2], fill=True)
