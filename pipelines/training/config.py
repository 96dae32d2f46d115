"""Read a run's settings from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

from ..core.errors import InputError
from ..core.files import read_text

C = TypeVar("C")


def read_config(path: Path, cls: type[C], paths: Sequence[str]) -> C:
    """Read a TOML file into a dataclass.

    Args:
        paths: names of the settings that must be there and are paths, relative to the file.

    Raises:
        InputError: it is not TOML, or a setting is unknown, missing, of another type or out of range.
    """
    try:
        values = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name} cannot be read as TOML ({error}); correct it") from None
    unknown = sorted(set(values) - {f.name for f in fields(cls)})  # type: ignore[arg-type]
    if unknown:
        raise InputError(f"{path.name} has unknown settings: {', '.join(unknown)}; remove them")
    missing = [name for name in paths if name not in values]
    if missing:
        raise InputError(f"{path.name} lacks {', '.join(missing)}; add them")
    for name in paths:
        if not isinstance(values[name], str):
            raise InputError(f"{name} in {path.name} must be a path in quotes")
        values[name] = str((path.parent / values[name]).resolve())
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"{path.name} has a setting of the wrong type ({error})") from None
