"""ReferenceNet inside ComfyUI: the same numbers as the diffusers path, and nothing leaks."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

# Two channels a norm group and more: with one, the norm of an empty picture divides rounding errors by nothing.
CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [64, 128],
    "layers_per_block": 2,
    "attention_head_dim": [4, 8],
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 24,
    "use_linear_projection": True,
}
SCALE, B = 0.18215, 2


@pytest.fixture(scope="module")
def native(nodes) -> Any:
    return importlib.import_module("faceveil_pack.nodes.native.referencenet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three tiny random networks in the checkpoint's layout."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("face-anon")
    for seed, part in enumerate(("unet", "referencenet", "conditioning_referencenet")):
        torch.manual_seed(seed)
        net = UNet2DConditionModel.from_config(CONFIG)
        (root / part).mkdir()
        tensors = {k: v * (2.0 if "attn" in k else 1.0) for k, v in net.state_dict().items()}
        save_file(tensors, str(root / part / "diffusion_pytorch_model.safetensors"))
        (root / part / "config.json").write_text(json.dumps(CONFIG))
    return root


@pytest.fixture(scope="module")
def native_nets(native, folder) -> list[Any]:
    return [
        native.load_unet(folder / part / "diffusion_pytorch_model.safetensors")
        for part in ("unet", "referencenet", "conditioning_referencenet")
    ]


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(B, *shape, generator=g)
        for name, shape in {
            "source": (4, 16, 16),
            "driving": (4, 16, 16),
            "source_embedding": (1, 24),
            "driving_embedding": (1, 24),
            "noise": (4, 16, 16),
        }.items()
    }


@pytest.fixture(scope="module")
def reference(native, native_nets, inputs, nodes) -> Any:
    module = importlib.import_module("faceveil_pack.nodes.methods.referencenet")
    _, source, driving = native_nets
    return module.Reference(
        (source, driving),
        inputs["source"] / SCALE,
        inputs["source_embedding"],
        inputs["driving_embedding"],
        native.record(driving, inputs["driving"] / SCALE, inputs["driving_embedding"]),
        native.record_nothing(source, inputs["source"] / SCALE, inputs["source_embedding"]),
        swap=False,
    )


def timesteps(steps: int = 4) -> list[int]:
    return [751, 501, 251, 1][:steps]


def sampled(model, positive, negative, noise, sampler: str, cfg: float = 4.0) -> torch.Tensor:
    import comfy.sample
    import comfy.samplers

    sigmas = torch.cat([model.get_model_object("model_sampling").sigmas[timesteps()], torch.zeros(1)])
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


def by_diffusers(folder, inputs, degree: float, kind: str, cfg: float = 4.0) -> torch.Tensor:
    import diffusers

    network = importlib.import_module("faceveil_pack.pipelines.methods.referencenet.network")
    pipes = importlib.import_module("faceveil_pack.pipelines.methods.referencenet.pipeline")
    files = importlib.import_module("faceveil_pack.pipelines.methods.referencenet.files")
    scheduler = {"ddim": diffusers.DDIMScheduler, "euler": diffusers.EulerDiscreteScheduler}[kind].from_config(
        {**network.SCHEDULER, "set_alpha_to_one": True}
    )
    unet, *nets = (
        files.open_unet(folder / part, "face-anon-simple-unet")
        for part in ("unet", "referencenet", "conditioning_referencenet")
    )
    pipe = pipes.ReferenceNetPipeline(
        unet,
        *map(network.ReferenceNet, nets),
        vae=None,
        image_encoder=None,
        scheduler=scheduler,
        clip_processor=object(),
    )
    with torch.no_grad():
        encoded = pipes.Encoded(
            inputs["source"],
            inputs["source_embedding"],
            inputs["driving_embedding"],
            pipe.driving_net.record(inputs["driving"], inputs["driving_embedding"]),
            pipe.source_net.unconditional(inputs["source"], inputs["source_embedding"]),
        )
    alpha = diffusers.DDIMScheduler.from_config(network.SCHEDULER).alphas_cumprod[timesteps()[0]]
    # ComfyUI starts from noise * sigma, diffusers from noise * sqrt(1 + sigma^2).
    start = inputs["noise"] * (1 - alpha).sqrt()
    return pipe.denoise(
        pipe.condition(encoded, degree, cfg), encoded, cfg, 4, pipes.RandomSources.of(B, [], False), start
    )


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("degree", [0.0, 1.25])
def test_comfyui_equals_diffusers(run, nodes, native_nets, folder, inputs, reference, kind, degree) -> None:
    (leveled,) = run("AnonymizationLevel", reference=reference, level=degree, unit="degree d")
    model, positive, negative = run("ApplyReferenceNet", model=native_nets[0], reference=leveled)
    ours = sampled(model, positive, negative, inputs["noise"], kind) * SCALE
    theirs = by_diffusers(folder, inputs, degree, kind)
    assert float((ours - theirs).abs().max()) < 1e-4
    assert float(theirs.abs().max()) > 0.5


def test_strength_one_is_the_recommended_degree(run, nodes, reference) -> None:
    (by_strength,) = run("AnonymizationLevel", reference=reference)
    (by_degree,) = run("AnonymizationLevel", reference=reference, level=1.25, unit="degree d")
    assert by_strength.degree == by_degree.degree == 1.25
    assert all(torch.equal(by_strength.source[i], by_degree.source[i]) for i in range(5))


def test_a_level_encodes_nothing_again(run, nodes, native, native_nets, reference, monkeypatch) -> None:
    calls = []
    original = native.record
    monkeypatch.setattr(native, "record", lambda model, *rest: calls.append(model) or original(model, *rest))
    for level in (0.0, 0.5, 1.0, 1.5):
        run("AnonymizationLevel", reference=reference, level=level, unit="degree d")
    assert calls == [native_nets[1]] * 3


def test_rows_apart_give_the_same_as_rows_together(run, nodes, native_nets, inputs, reference) -> None:
    model, positive, negative = run("ApplyReferenceNet", model=native_nets[0], reference=reference)
    together = sampled(model, positive, negative, inputs["noise"], "euler")
    model.model.memory_required = lambda *_, **__: 1e30
    try:
        apart = sampled(model, positive, negative, inputs["noise"], "euler")
    finally:
        del model.model.memory_required
    assert float((together - apart).abs().max()) < 1e-3
    alone = sampled(model, positive, negative, inputs["noise"], "euler", cfg=1.0)
    assert float((together - alone).abs().max()) > 1e-2


def test_the_unpatched_model_is_left_alone(run, nodes, native_nets, inputs, reference) -> None:
    plain = [[torch.cat([inputs["source_embedding"], inputs["driving_embedding"]], 1), {}]]
    before = sampled(native_nets[0], plain, plain, inputs["noise"], "euler")
    model, positive, negative = run("ApplyReferenceNet", model=native_nets[0], reference=reference)
    sampled(model, positive, negative, inputs["noise"], "euler")
    assert torch.equal(before, sampled(native_nets[0], plain, plain, inputs["noise"], "euler"))
    assert native_nets[0].model_options["transformer_options"].get("patches", {}) == {}
    # And the patched one without references is the plain network with v-prediction: it runs.
    assert torch.isfinite(sampled(model, plain, plain, inputs["noise"], "euler")).all()


def test_a_lora_changes_the_result(run, nodes, native_nets, inputs, reference) -> None:
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight"
    weight = native_nets[0].model.state_dict()[key]
    patched = native_nets[0].clone()
    patched.add_patches({key: ("diff", (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)),))})
    results = []
    for model in (native_nets[0], patched, native_nets[0]):
        applied, positive, negative = run("ApplyReferenceNet", model=model, reference=reference)
        results.append(sampled(applied, positive, negative, inputs["noise"], "euler"))
    assert not torch.allclose(results[0], results[1], atol=1e-3)
    assert torch.allclose(results[0], results[2], atol=1e-5)


def test_encode_reference_takes_clips_pooler(run, nodes, native_nets, tmp_path) -> None:
    import comfy.clip_vision
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = {
        "hidden_size": 24,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
        "image_size": 224,
        "num_channels": 3,
        "hidden_act": "quick_gelu",
        "model_type": "clip_vision_model",
        "projection_dim": 16,
    }
    (tmp_path / "clip.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    theirs = CLIPVisionModel(CLIPVisionConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    ours = comfy.clip_vision.ClipVisionModel(str(tmp_path / "clip.json"))
    tensors = {
        ("" if k.startswith("vision_model.") else "vision_model.") + k: v for k, v in theirs.state_dict().items()
    }
    ours.load_sd({**tensors, "visual_projection.weight": torch.zeros(16, 24)})

    class Vae:
        def encode(self, image):
            return torch.nn.functional.avg_pool2d(image.movedim(-1, 1), 8)[:, [0, 1, 2, 0]] - 0.5

    image = torch.rand(2, 224, 224, 3, generator=torch.Generator().manual_seed(0))
    reference, latent = run(
        "EncodeReference", image=image, referencenet=(native_nets[1], native_nets[2]), vae=Vae(), clip_vision=ours
    )
    assert latent["samples"].shape == (2, 4, 28, 28)
    pixels = comfy.clip_vision.clip_preprocess(image, size=224).float()
    with torch.no_grad():
        wanted = theirs(pixels).pooler_output
    # ComfyUI runs its towers in half precision.
    assert float((reference.driving_embedding[:, 0] - wanted).abs().max()) < 2e-2
    swapped, _ = run(
        "EncodeReference",
        image=image,
        source=image[:1, ::2, ::2],
        referencenet=(native_nets[1], native_nets[2]),
        vae=Vae(),
        clip_vision=ours,
    )
    assert swapped.swap and swapped.source_latents.shape == (2, 4, 28, 28)


def test_missing_files_are_named(run, nodes) -> None:
    with pytest.raises(
        Exception,
        match=r"not in models/faceveil or models/diffusion_models; get .*referencenet.* from https://huggingface.co/hkung/face-anon-simple",
    ):
        run("LoadReferenceNet", source_net="", driving_net="")
    with pytest.raises(Exception, match="the degree d must be between 0 and 2"):
        run("AnonymizationLevel", reference=None, level=-1.0)
