"""Open files that hold tensors or networks, and say in one sentence what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FaceVeilError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_safetensors(path: Path, what: str, remedy: str, error: type[FaceVeilError] = WeightsError) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file.

    Args:
        what: the kind of file, to begin the sentence with.
        remedy: what to do when it is missing or damaged.
        error: class of what is raised.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"{what} {path.name} is not there; {remedy}")
    try:
        with safe_open(str(path), "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as damage:
        raise error(f"{what} {path.name} is not a whole safetensors file ({damage}); {remedy}") from None


def open_onnx(path: Path, what: str) -> Any:
    """An onnxruntime session on the CPU for a network that the user has.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    import onnxruntime

    if not path.is_file():
        raise WeightsError(f"{what} {path.name} is not there; download it yourself and name its place")
    try:
        return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as damage:  # onnxruntime raises classes of its own, without a common base
        raise WeightsError(f"{what} {path.name} is not a whole ONNX file ({type(damage).__name__}); get a fresh copy") from None
