"""IP-Adapter FaceID on a ComfyUI MODEL.

The identity rides on CONDITIONING, as keys and values that are projected once for each attention layer, so that
ComfyUI handles guidance rows, batches and areas, and the adapter's weights need no graphics memory. Without them, the
patched model differs from the unpatched one only by the adapter's LoRA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.lora
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

from ...pipelines.core.errors import InputError, WeightsError
from ...pipelines.methods.inversion.adapter import FaceIdAdapter, LowRank

COND = "faceveil_faceid"
LATENT_CHANNELS = 4
_ATTENTION = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}


@dataclass(frozen=True)
class Place:
    """A transformer block of a UNet.

    Attributes:
        block: such as ``("input", 4)``.
        depth: its number in the block.
        name: of the module, below the model.
        channels: of its attention layers.
    """

    block: tuple[str, int]
    depth: int
    name: str
    channels: int


def places(model: Any) -> list[Place]:
    """The transformer blocks of a MODEL in the order of FaceID files: input blocks, output blocks, middle block.

    Raises:
        InputError: the MODEL is not a UNet of Stable Diffusion.
    """
    network, found = model.model.diffusion_model, []
    if not all(hasattr(network, name) for name in ("input_blocks", "output_blocks", "middle_block")):
        raise InputError("FaceID needs a Stable Diffusion 1.5 or SDXL model; connect Load Checkpoint with one")
    sections = (("input", network.input_blocks), ("output", network.output_blocks), ("middle", [network.middle_block]))
    for kind, blocks in sections:
        for number, block in enumerate(blocks):
            path = "middle_block" if kind == "middle" else f"{kind}_blocks.{number}"
            for i, layer in enumerate(block):
                for depth, transformer in enumerate(getattr(layer, "transformer_blocks", ())):
                    name = f"diffusion_model.{path}.{i}.transformer_blocks.{depth}"
                    found.append(Place((kind, number), depth, name, transformer.attn2.to_q.weight.shape[0]))
    return found


def apply_faceid(model: Any, adapter: FaceIdAdapter, scale: float, lora: float) -> Any:
    """Clone a MODEL with the adapter: LoRA patches, and a second attention wherever the conditioning has an identity.

    Args:
        scale: of the second attention.
        lora: of the LoRA; 1 as trained.

    Raises:
        InputError: the MODEL is not an ordinary UNet of Stable Diffusion, or has an adapter already.
        WeightsError: the adapter was made for another family of checkpoints.
    """
    found, channels = places(model), model.model.model_config.unet_config.get("in_channels")
    if channels != LATENT_CHANNELS:
        raise InputError(
            f"this is an inpainting or editing model ({channels} input channels); connect an ordinary Stable Diffusion"
            " 1.5 or SDXL model"
        )
    if model.get_attachment(COND) is not None:
        raise InputError("this model has a FaceID adapter already; apply one only")
    context = model.model.model_config.unet_config.get("context_dim")
    adapter.check([place.channels for place in found], context)
    clone = model.clone()
    if lora:
        _add_loras(clone, adapter, found, lora)
    previous = clone.model_options.get("transformer_options", {}).get("patches_replace", {}).get("attn2", {})
    for number, place in enumerate(found):
        before = previous.get((*place.block, place.depth), previous.get(place.block))
        clone.set_model_attn2_replace(_second_attention(number, scale, before), *place.block, place.depth)
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, COND, _carry)
    clone.set_attachments(COND, adapter)
    return clone


def adapter_of(model: Any) -> FaceIdAdapter:
    """The adapter that Apply FaceID put on a MODEL.

    Raises:
        InputError: there is none.
    """
    adapter = model.get_attachment(COND)
    if adapter is None:
        raise InputError("this model has no FaceID adapter; connect Apply FaceID between Load Checkpoint and this node")
    return adapter  # type: ignore[no-any-return]


def keys_and_values(adapter: FaceIdAdapter, embeddings: Tensor) -> list[Tensor]:
    """What the attention layers read of identities: keys and values of each place ``(B, T, 2 x channels)``.

    Args:
        embeddings: ``(B, D)``; zeros stand for nobody in particular.
    """
    tokens = adapter.tokens(embeddings)
    return [
        torch.cat([tokens @ matrix.float().T for matrix in (site.key, site.value)], -1).contiguous()
        for site in adapter.sites
    ]


def with_identity(conditioning: list[Any], pairs: list[Tensor]) -> list[Any]:
    """Add identities, as ``keys_and_values`` gives them, to a CONDITIONING."""
    return [
        [text, options | {"model_conds": options.get("model_conds", {}) | {COND: comfy.conds.CONDList(pairs)}}]
        for text, options in conditioning
    ]


def _carry(
    executor: Any,
    x: Tensor,
    timesteps: Tensor,
    context: Any = None,
    y: Any = None,
    control: Any = None,
    transformer_options: Any = None,
    **kw: Any,
) -> Any:
    """Hand the identity of the rows on to the attention layers."""
    pairs = kw.pop(COND, None)
    options = dict(transformer_options or {})
    if pairs is not None:
        options[COND] = pairs
    return executor(x, timesteps, context, y, control, options, **kw)


def _second_attention(number: int, scale: float, before: Callable[..., Tensor] | None) -> Callable[..., Tensor]:
    """The replacement of one cross-attention: the text's as it was, plus ``scale`` times that of the identity."""

    def attend(q: Tensor, k: Tensor, v: Tensor, extra: dict[str, Any]) -> Tensor:
        heads = extra["n_heads"]
        out = optimized_attention(q, k, v, heads) if before is None else before(q, k, v, extra)
        pairs = extra.get(COND)
        if pairs is None or not scale:
            return out
        if number >= len(pairs) or pairs[number].shape[-1] != 2 * q.shape[-1]:
            raise InputError("the identity was made with another FaceID adapter than the model's; connect the same one")
        key, value = pairs[number].to(q).chunk(2, -1)
        return out + scale * optimized_attention(q, key, value, heads)

    return attend


def _add_loras(model: Any, adapter: FaceIdAdapter, found: list[Place], strength: float) -> None:
    tensors: dict[str, Tensor] = {}
    for place, site in zip(found, adapter.sites, strict=True):
        for layer, loras in (("attn1", site.self_lora), ("attn2", site.cross_lora)):
            for part, lora in loras.items():
                tensors |= _lora_tensors(f"{place.name}.{layer}.{_ATTENTION[part]}", lora)
    if not tensors:
        return
    patches = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {}))
    applied = model.add_patches(patches, strength)
    if len(applied) * 2 != len(tensors):
        raise WeightsError(
            f"{len(tensors) // 2 - len(applied)} of the adapter's LoRA matrices do not fit this model; use the adapter"
            " of its family"
        )


def _lora_tensors(name: str, lora: LowRank) -> dict[str, Tensor]:
    return {f"{name}.lora_up.weight": lora.up, f"{name}.lora_down.weight": lora.down}
