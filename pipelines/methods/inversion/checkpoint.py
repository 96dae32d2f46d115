"""Open a Stable Diffusion 1.5 or SDXL checkpoint: the usual single file, or a folder in the layout of diffusers.

Nothing is fetched: the sizes of the networks are read from the shapes of the tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import MAX_TEXT, WeightsError
from ...core.stored import read_safetensors
from .dials import SD15_CONTEXT

_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_SD15_TEXT = "cond_stage_model.transformer."
_SDXL_TEXTS = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
_SD15_SCALE, _SDXL_SCALE = 0.18215, 0.13025
_SD15_HEADS, _HEAD_SIZE = 8, 64
"""SD 1.5 has this many attention heads everywhere; in SDXL and in CLIP a head has this many channels."""
_OTHER_PREDICTIONS = ("v_pred", "edm_mean", "edm_vpred.sigma_max")
"""Tensors by which checkpoints say that their UNet does not predict the noise."""
_REMEDY = "use a Stable Diffusion 1.5 or SDXL checkpoint in safetensors format"


@dataclass(frozen=True)
class Checkpoint:
    """The networks of a checkpoint, on the CPU; all but the UNet in float32.

    Attributes:
        unet: a ``diffusers.UNet2DConditionModel``.
        vae: a ``diffusers.AutoencoderKL``.
        encoders: text encoders as for ``text.encode``.
        tokenizer: folder of CLIP's vocabulary in a diffusers folder; None in a single file.
    """

    unet: Any
    vae: Any
    encoders: tuple[Any, ...]
    tokenizer: Path | None = None

    @property
    def context_size(self) -> int:
        return int(self.unet.config.cross_attention_dim)


def open_checkpoint(path: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Open a checkpoint.

    Args:
        dtype: of the UNet.

    Raises:
        WeightsError: it is missing, damaged, or of another family.
    """
    checkpoint = _open_folder(path, dtype) if path.is_dir() else _open_file(path, dtype)
    if checkpoint.unet.config.in_channels != 4:
        raise WeightsError(
            f"{path.name} is an inpainting or editing checkpoint ({checkpoint.unet.config.in_channels} input channels);"
            f" {_REMEDY}"
        )
    for network in (checkpoint.unet, checkpoint.vae, *checkpoint.encoders):
        network.eval().requires_grad_(False)
    return checkpoint


def _open_folder(path: Path, dtype: torch.dtype) -> Checkpoint:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    def clip(kind: Any) -> Callable[[dict[str, Any]], Any]:
        ignored = ("architectures", "torch_dtype", "dtype", "transformers_version")
        return lambda config: kind(CLIPTextConfig(**{k: v for k, v in config.items() if k not in ignored}))

    scheduler = _config_of(path / "scheduler" / "scheduler_config.json")
    if scheduler.get("prediction_type", "epsilon") != "epsilon":
        raise WeightsError(_other_prediction(path.name))
    encoders = {"text_encoder": clip(CLIPTextModel), "text_encoder_2": clip(CLIPTextModelWithProjection)}
    return Checkpoint(
        _part(path / "unet", UNet2DConditionModel.from_config, dtype),
        _part(path / "vae", AutoencoderKL.from_config, torch.float32),
        tuple(_part(path / n, build, torch.float32) for n, build in encoders.items() if (path / n).is_dir()),
        path / "tokenizer",
    )


def _part(folder: Path, build: Callable[[dict[str, Any]], Any], dtype: torch.dtype) -> Any:
    """One network of a folder in the layout of diffusers; the whole file, or that in half precision."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: len(file.name))
    config = _config_of(folder / "config.json")
    if not files or not config:
        raise WeightsError(
            f"{folder.parent.name} is no checkpoint folder of diffusers: {folder.name} lacks its config or safetensors;"
            f" {_REMEDY}"
        )
    tensors = read_safetensors(files[0], "checkpoint", _REMEDY)[0]
    try:
        network = build({k: v for k, v in config.items() if not k.startswith("_")})
        return _loaded(network, tensors, dtype, assign=True)
    except (ValueError, TypeError, RuntimeError, OSError):
        raise WeightsError(f"{folder.name} in {folder.parent.name} does not fit its config.json; {_REMEDY}") from None


def _config_of(file: Path) -> dict[str, Any]:
    """The settings in a JSON file; none where there is no such file, or no settings in it."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _open_file(path: Path, dtype: torch.dtype) -> Checkpoint:
    tensors = read_safetensors(path, "checkpoint", _REMEDY)[0]
    if any(name in tensors for name in _OTHER_PREDICTIONS):
        raise WeightsError(_other_prediction(path.name))
    try:
        unet = _unet(tensors, dtype)
        vae = _vae(tensors, _SD15_SCALE if unet.config.cross_attention_dim <= SD15_CONTEXT else _SDXL_SCALE)
        return Checkpoint(unet, vae, _encoders(tensors))
    except (KeyError, IndexError, ValueError, RuntimeError, StopIteration) as error:
        reason = " ".join(str(error).split())[:MAX_TEXT] or "parts of it are missing"
        raise WeightsError(f"{path.name} is not a whole checkpoint ({reason}); {_REMEDY}") from None


def _other_prediction(name: str) -> str:
    return (
        f"the UNet of {name} does not predict the noise (v-prediction or EDM); use the nodes Invert Picture and"
        " Anonymize by Inversion, or another checkpoint"
    )


def _unet(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Any:
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    own = {k: v for k, v in tensors.items() if k.startswith(_UNET)}
    config = _unet_config({k.removeprefix(_UNET): v for k, v in own.items()})
    # Without memory of its own: SDXL's would be 10 GB before the weights are there.
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config(config)
    return _loaded(network, convert_ldm_unet_checkpoint(dict(own), dict(network.config)), dtype, assign=True)


def _unet_config(t: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of a UNet, from its tensors in the layout of Stability AI."""
    channels, layers, depths, place = [t["input_blocks.0.0.weight"].shape[0]], [0], [0], 1
    while any(name.startswith(f"input_blocks.{place}.") for name in t):
        if f"input_blocks.{place}.0.op.weight" in t:
            channels.append(0)
            layers.append(0)
            depths.append(0)
        else:
            channels[-1] = t[f"input_blocks.{place}.0.out_layers.3.weight"].shape[0]
            layers[-1] += 1
            depths[-1] = _depth(t, f"input_blocks.{place}.1.")
        place += 1
    context = next(v.shape[1] for k, v in t.items() if k.endswith("attn2.to_k.weight"))
    sdxl = "label_emb.0.0.weight" in t
    config: dict[str, Any] = {
        "sample_size": 128 if sdxl else 64,
        "in_channels": t["input_blocks.0.0.weight"].shape[1],
        "out_channels": t["out.2.weight"].shape[0],
        "block_out_channels": tuple(channels),
        "layers_per_block": layers[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depths),
        "up_block_types": tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depths)),
        "transformer_layers_per_block": tuple(d or 1 for d in depths[:-1]) + (_depth(t, "middle_block.1."),),
        "cross_attention_dim": context,
        "use_linear_projection": next(v.dim() for k, v in t.items() if k.endswith("proj_in.weight")) == 2,
        # Where it is a number, it counts heads in spite of its name.
        "attention_head_dim": tuple(max(1, c // _HEAD_SIZE) for c in channels) if sdxl else _SD15_HEADS,
    }
    if sdxl:
        inputs = t["label_emb.0.0.weight"].shape[1]
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": inputs,
        }
    return config


def _depth(t: Mapping[str, Tensor], prefix: str) -> int:
    """How many transformer blocks a place has."""
    return sum(name.startswith(f"{prefix}transformer_blocks.") and name.endswith("attn2.to_q.weight") for name in t)


def _vae(tensors: Mapping[str, Tensor], scale: float) -> Any:
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    own = {k: v for k, v in tensors.items() if k.startswith(_VAE) and not k.startswith(f"{_VAE}loss")}
    levels = 1 + max(int(k.split(".")[3]) for k in own if k.startswith(f"{_VAE}encoder.down."))
    first = f"{_VAE}encoder.down."
    channels = tuple(own[f"{first}{level}.block.0.conv1.weight"].shape[0] for level in range(levels))
    layers = sum(k.startswith(f"{first}0.block.") and k.endswith("conv1.weight") for k in own)
    network: Any = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=own[f"{_VAE}post_quant_conv.weight"].shape[0],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        scaling_factor=scale,
    )
    return _loaded(network, convert_ldm_vae_checkpoint(dict(own), dict(network.config)))


def _encoders(tensors: Mapping[str, Tensor]) -> tuple[Any, ...]:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    first = next(p for p in (_SD15_TEXT, _SDXL_TEXTS[0]) if any(k.startswith(p) for k in tensors))
    clip = {k.removeprefix(first): v for k, v in tensors.items() if k.startswith(first)}
    encoders = [_loaded(CLIPTextModel(_text_config(clip, "quick_gelu")), clip)]
    second = {k: v for k, v in tensors.items() if k.startswith(_SDXL_TEXTS[1])}
    if second:
        like = nn.Module()
        like.config = None  # type: ignore[assignment]  # the converter reads the size from the projection
        renamed = convert_open_clip_checkpoint(like, second, prefix=_SDXL_TEXTS[1])
        config = _text_config(renamed, "gelu", renamed["text_projection.weight"].shape[0])
        encoders.append(_loaded(CLIPTextModelWithProjection(config), renamed))
    return tuple(encoders)


def _text_config(tensors: Mapping[str, Tensor], activation: str, projection: int = 512) -> Any:
    from transformers import CLIPTextConfig

    names = [name.removeprefix("text_model.") for name in tensors]
    t = dict(zip(names, tensors.values(), strict=True))
    vocabulary, width = t["embeddings.token_embedding.weight"].shape
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=t["encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=sum(name.endswith("layer_norm1.weight") for name in t),
        num_attention_heads=max(1, width // _HEAD_SIZE),
        hidden_act=activation,
        projection_dim=projection,
    )


def _loaded(
    network: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32, assign: bool = False
) -> Any:
    """Load weights; raises ValueError where they are not those of the network."""
    own = network.state_dict()
    # Whether names start with text_model. depends on the version of transformers.
    prefix = "text_model."
    short = {k.removeprefix(prefix): v for k, v in tensors.items()}
    wanted = {k: short[k.removeprefix(prefix)] for k in own if k.removeprefix(prefix) in short}
    if own.keys() != wanted.keys() or any(own[k].shape != wanted[k].shape for k in own):
        raise ValueError("tensors are missing or have other shapes")
    if not all(bool(torch.isfinite(v).all()) for v in wanted.values()):
        raise ValueError("values are not finite")
    network.load_state_dict({k: v.to(dtype) for k, v in wanted.items()}, assign=assign)
    return network
