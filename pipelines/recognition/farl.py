"""FaRL (Zheng et al. 2022): the picture tower of CLIP ViT-B/16, taught on faces, run by transformers from the public
weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import WeightsError
from ..core.stored import read_state
from ..faces.align import crop, ffhq_transform
from .base import TorchRecognizer

SIDE, WIDTH, LAYERS, HEADS, DIMENSIONS = 224, 768, 12, 12, 512
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RENAMED = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class FaRL(TorchRecognizer):
    """FaRL on FFHQ squares at 224 px, from ``FaRL-Base-Patch16-LAIONFace20M-ep64.pth`` (or ep16), which has CLIP's
    keys.

    Attributes:
        name: ``farl-ep64``, ``farl-ep16`` or ``farl-NAME``.
    """

    dimension = DIMENSIONS
    alignment = "ffhq-224"

    def __init__(self, path: Path) -> None:
        state = read_state(path, "recognizer", "get a fresh copy of FaRL-Base-Patch16-LAIONFace20M-ep64.pth")
        self._network = _tower()
        try:
            self._network.load_state_dict(from_clip(state))
        except (KeyError, RuntimeError):
            raise WeightsError(
                f"{path.name} does not hold FaRL's ViT-B/16; use FaRL-Base-Patch16-LAIONFace20M-ep64.pth"
            ) from None
        known = [n for n in ("ep64", "ep16") if n in path.stem]
        self.name = f"farl-{known[0] if known else path.stem}"

    def crop(self, image: Tensor, landmarks: np.ndarray) -> Tensor:
        return crop(image, ffhq_transform(landmarks, SIDE), SIDE)

    def embed_crops(self, crops: Tensor) -> Tensor:
        mean, std = (crops.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        vectors: Tensor = self._network(pixel_values=((crops - mean) / std).float()).image_embeds
        return torch.nn.functional.normalize(vectors)


def from_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first CLIP's keys of the picture tower (``visual.…``) as transformers names them; query, key and value lie in
    one matrix there."""
    seen = {k.removeprefix("visual."): v.float() for k, v in state.items() if k.startswith("visual.")}
    made = {
        "visual_projection.weight": seen["proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": seen["class_embedding"],
        "vision_model.embeddings.position_embedding.weight": seen["positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": seen["conv1.weight"],
    }
    for kind in ("weight", "bias"):
        made[f"vision_model.pre_layrnorm.{kind}"] = seen[f"ln_pre.{kind}"]
        made[f"vision_model.post_layernorm.{kind}"] = seen[f"ln_post.{kind}"]
        for layer in range(LAYERS):
            old, new = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            parts = seen[f"{old}.attn.in_proj_{kind}"].chunk(3)
            made |= {
                f"{new}.self_attn.{name}_proj.{kind}": part.contiguous()
                for name, part in zip("qkv", parts, strict=True)
            }
            made |= {f"{new}.{theirs}.{kind}": seen[f"{old}.{ours}.{kind}"] for ours, theirs in _RENAMED.items()}
    return made


def _tower() -> Any:
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError:
        raise WeightsError("the transformers package is missing; install it with: pip install transformers") from None
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        patch_size=16,
        image_size=SIDE,
        projection_dim=DIMENSIONS,
        hidden_act="quick_gelu",
    )
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)
