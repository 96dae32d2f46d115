"""FaRL (Zheng et al. 2022): the image encoder of CLIP ViT-B/16, trained on faces; runs in transformers."""

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
    """FaRL on FFHQ-aligned square crops of 224 px.

    Args:
        path: ``FaRL-Base-Patch16-LAIONFace20M-ep64.pth`` (or ep16), which has the tensor names of CLIP.

    Attributes:
        name: ``farl-ep64``, ``farl-ep16``, or ``farl-NAME`` for a file of another name.

    Raises:
        WeightsError: the file is missing, damaged or of another network, or the transformers package is missing.
    """

    dimension = DIMENSIONS
    alignment = "ffhq-224"

    def __init__(self, path: Path) -> None:
        state = read_state(path, "recognizer", "get a fresh copy of FaRL-Base-Patch16-LAIONFace20M-ep64.pth")
        self._network = _image_encoder()
        try:
            self._network.load_state_dict(from_clip(state))
        except (KeyError, RuntimeError):
            raise WeightsError(
                f"{path.name} does not contain FaRL ViT-B/16 weights; use FaRL-Base-Patch16-LAIONFace20M-ep64.pth"
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
    """Convert the image encoder's tensors (``visual.…``) from the names of OpenAI's CLIP to those of transformers.

    CLIP stores the query, key and value projections in one matrix; they are split here.

    Raises:
        KeyError: a tensor is missing.
    """
    visual = {k.removeprefix("visual."): v.float() for k, v in state.items() if k.startswith("visual.")}
    converted = {
        "visual_projection.weight": visual["proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": visual["class_embedding"],
        "vision_model.embeddings.position_embedding.weight": visual["positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": visual["conv1.weight"],
    }
    for kind in ("weight", "bias"):
        converted[f"vision_model.pre_layrnorm.{kind}"] = visual[f"ln_pre.{kind}"]
        converted[f"vision_model.post_layernorm.{kind}"] = visual[f"ln_post.{kind}"]
        for layer in range(LAYERS):
            old, new = f"transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            parts = visual[f"{old}.attn.in_proj_{kind}"].chunk(3)
            converted |= {
                f"{new}.self_attn.{name}_proj.{kind}": part.contiguous()
                for name, part in zip("qkv", parts, strict=True)
            }
            converted |= {f"{new}.{theirs}.{kind}": visual[f"{old}.{ours}.{kind}"] for ours, theirs in _RENAMED.items()}
    return converted


def _image_encoder() -> Any:
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
