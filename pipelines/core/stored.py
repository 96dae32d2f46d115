"""Open files with tensors or networks, with one clear error message for each kind of damage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FaceVeilError, WeightsError
from .telemetry import import_onnxruntime

if TYPE_CHECKING:
    from torch import Tensor


def read_safetensors(
    path: Path, what: str, remedy: str, error: type[FaceVeilError] = WeightsError
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of a safetensors file.

    Args:
        what: the kind of file, which begins the error message.
        remedy: what to do when the file is missing or damaged, which ends the error message.
        error: class of the error.

    Raises:
        error: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise error(f"{what} {path.name} does not exist; {remedy}")
    try:
        with safe_open(str(path), "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as damage:
        raise error(f"{what} {path.name} is not a complete safetensors file ({damage}); {remedy}") from None


def read_state(path: Path, what: str, remedy: str, key: str = "state_dict") -> dict[str, Tensor]:
    """Read the weights of a network from a safetensors file or a PyTorch file. Only tensors are accepted.

    Args:
        what: the kind of file, which begins the error message.
        remedy: what to do when the file is missing or damaged, which ends the error message.
        key: where the weights are in a PyTorch file that also contains other data, such as an optimizer's state.

    Raises:
        WeightsError: the file is missing, damaged, or contains other objects than tensors.
    """
    if path.suffix == ".safetensors" or not path.is_file():
        return read_safetensors(path, what, remedy)[0]
    stored = read_pickle(path, what, remedy)
    state = stored.get(key, stored)
    if not isinstance(state, dict) or not state or not all(map(_is_weight, state.items())):
        raise WeightsError(f"{what} {path.name} contains no network weights; {remedy}")
    return state


def read_pickle(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read the dictionary in a PyTorch file. Only tensors, numbers, texts and containers of them are accepted.

    Args:
        what: the kind of file, which begins the error message.
        remedy: what to do when the file is missing or damaged, which ends the error message.

    Raises:
        WeightsError: the file is missing, damaged, or contains other objects.
    """
    import pickle

    import torch

    if not path.is_file():
        raise WeightsError(f"{what} {path.name} does not exist; {remedy}")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, IndexError):
        raise WeightsError(f"{what} {path.name} is not a complete PyTorch file with tensors only; {remedy}") from None
    if not isinstance(stored, dict):
        raise WeightsError(f"{what} {path.name} contains no network weights; {remedy}")
    return stored


def _is_weight(item: tuple[object, object]) -> bool:
    import torch

    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def session_options() -> Any:
    """Options of all onnxruntime sessions."""
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3
    # Like other libraries of linear algebra; several processes would else share the cores badly.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        options.intra_op_num_threads = int(threads)
    # Threads that wait for work would take as much processor time as the work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_onnx(path: Path, what: str) -> Any:
    """Open a network that the user downloaded, as an onnxruntime session on the CPU.

    Args:
        what: the kind of network, which begins the error message.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    onnxruntime = import_onnxruntime()
    if not path.is_file():
        raise WeightsError(f"{what} {path.name} does not exist; download it and give its path")
    try:
        return onnxruntime.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])
    except Exception as damage:  # onnxruntime's exceptions have no common base class
        raise WeightsError(
            f"{what} {path.name} is not a complete ONNX file ({type(damage).__name__}); download it again"
        ) from None
