"""FaRL (Zheng et al. 2022): the picture tower of CLIP ViT-B/16, taught on faces, run by transformers from the public
weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import WeightsError
from ..faces.align import crop, ffhq_transform
from ..stored import read_state
from .embedder import Embedder

SIDE, WIDTH, LAYERS, HEADS, DIMENSIONS = 224, 768, 12, 12, 512
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_RENAMED = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class FaRL(Embedder):
    """FaRL of FFHQ squares at 224 px, from ``FaRL-Base-Patch16-LAIONFace20M-ep64.pth`` (or ep16), whose keys are those
    of the first CLIP.

    Attributes:
        space: ``farl-ep64``, ``farl-ep16`` or ``farl-NAME``.
    """

    def __init__(self, path: Path) -> None:
        state = read_state(path, "recogniser", "get a fresh copy of FaRL-Base-Patch16-LAIONFace20M-ep64.pth")
        self._net = _tower()
        try:
            self._net.load_state_dict(from_clip(state))
        except (KeyError, RuntimeError):
            raise WeightsError(
                f"{path.name} does not hold FaRL's ViT-B/16; use FaRL-Base-Patch16-LAIONFace20M-ep64.pth"
            ) from None
        known = [n for n in ("ep64", "ep16") if n in path.stem]
        self.space = f"farl-{known[0] if known else path.stem}"

    def _look(self, picture: Tensor, points: np.ndarray) -> np.ndarray:
        view = crop(picture, ffhq_transform(points, SIDE), SIDE)
        seen = (view - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        with torch.no_grad():
            answer: Tensor = self._net(pixel_values=seen.float()).image_embeds
        return answer[0].numpy()


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
