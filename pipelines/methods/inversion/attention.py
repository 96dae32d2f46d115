"""IP-Adapter FaceID in a diffusers UNet: the tokens travel behind the text tokens, so the UNet stays stateless."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .adapter import FaceIdAdapter, LowRank


class FaceIdProcessor(nn.Module):
    """to_out(softmax(q K^T) V + s softmax(q K_id^T) V_id): a second attention with the same queries.

    The last ``count`` tokens of the context are identity tokens; the others are text.

    Args:
        key, value: the adapter's matrices ``(channels, C)``.
        count: T, identity tokens of a face.
        scale: s.
    """

    def __init__(self, key: Tensor, value: Tensor, count: int, scale: float) -> None:
        super().__init__()
        self.key, self.value = nn.Parameter(key, requires_grad=False), nn.Parameter(value, requires_grad=False)
        self.count, self.scale = count, scale

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        def heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        text, identity = encoder_hidden_states[:, : -self.count], encoder_hidden_states[:, -self.count :]
        q = heads(attn.to_q(hidden_states))
        out = functional.scaled_dot_product_attention(q, heads(attn.to_k(text)), heads(attn.to_v(text)))
        if self.scale:
            k, v = (heads(functional.linear(identity, w)) for w in (self.key, self.value))
            out = out + self.scale * functional.scaled_dot_product_attention(q, k, v)
        projected = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return attn.to_out[1](projected)  # type: ignore[no-any-return]


def install(unet: Any, adapter: FaceIdAdapter, scale: float = 1.0) -> None:
    """Add the adapter to a ``diffusers.UNet2DConditionModel``, once: its LoRA goes into the weights.

    From then on the UNet's context is text tokens followed by identity tokens, ``(B, N + T, C)``.

    Raises:
        WeightsError: the adapter was made for another family of checkpoints.
    """
    # diffusers lists down blocks, up blocks and the middle block, as the file numbers them.
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    crosses = [unet.get_submodule(name) for name in names if name.endswith("attn2")]
    adapter.check([layer.to_q.weight.shape[0] for layer in crosses], unet.config.cross_attention_dim)
    like = crosses[0].to_q.weight
    processors = dict(unet.attn_processors)
    for name, site in zip([n for n in names if n.endswith("attn2")], adapter.sites, strict=True):
        key, value = (matrix.to(like) for matrix in (site.key, site.value))
        processors[f"{name}.processor"] = FaceIdProcessor(key, value, adapter.count, scale)
        _add(unet.get_submodule(name), site.cross_lora)
        _add(unet.get_submodule(name.removesuffix("attn2") + "attn1"), site.self_lora)
    unet.set_attn_processor(processors)


def _add(layer: Any, loras: dict[str, LowRank]) -> None:
    for part, lora in loras.items():
        matrix = (layer.to_out[0] if part == "to_out" else getattr(layer, part)).weight
        change = lora.up.float().to(matrix.device) @ lora.down.float().to(matrix.device)
        with torch.no_grad():
            matrix.copy_(matrix.float() + change)
