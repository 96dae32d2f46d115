"""Weights that are part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..pipelines.core.stored import read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "files"


def open_builtin(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a built-in safetensors file.

    Raises:
        WeightsError: the package was installed without this file.
    """
    return read_safetensors(FOLDER / name, "built-in", "install the package again")
