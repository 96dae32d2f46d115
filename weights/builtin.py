"""Weights that are part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path(__file__).parent / "files"


def open_builtin(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a built-in safetensors file.

    Raises:
        FileNotFoundError: the package was installed without this file.
    """
    from safetensors import safe_open

    with safe_open(str(FOLDER / name), "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
