"""Read HeadNeRF's public checkpoints, and store them as safetensors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ...core.errors import InputError, WeightsError
from ...core.files import write_whole
from ...core.stored import read_pickle, read_safetensors
from .headnerf import HeadNeRF, HeadNeRFConfig

FORMAT = "faceveil.headnerf/1"
REMEDY = "convert one with: faceveil convert-headnerf model_Reso32.pth -o headnerf.safetensors"
_PUBLIC = "use model_Reso32.pth, model_Reso32HR.pth or model_Reso64.pth of HeadNeRF"


def convert_headnerf(source: Path, output: Path) -> HeadNeRFConfig:
    """Convert a public checkpoint to a safetensors file. Only tensors and numbers are read from it.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
        OutputError: the output cannot be written.
    """
    stored = read_pickle(source, "HeadNeRF checkpoint", _PUBLIC)
    state, sizes = stored.get("net"), stored.get("para")
    if not _is_state(state) or not isinstance(sizes, dict):
        raise WeightsError(f"{source.name} is not a HeadNeRF checkpoint; {_PUBLIC}")
    try:
        config = HeadNeRFConfig(int(sizes["featmap_size"]), int(sizes["pred_img_size"]), int(sizes["featmap_nc"]))
        network = HeadNeRF(config)
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, InputError) as error:
        raise WeightsError(f"{source.name} is not a HeadNeRF checkpoint ({type(error).__name__}); {_PUBLIC}") from None
    if not all(bool(torch.isfinite(v).all()) for v in network.state_dict().values()):
        raise WeightsError(f"{source.name} contains values that are not finite; download it again")
    save_headnerf(output, network)
    return config


def _is_state(state: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def save_headnerf(path: Path, network: HeadNeRF) -> None:
    """Write a network as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().float().contiguous().cpu() for name, value in network.state_dict().items()}
    write_whole(path, save(tensors, {"format": FORMAT, "network": json.dumps(asdict(network.config))}))


def open_headnerf(path: Path, device: torch.device | None = None) -> HeadNeRF:
    """Open what ``convert_headnerf`` wrote, on a device; the CPU when omitted.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    if path.suffix in (".pth", ".pt"):
        raise WeightsError(f"{path.name} must be converted once; {REMEDY}")
    tensors, metadata = read_safetensors(path, "HeadNeRF checkpoint", REMEDY)
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{path.name} is not a HeadNeRF checkpoint of format {FORMAT}; {REMEDY}")
    network = _network(path, tensors, metadata)
    # Moved in inference mode, its weights would have no gradients.
    with torch.inference_mode(False):
        return network if device is None else network.to(device)


def _network(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> HeadNeRF:
    if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise WeightsError(f"{path.name} contains values that are not finite; {REMEDY}")
    try:
        sizes: dict[str, Any] = json.loads(metadata["network"])
        # ComfyUI runs nodes in inference mode; tensors made there have no gradients, which the fitting needs.
        with torch.inference_mode(False):
            network = HeadNeRF(HeadNeRFConfig(**sizes))
            network.load_state_dict({name: value.clone() for name, value in tensors.items()})
        return network.eval().requires_grad_(False)
    except (KeyError, RuntimeError, TypeError, ValueError, InputError) as error:
        raise WeightsError(
            f"{path.name} is incomplete or of another version ({type(error).__name__}); {REMEDY}"
        ) from None
