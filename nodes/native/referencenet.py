"""ReferenceNets as ComfyUI models: load them, record their states, and read the states from CONDITIONING in a MODEL.

A state is the input of ``attn1_patch``: the normalized tokens before a self-attention layer. The first layer of each
block records its state, and all layers of that block read it. The states are stored in ``model_conds``, so that ComfyUI
handles guidance rows, batches and areas. Without states, the patched model computes the same as the unpatched model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import comfy.conds
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from torch import Tensor

from ...pipelines.core.errors import WeightsError

States = dict[int, Tensor]
"""One tensor ``(B, N, C)`` for each block with attention, numbered in the order of execution."""
COND = "faceveil_states"
_unconditional: WeakKeyDictionary[Any, dict[tuple[Any, ...], States]] = WeakKeyDictionary()


class _Recorded(Exception):
    """Raised to stop a ReferenceNet after the last state that is read."""


def load_unet(path: Path) -> Any:
    """Load a UNet in the layout of diffusers as a ``ModelPatcher``.

    Sizes other than that of Stable Diffusion 2.1 need a ``config.json`` in the same folder.

    Raises:
        WeightsError: the file is not a UNet.
    """
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    config = path.with_name("config.json")
    model = comfy.sd.load_diffusion_model_state_dict(dict(tensors))
    if model is None and config.is_file():
        model = _load_of_config(tensors, json.loads(config.read_text(encoding="utf-8")))
    if model is None or "num_res_blocks" not in model.model.model_config.unet_config:
        raise WeightsError(
            f"{path.name} is not a UNet that ComfyUI can load; use the unet or referencenet file of face-anon-simple"
        )
    return model


def _load_of_config(tensors: dict[str, Tensor], config: dict[str, Any]) -> Any:
    channels, layers = config["block_out_channels"], config["layers_per_block"]
    heads = config["attention_head_dim"]
    heads = heads if isinstance(heads, list) else [heads] * len(channels)
    down = [int("CrossAttn" in kind) for kind in config["down_block_types"]]
    sizes = {c // h for c, h in zip(channels, heads, strict=True)}
    if len(sizes) != 1 or config.get("norm_num_groups", 32) != 32:
        return None

    class Sized(comfy.supported_models.SD20):
        unet_extra_config: ClassVar = {
            **comfy.supported_models.SD20.unet_extra_config,
            "num_head_channels": sizes.pop(),
        }

    network = Sized(
        {
            "image_size": 32,
            "in_channels": config["in_channels"],
            "out_channels": config["out_channels"],
            "model_channels": channels[0],
            "num_res_blocks": [layers] * len(channels),
            "channel_mult": [c // channels[0] for c in channels],
            "use_checkpoint": False,
            "legacy": False,
            "transformer_depth": [d for d in down for _ in range(layers)],
            "transformer_depth_middle": 1,
            "transformer_depth_output": [d for d in down for _ in range(layers + 1)],
            "use_linear_in_transformer": True,
            "use_spatial_transformer": True,
            "context_dim": config["cross_attention_dim"],
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "use_temporal_resblock": False,
        }
    )
    names = comfy.utils.unet_to_diffusers(network.unet_config)
    network.set_inference_dtype(torch.float32, None)
    model = network.get_model({}, "")
    renamed = {names[key]: value for key, value in tensors.items() if key in names}
    missing, unexpected = model.diffusion_model.load_state_dict(renamed, strict=False)
    if missing or unexpected or len(renamed) != len(tensors):
        return None
    from comfy.model_patcher import ModelPatcher

    return ModelPatcher(
        model.eval(), comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    )


def blocks(unet_config: dict[str, Any]) -> dict[tuple[str, int], int]:
    """Map each position with self-attention, such as ``("input", 4)``, to its block number.

    Only blocks with attention are counted.
    """
    found: dict[tuple[str, int], tuple[str, int]] = {}
    depths, place = list(unet_config["transformer_depth"]), 1
    for level, count in enumerate(unet_config["num_res_blocks"]):
        for _ in range(count):
            if depths.pop(0) > 0:
                found["input", place] = ("input", level)
            place += 1
        place += 1
    if unet_config["transformer_depth_middle"] > 0:
        found["middle", 0] = ("middle", 0)
    depths, place = list(unet_config["transformer_depth_output"]), 0
    for level, count in reversed(list(enumerate(unet_config["num_res_blocks"]))):
        for _ in range(count + 1):
            if depths.pop() > 0:
                found["output", place] = ("output", level)
            place += 1
    order = list(dict.fromkeys(found.values()))
    return {place: order.index(block) for place, block in found.items()}


def record(model: Any, latents: Tensor, embedding: Tensor) -> States:
    """Record the states of noise-free images in one pass at time step 0, up to the last block that is read.

    Args:
        model: a ``ModelPatcher`` of a ReferenceNet.
        latents: ``(B, 4, h, w)``, the output of ``VAEEncode``.
        embedding: ``(B, 1, D)``.
    """
    comfy.model_management.load_models_gpu([model])
    network, device = model.model.diffusion_model, model.load_device
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    block_of = blocks(model.model.model_config.unet_config)
    last = max(block_of.values())
    states: States = {}

    def note(tokens: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        block = block_of[tuple(options["block"])]
        if block not in states:
            states[block] = tokens.to(comfy.model_management.intermediate_device())
        if block == last:
            raise _Recorded
        return tokens, context, value

    scaled = model.model.process_latent_in(latents).to(device, dtype)
    with torch.inference_mode(), suppress(_Recorded):
        network(
            scaled,
            timesteps=torch.zeros(len(latents), device=device),
            context=embedding.to(device, dtype),
            transformer_options={"patches": {"attn1_patch": [note]}},
        )
    return states


def record_nothing(model: Any, latents: Tensor, embedding: Tensor) -> States:
    """Record the states of zero latents and a zero embedding, one row; cached for each network, size and dtype."""
    kept = _unconditional.setdefault(model.model, {})
    key = (*latents.shape[1:], model.model.manual_cast_dtype or model.model.get_dtype())
    if key not in kept:
        kept[key] = record(model, torch.zeros_like(latents[:1]), torch.zeros_like(embedding[:1]))
    return kept[key]


def conditioning(context: Tensor, source: States, driving: States) -> list[Any]:
    """Create the CONDITIONING of a batch: cross-attention tokens ``(B, 2, D)`` and the states of both references."""
    states = [torch.cat([source[i].expand(len(driving[i]), -1, -1), driving[i]], 1) for i in sorted(driving)]
    return [[context, {"model_conds": {COND: comfy.conds.CONDList(states)}}]]


def reader(model: Any) -> Any:
    """Clone a MODEL with v-prediction and self-attention that also attends to the states in its conditioning."""
    block_of = blocks(model.model.model_config.unet_config)
    clone = model.clone()

    class VPrediction(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
        pass

    # ComfyUI derives the prediction type from one weight, which can be wrong for a fine-tuned network.
    clone.add_object_patch("model_sampling", VPrediction(model.model.model_config))

    def carry(
        executor: Any,
        x: Tensor,
        timesteps: Tensor,
        context: Any = None,
        y: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **kw: Any,
    ) -> Any:
        states: Sequence[Tensor] | None = kw.pop(COND, None)
        options = dict(transformer_options or {})
        if states is not None:
            options[COND] = states
        return executor(x, timesteps, context, y, control, options, **kw)

    def read(tokens: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        states = options.get(COND)
        if states is None:
            return tokens, context, value
        references = states[block_of[tuple(options["block"])]].to(tokens)
        return tokens, torch.cat([context, references], 1), torch.cat([value, references], 1)

    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "faceveil", carry)
    clone.set_model_attn1_patch(read)
    return clone
