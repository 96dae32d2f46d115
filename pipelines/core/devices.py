"""Choose where networks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """CUDA where there is a GPU, else Apple's MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def network_dtype(device: torch.device) -> torch.dtype:
    """Half precision on accelerators; the CPU computes in float32."""
    import torch

    return torch.float32 if device.type == "cpu" else torch.float16
