"""DiffDeID's denoiser as a ComfyUI MODEL that works on pixels, and its conditions as CONDITIONING.

KSampler, samplers, schedulers, previews, interruption and VRAM management are ComfyUI's.
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.methods.diffdeid.network import SCHEDULER, Conditions, Denoiser, NetworkConfig

PREFIX = "faceveil_"
SPATIAL, FLAT = ("face", "masked"), ("identity", "coefficients")
"""Conditions with the image's size, which follow areas, and those without."""
_MEMORY = 1.5
"""Memory that ComfyUI reserves per pixel, relative to its own networks."""


class Pixels(comfy.latent_formats.LatentFormat):
    """RGB in [-1, 1] instead of latents."""

    latent_channels = 3
    scale_factor = 1.0
    spacial_downscale_ratio = 1
    latent_rgb_factors: ClassVar = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class _Network(torch.nn.Module):
    """The signature that ComfyUI calls."""

    def __init__(self, sizes: dict[str, Any], device: Any = None, **_: object) -> None:
        super().__init__()
        self.network = Denoiser(NetworkConfig.of(sizes)).to(device)

    @property
    def dtype(self) -> torch.dtype:
        return self.network.dtype

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        face: Tensor,
        masked: Tensor,
        identity: Tensor,
        coefficients: Tensor,
        **_: object,
    ) -> Tensor:
        parts = (face, masked, identity, coefficients)
        return self.network(x, timesteps, *(p.to(x.dtype) for p in parts))  # type: ignore[no-any-return]


class _Model(comfy.model_base.BaseModel):
    def __init__(self, config: Any, device: Any = None) -> None:
        super().__init__(config, comfy.model_base.ModelType.EPS, device=device, unet_model=_Network)

    def extra_conds(self, **values: Any) -> dict[str, Any]:
        found = super().extra_conds(**values)
        device = values["device"]
        if PREFIX + SPATIAL[0] not in values:
            raise InputError("connect positive and negative of DiffDeID Conditioning to the sampler")
        sides = tuple(values[PREFIX + SPATIAL[0]].shape[-2:]), tuple(values["noise"].shape[-2:])
        if sides[0] != sides[1]:
            raise InputError(f"the latent has {sides[1]} pixels, but the faces {sides[0]}; connect its latent as well")
        for name in SPATIAL:
            found[name] = comfy.conds.CONDNoiseShape(values[PREFIX + name].to(device))
        for name in FLAT:
            found[name] = comfy.conds.CONDRegular(values[PREFIX + name].to(device))
        return found


class _Whole(comfy.model_patcher.ModelPatcher):
    """Is always loaded as a whole: its layers are plain torch's, which cannot be loaded one by one."""

    def load(
        self,
        device_to: Any = None,
        lowvram_model_memory: int = 0,
        force_patch_weights: bool = False,
        full_load: bool = False,
    ) -> Any:
        return super().load(device_to, 0, force_patch_weights, True)


class _Config(comfy.supported_models_base.BASE):
    unet_config: ClassVar[dict[str, Any]] = {}
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = Pixels
    memory_usage_factor = _MEMORY
    sampling_settings: ClassVar = {
        # ComfyUI's name of betas in equal steps; its "linear" is what diffusers calls scaled_linear.
        "beta_schedule": "sqrt_linear",
        "linear_start": SCHEDULER["beta_start"],
        "linear_end": SCHEDULER["beta_end"],
        "timesteps": SCHEDULER["num_train_timesteps"],
    }
    supported_inference_dtypes: ClassVar = [torch.float32]

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        return _Model(self, device=device)


def model_of(network: Denoiser) -> Any:
    """A ``ModelPatcher`` of a trained network."""
    config = _Config({"sizes": network.config.as_dict()})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    model.diffusion_model.network.load_state_dict(network.state_dict())
    return _Whole(
        model.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def conditioning(conditions: Conditions) -> list[Any]:
    """CONDITIONING of B faces."""
    named = dict(zip((*SPATIAL, *FLAT), conditions.parts(), strict=True))
    # Core's nodes expect text tokens; the network has none.
    return [[torch.zeros(1, 1, 1), {PREFIX + name: value for name, value in named.items()}]]
