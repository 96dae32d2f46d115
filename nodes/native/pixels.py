"""Denoisers of ours that work on pixels, as ComfyUI MODELs, and their conditions as CONDITIONING.

KSampler, samplers, schedulers, previews, interruption and VRAM management are ComfyUI's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from torch import Tensor, nn

from ...pipelines.core.errors import InputError
from ...pipelines.methods.sampling import SCHEDULER

PREFIX = "faceveil_"
_MEMORY = 1.5
"""Memory that ComfyUI reserves per pixel, relative to its own networks."""


class Pixels(comfy.latent_formats.LatentFormat):
    """RGB in [-1, 1] instead of latents."""

    latent_channels = 3
    scale_factor = 1.0
    spacial_downscale_ratio = 1
    latent_rgb_factors: ClassVar = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class _Network(nn.Module):
    """The signature that ComfyUI calls: conditions become arguments, in their order."""

    def __init__(self, network: nn.Module, names: Sequence[str], **_: object) -> None:
        super().__init__()
        self.network, self._names = network, tuple(names)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def forward(self, x: Tensor, timesteps: Tensor, **conditions: Any) -> Tensor:
        parts = (conditions[name].to(x.dtype) for name in self._names)
        return self.network(x, timesteps, *parts)  # type: ignore[no-any-return]


class _Model(comfy.model_base.BaseModel):
    """Args:
    config: with the network in its ``unet_config``.
    names: of the conditions; those in ``spatial`` have the image's size and follow areas.
    source: the node whose conditioning it takes.
    """

    def __init__(self, config: Any, names: Sequence[str], spatial: Sequence[str], source: str) -> None:
        self._names, self._spatial, self._source = tuple(names), tuple(spatial), source
        super().__init__(config, comfy.model_base.ModelType.EPS, unet_model=_Network)

    def extra_conds(self, **values: Any) -> dict[str, Any]:
        found = super().extra_conds(**values)
        sides = tuple(values["noise"].shape[-2:])
        for name in self._names:
            value = values.get(PREFIX + name)
            if value is None:
                raise InputError(f"connect positive and negative of {self._source} to the sampler")
            if name in self._spatial and tuple(value.shape[-2:]) != sides:
                shape = tuple(value.shape[-2:])
                raise InputError(f"the latent has {sides} pixels, but the faces {shape}; connect its latent as well")
            kind = comfy.conds.CONDNoiseShape if name in self._spatial else comfy.conds.CONDRegular
            found[name] = kind(value.to(values["device"]))
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


def model_of(network: nn.Module, names: Sequence[str], spatial: Sequence[str], source: str) -> Any:
    """A ``ModelPatcher`` of a copy of a trained network: ComfyUI moves the copy between devices.

    Args:
        network: its arguments are the noisy image, the time steps, and the conditions in the order of ``names``.
        spatial: those of them that have the image's size.
        source: display name of the node that makes its conditioning.
    """
    config = _Config({"network": copy.deepcopy(network), "names": tuple(names)})
    config.set_inference_dtype(torch.float32, None)
    return _Whole(
        _Model(config, names, spatial, source).eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def conditioning(conditions: Mapping[str, Tensor]) -> list[Any]:
    """CONDITIONING of B faces, from conditions by name, one row a face."""
    # Core's nodes expect text tokens; these networks have none.
    return [[torch.zeros(1, 1, 1), {PREFIX + name: value for name, value in conditions.items()}]]
