"""DiffDeID inside ComfyUI: KSampler gives the same numbers as diffusers, and the nodes fit together."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

SIZE = 32
TIMES = [999, 749, 499, 249]


@pytest.fixture(scope="module")
def package(nodes) -> Any:
    """The method's package as ComfyUI loaded it."""

    def load(name: str) -> Any:
        return importlib.import_module(f"faceveil_pack.{name}")

    return load


@pytest.fixture(scope="module")
def checkpoint_file(package, tmp_path_factory) -> Path:
    import folder_paths

    network = package("pipelines.methods.diffdeid.network")
    pipeline = package("pipelines.methods.diffdeid.pipeline")
    conditions = package("pipelines.methods.diffdeid.conditions")
    coefficients = package("pipelines.geometry.coefficients")
    model = package("pipelines.geometry.builtin").built_in_morphable_model()
    layout = conditions.layout_of(model)
    numbers = sum(size for _, size in layout)
    denoiser = network.Denoiser(network.NetworkConfig(SIZE, (8, 16, 16), 1, (1, 2), 24, 128, numbers))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    standardizer = coefficients.Standardizer(layout, torch.zeros(1, numbers), torch.ones(1, numbers))
    folder = tmp_path_factory.mktemp("models")
    folder_paths.add_model_folder_path("faceveil", str(folder))
    path = folder / "diffdeid-tiny.safetensors"
    pipeline.Checkpoint(denoiser, standardizer, model.name, "dlib").save(path)
    return path


@pytest.fixture(scope="module")
def loaded(run, checkpoint_file) -> Any:
    return run("LoadDiffDeID", checkpoint=checkpoint_file.name)


@pytest.fixture(scope="module")
def described(run, loaded, package) -> Any:
    samples = package("pipelines.imaging.samples")
    image = package("pipelines.imaging.image").as_image(samples.group()).pixels.movedim(1, -1)
    return image, run("DiffDeIDConditioning", image=image, diffdeid=loaded[1], level=10, seed=3)


def sampled(model, positive, negative, noise, sampler: str, cfg: float) -> torch.Tensor:
    import comfy.sample
    import comfy.samplers

    sigmas = torch.cat([model.get_model_object("model_sampling").sigmas[TIMES], torch.zeros(1)])
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model,
            noise,
            cfg,
            comfy.samplers.sampler_object(sampler),
            sigmas,
            positive,
            negative,
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=1,
        )


def by_diffusers(package, loaded, positive, noise, kind: str, cfg: float) -> torch.Tensor:
    import diffusers

    network = package("pipelines.methods.diffdeid.network")
    sampling = package("pipelines.methods.sampling")
    pipeline = package("pipelines.methods.diffdeid.pipeline")
    parts = positive[0][1]
    conditions = network.Conditions(
        *(parts[f"faceveil_{name}"] for name in ("face", "masked", "identity", "coefficients"))
    )
    classes = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}
    options = {"clip_sample": False} if kind == "ddim" else {}
    scheduler = classes[kind](**sampling.SCHEDULER, **options, timestep_spacing="trailing")
    pipe = pipeline.DiffDeIDPipeline(loaded[1].network, scheduler)
    scheduler.set_timesteps(len(TIMES))
    assert scheduler.timesteps.tolist() == TIMES
    # ComfyUI starts from noise * sigma; in the variance-preserving form that is noise * sqrt(1 - abar).
    alpha = diffusers.DDIMScheduler(**sampling.SCHEDULER).alphas_cumprod[TIMES[0]]
    sigma = ((1 - alpha) / alpha).sqrt()
    start = noise * (1 - alpha).sqrt() if kind == "ddim" else noise * sigma
    return pipe.denoise(conditions, start, cfg, [torch.Generator() for _ in range(len(noise))])


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_ksampler_equals_diffusers(package, loaded, described, kind, cfg):
    positive, negative, latent = described[1][:3]
    noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(8))
    native = sampled(loaded[0], positive, negative, noise, kind, cfg)
    expected = by_diffusers(package, loaded, positive, noise, kind, cfg)
    assert (native - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_graph_gives_an_image(run, loaded, described):
    import nodes as core

    image, (positive, negative, latent, places, masks, report) = described
    assert report == "3 faces: level 10 was met"
    with torch.inference_mode():
        drawn = core.common_ksampler(loaded[0], 3, 2, 1.0, "euler", "normal", positive, negative, latent)[0]
    (crops,) = run("DecodePixels", latent=drawn)
    assert crops.shape == (3, SIZE, SIZE, 3)
    assert masks.shape == (3, SIZE, SIZE)
    result, changed = run("PasteFaces", image=image, crops=crops, places=places, masks=masks, match_color=False)
    assert result.shape == image.shape
    assert torch.equal(result[changed == 0], image[changed == 0])
    assert 0.02 < float(changed.mean()) < 0.6


def test_coefficients_can_be_given(run, loaded, described):
    image = described[0]
    estimated = run("EstimateCoefficients", image=image)[0]
    given = run("DiffDeIDConditioning", image=image, diffdeid=loaded[1], seed=3, coefficients=estimated)[0]
    sampled_faces, given_faces = (p[0][1]["faceveil_face"] for p in (described[1][0], given))
    assert given_faces.shape == sampled_faces.shape and not torch.equal(given_faces, sampled_faces)
    with pytest.raises(Exception, match="do not fit 3 faces"):
        one = estimated.with_coefficients(estimated.estimate.coefficients.rows([0]))
        run("DiffDeIDConditioning", image=image, diffdeid=loaded[1], seed=3, coefficients=one)


def test_foreign_conditioning_and_latents_are_refused(loaded, described):
    import nodes as core

    positive, negative, latent = described[1][:3]
    text = [[torch.zeros(1, 77, 768), {}]]
    with torch.inference_mode(), pytest.raises(Exception, match="connect positive and negative of DiffDeID"):
        core.common_ksampler(loaded[0], 3, 2, 2.0, "euler", "normal", positive, text, latent)
    wide = {"samples": torch.zeros(3, 3, SIZE, 2 * SIZE)}
    with torch.inference_mode(), pytest.raises(Exception, match="connect its latent as well"):
        core.common_ksampler(loaded[0], 3, 2, 1.0, "euler", "normal", positive, negative, wide)


def test_a_latent_of_another_model_is_refused(run):
    with pytest.raises(Exception, match="not three channels"):
        run("DecodePixels", latent={"samples": torch.zeros(1, 4, 8, 8)})


def test_a_missing_checkpoint_says_what_to_do(run):
    with pytest.raises(Exception, match="faceveil train diffdeid"):
        run("LoadDiffDeID", checkpoint="none")


def test_veil_faces_runs_the_method(run, checkpoint_file, described):
    image = described[0]
    method = {"method": "diffdeid", "checkpoint": checkpoint_file.name, "level": 10, "steps": 2, "guidance": 1.0}
    outputs = run("VeilFaces", image=image, method=method, strength=1.0, seed=1)
    assert outputs[0].shape == image.shape
    assert not torch.equal(outputs[0], image)


def test_video(run, loaded, described):
    frames = described[0][:, :400, :400].repeat(3, 1, 1, 1)
    result, report = run("DeidentifyVideo", frames=frames, diffdeid=loaded[1], steps=1)
    assert result.shape == frames.shape
    assert not any(torch.equal(a, b) for a, b in zip(result, frames, strict=True))
    assert report.startswith("1 person in 3 frames: ")


def test_identity_mask(run, described):
    image = described[0]
    masked, mask = run("IdentityMask", image=image, keep_mouth=False)
    assert mask.shape == image.shape[:3]
    assert torch.allclose(masked[mask == 1], torch.full((1,), 0.5))
    assert torch.equal(masked[mask == 0], image[mask == 0])
