"""Save everything that the next training step depends on, and read it back."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..core.errors import InputError
from ..core.files import write_whole

FACTS = "step.json"
"""Written into a state's folder last: a folder without it is not whole."""
PART = ".part"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and texts, in nested dicts and lists, as one file, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """What ``save_state`` wrote; None where there is no file.

    Raises:
        InputError: the file is damaged, or holds something other than tensors, numbers and texts.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError):
        raise InputError(f"the training state {path.name} is damaged; delete it to start again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path.name} is not a training state; delete it to start again")
    return state


def save_folder(folder: Path, write: Callable[[Path], None], facts: dict[str, Any]) -> None:
    """Let ``write`` fill a temporary folder, add ``facts`` as JSON, and rename it to ``folder``."""
    part = folder.with_name(folder.name + PART)
    shutil.rmtree(part, ignore_errors=True)
    write(part)
    (part / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.replace(folder)


def newest_folder(states: Path) -> tuple[Path, dict[str, Any]]:
    """The state folder with the highest step, and its facts.

    Raises:
        InputError: there is no whole one.
    """
    found = sorted(p for p in states.glob("step-*") if p.suffix != PART and (p / FACTS).is_file())
    if not found:
        raise InputError(f"there is no saved state in {states}; start without --resume")
    try:
        facts = json.loads((found[-1] / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"the training state {found[-1].name} is damaged; delete it to resume an earlier one"
        ) from None
    return found[-1], dict(facts)
