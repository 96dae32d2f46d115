"""Open files that hold tensors or networks, and say in one sentence what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FaceVeilError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


def read_safetensors(
    path: Path, what: str, remedy: str, error: type[FaceVeilError] = WeightsError
) -> tuple[dict[str, Tensor], dict[str, str]]:
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


def read_state(path: Path, what: str, remedy: str, under: str = "state_dict") -> dict[str, Tensor]:
    """A network's weights from safetensors, or from a PyTorch file, in which nothing but tensors is accepted.

    Args:
        under: key of a PyTorch file below which its weights may lie, beside an optimizer's and other things.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than tensors.
    """
    import pickle

    import torch

    if path.suffix == ".safetensors" or not path.is_file():
        return read_safetensors(path, what, remedy)[0]
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError):
        raise WeightsError(f"{what} {path.name} is not a whole PyTorch file of plain tensors; {remedy}") from None
    state = stored.get(under, stored) if isinstance(stored, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsError(f"{what} {path.name} holds no network's weights; {remedy}")
    return state


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
        raise WeightsError(
            f"{what} {path.name} is not a whole ONNX file ({type(damage).__name__}); get a fresh copy"
        ) from None
