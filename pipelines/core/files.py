"""Read and write small files: a file is written whole or not at all, and errors are one sentence."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .errors import InputError, OutputError

PART_PREFIX, PART_SUFFIX = ".faceveil-", ".part"
"""Of the temporary file that a write goes to first."""
MAX_REASON = 120
"""Characters of an operating system's or library's message that are repeated to the user."""


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary file in the same folder, then rename it.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full. Nothing is left behind.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=PART_PREFIX, suffix=PART_SUFFIX, dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            # Without this a power failure can leave an empty file under the final name.
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            f"{path.name} could not be written ({short_reason(error)}); choose another folder or free some space"
        ) from None


def read_text(path: Path) -> str:
    """Read UTF-8 text.

    Raises:
        InputError: the file is missing, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text; check its name and folder") from None


def short_reason(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip()
    return text.splitlines()[0][:MAX_REASON] if text else type(error).__name__


def _umask() -> int:
    # The mask can only be read by setting it. mkstemp makes private files; a result is as readable as any other file.
    umask = os.umask(0)
    os.umask(umask)
    return umask
