"""Open what the pipeline needs: checkpoint, adapter, and the encoded prompts."""

from __future__ import annotations

from pathlib import Path

import torch

from ...core.errors import WeightsError
from .adapter import open_adapter
from .attention import install
from .checkpoint import open_checkpoint
from .dials import SD15_CONTEXT
from .pipeline import Networks
from .text import encode, prompt_ids

_SD15_SIDE, _SDXL_SIDE = 512, 1024
"""Pixels that the checkpoints were trained at."""


def open_networks(
    checkpoint: Path,
    adapter: Path,
    prompt: str = "",
    tokenizer: Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> Networks:
    """Open the networks. The text encoders are used once and dropped.

    Args:
        prompt: for the new face; empty for none.
        tokenizer: folder of CLIP's vocabulary, for a prompt; that of a diffusers folder is found.
        dtype: of the UNet. The VAE computes in float32: that of SDXL overflows in half precision.
        scale: of the attention to the identity.

    Raises:
        WeightsError: a file is missing, damaged, or of another family.
        InputError: there is a prompt, but no vocabulary.
    """
    opened = open_adapter(adapter)
    networks = open_checkpoint(checkpoint, dtype)
    if not networks.encoders:
        raise WeightsError(f"{checkpoint.name} has no text encoder; use a whole checkpoint, not only its UNet")
    install(networks.unet, opened, scale)
    empty = encode(networks.encoders, prompt_ids("", None))
    attributes = encode(networks.encoders, prompt_ids(prompt, tokenizer or networks.tokenizer)) if prompt else None
    return Networks(networks.unet.to(device), networks.vae.to(device), opened, empty, attributes)


def default_size(networks: Networks) -> int:
    """Side in pixels of the squares that the checkpoint was trained at."""
    return _SD15_SIDE if networks.adapter.context_size <= SD15_CONTEXT else _SDXL_SIDE
