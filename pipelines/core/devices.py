"""Choose where networks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """CUDA where there is a GPU, else Apple's MPS, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_named(name: str) -> torch.device:
    """The device of a name such as ``cuda`` or ``cuda:1``.

    Raises:
        InputError: there is no such device here.
    """
    import torch

    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError):
        raise InputError(f"there is no device {name!r} on this machine; name cpu, cuda, cuda:1 or mps") from None


def network_dtype(device: torch.device) -> torch.dtype:
    """Half precision on accelerators; the CPU computes in float32."""
    import torch

    return torch.float32 if device.type == "cpu" else torch.float16
