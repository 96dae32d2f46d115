"""IDDiffuse inside ComfyUI: KSampler gives the same numbers as diffusers, and the nodes fit together."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

SIZE = 28
TIMES = [999, 749, 499, 249]


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
    """A tiny checkpoint and a bank of one person, in a model folder."""
    import folder_paths

    unet = package("pipelines.methods.iddiffuse.unet")
    network = package("pipelines.methods.iddiffuse.network")
    pipeline = package("pipelines.methods.iddiffuse.pipeline")
    bank = package("pipelines.identity.bank")
    align = package("pipelines.faces.align")
    root = tmp_path_factory.mktemp("models")
    folder_paths.add_model_folder_path("faceveil", str(root))
    denoiser = network.Denoiser(network.NetworkConfig(unet.UNetConfig(SIZE, 32, (1, 2, 2), 7, (2,), 16, 48), 3, 256))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.unet.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        denoiser.scale.fill_(1.0)
    pipeline.Checkpoint(denoiser.eval(), "faceveil").save(root / "iddiffuse-tiny.safetensors")
    photo = package("pipelines.imaging.image").as_image(package("pipelines.imaging.samples").astronaut()).pixels
    points = package("pipelines.faces.detect").detect_faces(photo)[0].points
    recognizer = package("pipelines.recognition.embedder").built_in_embedder()
    vector = package("pipelines.recognition.base").unit(recognizer.embed(photo, points))
    portrait = align.crop(photo, align.ffhq_transform(points, 256), 256).clamp(0, 1)
    bank.build_bank(root / "people", [(vector, portrait)], "faceveil", 1.0)
    return root


@pytest.fixture(scope="module")
def loaded(run, folder) -> Any:
    return run("LoadIDDiffuse", checkpoint="iddiffuse-tiny.safetensors")


@pytest.fixture(scope="module")
def bank(package, folder) -> Any:
    return package("pipelines.identity.bank").load_bank(folder / "people")


@pytest.fixture(scope="module")
def extracted(run, loaded, image) -> Any:
    return run("ExtractTexture", image=image, iddiffuse=loaded[1])


@pytest.fixture(scope="module")
def positive(run, extracted, bank) -> Any:
    return run("IDDiffuseConditioning", texture=extracted[0], bank=bank, gamma=0.25)[0]


@pytest.mark.parametrize("kind", ["ddim", "euler"])
def test_ksampler_equals_diffusers(package, loaded, positive, kind):
    import comfy.sample
    import comfy.samplers
    import diffusers

    sampling = package("pipelines.methods.sampling")
    pipeline = package("pipelines.methods.iddiffuse.pipeline")
    noise = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(8))
    model = loaded[0]
    sigmas = torch.cat([model.get_model_object("model_sampling").sigmas[TIMES], torch.zeros(1)])
    with torch.inference_mode():
        native = comfy.sample.sample_custom(
            model,
            noise,
            1.0,
            comfy.samplers.sampler_object(kind),
            sigmas,
            positive,
            positive,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=1,
        )
    classes = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}
    options = {"clip_sample": False} if kind == "ddim" else {}
    scheduler = classes[kind](**sampling.SCHEDULER, **options, timestep_spacing="trailing")
    pipe = pipeline.IDDiffusePipeline(loaded[1].network, scheduler, eta=0.0)
    scheduler.set_timesteps(len(TIMES))
    alpha = diffusers.DDIMScheduler(**sampling.SCHEDULER).alphas_cumprod[TIMES[0]]
    start = noise * (1 - alpha).sqrt() if kind == "ddim" else noise * ((1 - alpha) / alpha).sqrt()
    parts = positive[0][1]
    tokens = parts["faceveil_identity"], parts["faceveil_texture"]
    expected = pipe.denoise(*tokens, start, [torch.Generator() for _ in range(3)])
    assert (native - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_graph_gives_an_image(run, loaded, extracted, positive, image):
    import nodes as core

    _, latent, places, masks = extracted
    with torch.inference_mode():
        drawn = core.common_ksampler(loaded[0], 3, 2, 1.0, "ddpm", "normal", positive, positive, latent)[0]
    (crops,) = run("DecodePixels", latent=drawn)
    assert crops.shape == (3, SIZE, SIZE, 3)
    result, changed = run("PasteFaces", image=image, crops=crops, places=places, masks=masks)
    assert torch.equal(result[changed == 0], image[changed == 0])
    assert 0.005 < float(changed.mean()) < 0.5


def test_veil_faces_runs_the_method(run, folder, image):
    method = {
        "method": "iddiffuse",
        "checkpoint": "iddiffuse-tiny.safetensors",
        "bank": "people/bank.safetensors",
        "steps": 2,
        "skip_similar": False,
        "upscaler": "none",
    }
    outputs = run("VeilFaces", image=image, method=method, strength=1.0, seed=1)
    assert not torch.equal(outputs[0], image)


def test_a_bank_of_another_space_is_refused(run, extracted, bank):
    from dataclasses import replace

    foreign = replace(bank, identities=type(bank.identities)(bank.identities.vectors, "dlib"))
    with pytest.raises(Exception, match="needs a bank of the space faceveil"):
        run("IDDiffuseConditioning", texture=extracted[0], bank=foreign)


def test_a_missing_checkpoint_says_what_to_do(run):
    with pytest.raises(Exception, match="faceveil train iddiffuse"):
        run("LoadIDDiffuse", checkpoint="none")
