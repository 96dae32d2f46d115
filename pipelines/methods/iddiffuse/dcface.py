"""Read the U-Net of DCFace's public checkpoints, offline and without running what a pickle asks for."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import WeightsError

PREFIXES = ("ema_model.averaged_model.", "model.")
"""Where the weights of the U-Net are in a checkpoint; the averaged ones are preferred."""
_REMEDY = "use dcface_5x5.ckpt or dcface_3x3.ckpt of DCFace"


class _Ignored:
    """Stands in for objects of the settings, which are not needed."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read_dcface(path: Path) -> dict[str, Tensor]:
    """The weights of the U-Net, by the names of ``unet.UNet``.

    Its other networks are replaced by ours, which need no download, so a training has to follow.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise WeightsError(f"{path.name} does not exist; {_REMEDY}")
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        # With weights_only, only these names are allowed in addition, and they do nothing.
        with torch.serialization.safe_globals([(_Ignored, name) for name in unknown]):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError):
        raise WeightsError(f"{path.name} cannot be read as a checkpoint; {_REMEDY}") from None
    state: Any = stored.get("state_dict") if isinstance(stored, dict) else None
    for prefix in PREFIXES if isinstance(state, dict) else ():
        found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if any(k.startswith("input_blocks.") for k in found):
            return {k: v.float() for k, v in found.items() if k.split(".")[0] in _PARTS}
    raise WeightsError(f"{path.name} holds no U-Net of DCFace; {_REMEDY}")


_PARTS = ("time_embed", "input_blocks", "middle_block", "output_blocks", "out")
