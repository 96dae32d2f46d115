"""ComfyUI's half of ``inversion_parity.py``: a MODEL of the recorded networks, with our nodes' patches and sampling."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]


def load(comfy: Path) -> None:
    """Load the pack inside a ComfyUI folder."""
    spec = importlib.util.spec_from_file_location("faceveil_web_build", ROOT / "web" / "build.py")
    assert spec is not None and spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    build.load_nodes(comfy)


def pack(name: str) -> ModuleType:
    """A module of the pack as ComfyUI loaded it."""
    return importlib.import_module(f"faceveil_pack.{name}")


def open_model(folder: Path) -> Any:
    """A ``ModelPatcher`` of a UNet in the layout of diffusers, of any size; float32."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models
    import comfy.utils

    d = json.loads((folder / "config.json").read_text())
    channels, layers, xl = d["block_out_channels"], d["layers_per_block"], bool(d.get("addition_embed_type"))
    depth = d.get("transformer_layers_per_block", 1)
    depths = depth if isinstance(depth, list) else [depth] * len(channels)
    down = [n if "CrossAttn" in kind else 0 for kind, n in zip(d["down_block_types"], depths, strict=True)]
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels[0],
        "num_res_blocks": [layers] * len(channels),
        "channel_mult": [c // channels[0] for c in channels],
        "transformer_depth": [n for n in down for _ in range(layers)],
        "transformer_depth_output": [n for n in down for _ in range(layers + 1)],
        "transformer_depth_middle": depths[-1],
        "use_spatial_transformer": True,
        "context_dim": d["cross_attention_dim"],
        "use_linear_in_transformer": d["use_linear_projection"],
        "legacy": False,
        "dtype": torch.float32,
    }
    base = comfy.supported_models.SDXL if xl else comfy.supported_models.SD15
    extra = {} if xl else dict(base.unet_extra_config)
    heads = d["attention_head_dim"]
    if xl:
        sizes = {
            c // h for c, h in zip(channels, heads if isinstance(heads, list) else [heads] * len(channels), strict=True)
        }
        extra = {"num_head_channels": sizes.pop()}
        config |= {"num_classes": "sequential", "adm_in_channels": d["projection_class_embeddings_input_dim"]}

    class Sized(base):  # type: ignore[valid-type, misc]
        unet_extra_config: ClassVar = extra

    class Recorded(comfy.model_base.BaseModel):
        """Takes SDXL's vector of pooled text and sizes as it was recorded."""

        def encode_adm(self, **values: Any) -> Any:
            return values.get("adm")

    network = Sized(dict(config))
    network.set_inference_dtype(torch.float32, None)
    model = Recorded(network, comfy.model_base.ModelType.EPS)
    names = comfy.utils.unet_to_diffusers(network.unet_config)
    renamed = {names[k]: v.float() for k, v in load_file(folder / "diffusion_pytorch_model.safetensors").items()}
    model.diffusion_model.load_state_dict(renamed)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model.eval(), device, comfy.model_management.unet_offload_device())


@torch.inference_mode()
def final_latents(case: Any, nobody: Tensor, person: Tensor) -> Tensor:
    """The final latents of a recorded case through ComfyUI, scaled."""
    from diffusers.models.embeddings import get_timestep_embedding
    from inversion_parity import conditions, run

    faceid, inversion = pack("nodes.native.faceid"), pack("nodes.native.inversion")
    adapter = pack("pipelines.methods.inversion.adapter").open_adapter(
        case.folder / "ipadapter" / f"ip-adapter-faceid_{case.network}.safetensors"
    )
    model = faceid.apply_faceid(
        open_model(case.folder / case.network / "unet"), adapter, case.settings["ip_adapter_scale"], 1.0
    )
    ids = case.recorded["id_embeds_generation"][1:]
    config = json.loads((case.folder / case.network / "unet" / "config.json").read_text())
    width = config.get("addition_time_embed_dim") or 0
    rows = {}
    for name, row in conditions(case, nobody, person).items():
        options = {}
        if row.text.pooled is not None:
            size = get_timestep_embedding(row.size.flatten(), width, flip_sin_to_cos=True, downscale_freq_shift=0)
            options = {"adm": torch.cat([row.text.pooled, size.reshape(1, -1)], 1)}
        rows[name] = faceid.with_identity(
            [[row.text.states, options]],
            faceid.keys_and_values(adapter, ids if name == "identity" else torch.zeros_like(ids)),
        )
    factor = model.model.latent_format.scale_factor

    def algorithm(denoise: Any, bars: Tensor, x0: Tensor, progress: Any) -> Tensor:
        return run(case, denoise, x0, bars)[2]

    return inversion.run(model, rows, case.recorded["x0_latent"] / factor, algorithm, 1) * factor


if __name__ == "__main__":
    sys.exit("run inversion_parity.py with --comfy")
