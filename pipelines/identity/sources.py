"""Sources of synthetic identities: a bank or a sampler."""

from __future__ import annotations

from pathlib import Path

from .bank import Bank, load_bank
from .lds import IdentitySampler, load_sampler

IdentitySource = Bank | IdentitySampler


def open_source(path: Path) -> IdentitySource:
    """Open a sampler's ``.safetensors`` file, or a bank's folder.

    Raises:
        InputError: the folder contains no bank.
        WeightsError: the file is not a sampler.
    """
    return load_sampler(path) if path.suffix == ".safetensors" else load_bank(path)
