"""Small random checkpoints in the layout of published files, for ComfyUI's own loaders; needs a loaded ComfyUI.

ComfyUI knows a family by some sizes, which are the true ones: channels of the first level, length of the text tokens,
the VAE. The networks have fewer levels and layers; ``patch_comfy`` makes ComfyUI expect that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

CHANNELS, LAYERS, RANK, EMBEDDING = 320, 3, 4, 512
CONTEXT = {"sd15": 768, "sdxl": 2048}
_VOCABULARY = 49408
_VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def patch_comfy(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Text encoders of three layers, and an SDXL of two levels with a transformer block in the second."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import comfy.supported_models

    source = Path(os.path.realpath(comfy.sd1_clip.__file__)).parent
    for name in ("sd1_clip_config.json", "clip_config_bigg.json"):
        config = json.loads((source / name).read_text())
        config |= {"num_hidden_layers": LAYERS, "intermediate_size": 4 * 64}
        (folder / name).write_text(json.dumps(config))
    (folder / "sd1_tokenizer").symlink_to(source / "sd1_tokenizer")
    for module in (comfy.sd1_clip, comfy.sdxl_clip):
        patch.setattr(module, "__file__", str(folder / "module.py"))
    patch.setitem(comfy.supported_models.SDXL.unet_config, "transformer_depth", [0, 1])


def write_checkpoint(path: Path, family: str) -> None:
    """Write a checkpoint of the family ``sd15`` or ``sdxl``; half precision."""
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    xl = family == "sdxl"
    with torch.device("meta"):
        unet = UNetModel(**unet_config(family))
        vae = AutoencoderKL(ddconfig=_VAE, embed_dim=4)
    shapes = {f"model.diffusion_model.{k}": v.shape for k, v in unet.state_dict().items()}
    shapes |= {f"first_stage_model.{k}": v.shape for k, v in vae.state_dict().items()}
    first = "conditioner.embedders.0.transformer." if xl else "cond_stage_model.transformer."
    shapes |= {first + k: v for k, v in _clip_shapes(768).items()}
    if xl:
        shapes |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip_shapes(1280).items()}
    g = torch.Generator().manual_seed(0)
    save_file({name: _drawn(name, tuple(shape), g).half() for name, shape in shapes.items()}, path)


def unet_config(family: str) -> dict[str, Any]:
    xl = family == "sdxl"
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": CHANNELS,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 1],
        "transformer_depth": [0, 1] if xl else [1, 1],
        "transformer_depth_output": [0, 0, 1, 1] if xl else [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": xl,
        "context_dim": CONTEXT[family],
        "legacy": False,
    }
    config |= {"num_head_channels": 64} if xl else {"num_heads": 8}
    return config | ({"num_classes": "sequential", "adm_in_channels": 2816} if xl else {})


def write_adapter(path: Path, family: str) -> None:
    """Write a FaceID adapter that fits ``write_checkpoint``, as the published pickle; half precision."""
    context, g = CONTEXT[family], torch.Generator().manual_seed(1)
    blocks = 4 if family == "sdxl" else 7
    layers: dict[str, tuple[int, ...]] = {}
    for number in range(2 * blocks):
        for part in ("to_q", "to_k", "to_v", "to_out"):
            inner = context if number % 2 and part in ("to_k", "to_v") else CHANNELS
            layers |= {
                f"{number}.{part}_lora.down.weight": (RANK, inner),
                f"{number}.{part}_lora.up.weight": (CHANNELS, RANK),
            }
        if number % 2:
            layers |= {f"{number}.{part}.weight": (CHANNELS, context) for part in ("to_k_ip", "to_v_ip")}
    projection = {
        "proj.0.weight": (1024, EMBEDDING),
        "proj.0.bias": (1024,),
        "proj.2.weight": (4 * context, 1024),
        "proj.2.bias": (4 * context,),
        "norm.weight": (context,),
        "norm.bias": (context,),
    }
    halves = {"image_proj": projection, "ip_adapter": layers}
    torch.save({k: {n: _drawn(n, s, g).half() for n, s in half.items()} for k, half in halves.items()}, path)


def _drawn(name: str, shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    norm = "norm" in name or "ln_" in name or len(shape) == 1
    if norm:
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
    fan = max(1, int(torch.tensor(shape[1:]).prod()))
    return torch.randn(shape, generator=g) * min(0.5, 0.6 * fan**-0.5)


def _clip_shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (_VOCABULARY, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
        "text_model.final_layer_norm.weight": (width,),
        "text_model.final_layer_norm.bias": (width,),
    }
    for layer in range(LAYERS):
        prefix = f"text_model.encoder.layers.{layer}."
        matrices = {f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")}
        matrices |= {"mlp.fc1": (256, width), "mlp.fc2": (width, 256)}
        for name, shape in matrices.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{prefix}{name}.weight": (width,), f"{prefix}{name}.bias": (width,)}
    return shapes


def _open_clip_shapes(width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (_VOCABULARY, width),
        "positional_embedding": (77, width),
        "text_projection": (width, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for layer in range(LAYERS):
        prefix = f"transformer.resblocks.{layer}."
        shapes |= {f"{prefix}attn.in_proj_weight": (3 * width, width), f"{prefix}attn.in_proj_bias": (3 * width,)}
        for name, shape in {
            "attn.out_proj": (width, width),
            "mlp.c_fc": (256, width),
            "mlp.c_proj": (width, 256),
        }.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{prefix}{name}.weight": (width,), f"{prefix}{name}.bias": (width,)}
    return shapes
