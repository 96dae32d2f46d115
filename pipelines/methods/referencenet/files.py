"""Open the networks from the user's files: the folders of the public checkpoint, a VAE of Stable Diffusion 1 or 2, and
the CLIP vision encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....weights.catalog import card
from ...core.errors import WeightsError
from ...core.stored import read_safetensors
from .network import LATENT_SCALE, ReferenceNet
from .pipeline import ReferenceNetPipeline

UNET, SOURCE, DRIVING = "unet", "referencenet", "conditioning_referencenet"
WEIGHTS = "diffusion_pytorch_model.safetensors"
_CARDS = {UNET: "face-anon-simple-unet", SOURCE: "face-anon-simple-source", DRIVING: "face-anon-simple-driving"}

SD21_UNET: dict[str, Any] = {
    "sample_size": 96,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
_SD_VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "scaling_factor": LATENT_SCALE,
    "sample_size": 768,
}


def open_pipeline(
    checkpoint: Path,
    vae: Path,
    image_encoder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scheduler: Any = None,
    offload: bool = False,
) -> ReferenceNetPipeline:
    """Open the networks and build a pipeline.

    Args:
        checkpoint: folder with ``unet``, ``referencenet`` and ``conditioning_referencenet``, each with a
            config and a safetensors file.
        vae: a diffusers folder, or one safetensors file with the tensor names of diffusers or Stability AI.
        image_encoder: a transformers folder with a CLIP vision model, or its safetensors file.
        scheduler: as for ``ReferenceNetPipeline``.
        offload: keep all networks except the denoiser on the CPU while they are not in use; needs less GPU memory and
            more time.

    Raises:
        WeightsError: a file is missing or damaged, or holds another network.
    """
    unet, source, driving = (open_unet(checkpoint / part, _CARDS[part]) for part in (UNET, SOURCE, DRIVING))
    nets = ReferenceNet(source), ReferenceNet(driving)
    pipeline = ReferenceNetPipeline(
        unet, *nets, open_vae(vae), open_image_encoder(image_encoder), scheduler, offload=offload
    )
    needed, given = unet.config.cross_attention_dim, pipeline.image_encoder.config.hidden_size
    if needed != given:
        raise WeightsError(
            f"the image encoder outputs {given} values per image, but the networks need {needed}; use the vision"
            " encoder of CLIP ViT-L/14"
        )
    return pipeline.to(device, dtype)


def open_unet(folder: Path, name: str) -> Any:
    """Open a UNet from a folder.

    The configs of the ReferenceNets name a class of the authors. Its architecture and tensor names equal those of
    diffusers' ``UNet2DConditionModel``.

    Args:
        folder: folder with ``config.json`` and a safetensors file; Stable Diffusion 2.1's config if it is missing.
        name: name of the file's model card, for the error message.

    Raises:
        WeightsError: the file is missing or damaged, or holds another network.
    """
    from diffusers import UNet2DConditionModel

    if not (folder / WEIGHTS).is_file():
        raise WeightsError(missing_file_message(name, folder / WEIGHTS))
    config = _config(folder) if (folder / "config.json").is_file() else SD21_UNET
    net = UNet2DConditionModel.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    _load_weights(net, _tensors(folder / WEIGHTS), folder / WEIGHTS)
    return net.eval().requires_grad_(False)


def open_vae(path: Path) -> Any:
    """Open a Stable Diffusion autoencoder with four latent channels.

    Raises:
        WeightsError: the file is missing or damaged, or holds another network.
    """
    from diffusers import AutoencoderKL

    file = _vae_file(path)
    if not file.is_file():
        raise WeightsError(missing_file_message("sd-vae", file))
    tensors = _tensors(file)
    # A file of another name may lie beside the config of another VAE.
    own = file.name == WEIGHTS and (file.parent / "config.json").is_file()
    config = _config(file.parent) if own else _SD_VAE
    net = AutoencoderKL.from_config({k: v for k, v in config.items() if not k.startswith("_")})
    if not any(".resnets." in key for key in tensors):
        from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

        tensors = convert_ldm_vae_checkpoint(tensors, dict(net.config))
    _load_weights(net, _current_vae_names(tensors), file)
    return net.eval().requires_grad_(False)


def open_image_encoder(path: Path) -> Any:
    """Open the vision encoder of CLIP ViT-L/14.

    The pipeline uses its pooled class token of size 1024, not the projection of size 768.

    Raises:
        WeightsError: the file is missing or damaged, or holds another network.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModel

    file = _encoder_file(path)
    if not file.is_file():
        raise WeightsError(missing_file_message("clip-vit-large-patch14", file))
    config = _config(file.parent) if (file.parent / "config.json").is_file() else {}
    config = config.get("vision_config", config) or {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    }
    net = CLIPVisionModel(
        CLIPVisionConfig(
            **{
                k: v
                for k, v in config.items()
                if k not in ("architectures", "torch_dtype", "dtype", "transformers_version")
            }
        )
    )
    # A file of the full CLIP model also holds the text encoder. Whether tensor names start with "vision_model." depends
    # on the version of transformers.
    tensors = {
        k: v
        for k, v in _tensors(file).items()
        if not k.startswith(("text_", "visual_projection", "logit_scale")) and not k.endswith("position_ids")
    }
    prefix = "vision_model." if any(key.startswith("vision_model.") for key in net.state_dict()) else ""
    _load_weights(net, {prefix + key.removeprefix("vision_model."): value for key, value in tensors.items()}, file)
    return net.eval().requires_grad_(False)


def needed_files(checkpoint: Path, vae: Path, image_encoder: Path) -> dict[str, Path]:
    """Name of the model card and path of each file that ``open_pipeline`` reads."""
    networks = {_CARDS[part]: checkpoint / part / WEIGHTS for part in (UNET, SOURCE, DRIVING)}
    return networks | {"sd-vae": _vae_file(vae), "clip-vit-large-patch14": _encoder_file(image_encoder)}


def _vae_file(path: Path) -> Path:
    return path / WEIGHTS if path.is_dir() or not path.suffix else path


def _encoder_file(path: Path) -> Path:
    return path / "model.safetensors" if path.is_dir() or not path.suffix else path


def missing_file_message(name: str, path: Path) -> str:
    """Write the error message for a missing file: which file, and where to get it.

    Args:
        name: name of the model card.
        path: where the file should be.
    """
    c = card(name)
    return (
        f"{path.name} is missing from {path.parent}; get {c.file} from {c.origin} ({c.bytes / 1e9:.1f} GB, license:"
        f" {c.license}) and put it there"
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise WeightsError(f"config.json in {folder} cannot be read ({error}); get a fresh copy") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    return read_safetensors(path, f"{path.parent.name}'s", "get a fresh copy")[0]


def _load_weights(net: Any, tensors: dict[str, Tensor], path: Path) -> None:
    own = net.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    wrong = [k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape]
    if missing or unknown or wrong:
        example = (missing or unknown or wrong)[0]
        raise WeightsError(
            f"{path.name} in {path.parent} holds another network: {len(missing)} tensors are missing,"
            f" {len(unknown)} are unknown and {len(wrong)} have another shape (such as {example}); get the file that"
            " its model card names"
        )
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise WeightsError(f"{path.name} in {path.parent} holds values that are not finite; get a fresh copy")
    net.load_state_dict(tensors)


def _current_vae_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the attention projections of VAE files that older versions of diffusers wrote.

    Those call them query, key, value and proj_attn. Files of Stability AI store them as 1 x 1 convolutions.
    """
    names = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
    renamed = {}
    for key, value in tensors.items():
        if ".attentions." in key:
            for old, new in names.items():
                key = key.replace(old, new)
            if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")) and value.dim() == 4:
                value = value[:, :, 0, 0]
        renamed[key] = value
    return renamed
