"""The manifest of a folder: one line for each step of each file, so that a stopped run can be resumed.

A line is appended when a file is begun and when it is finished, and flushed to the disk; nothing is ever rewritten. An
output whose file was begun, but not finished, is made again. So each output is made exactly once in the end, whatever
stops the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..core.errors import OutputError
from ..core.files import short_reason

NAME = "faceveil-manifest.jsonl"
BLOCK = 1 << 20
Status = Literal["started", "done", "failed"]


@dataclass(frozen=True)
class Entry:
    """The last line about one file.

    Attributes:
        id: of the content, the settings and the weights.
        output: path below the manifest's folder.
        status: ``failed`` files are tried again.
        exposed: faces that were not protected.
        reason: why it failed.
        sha256: of the output.
        report: what was done, as JSON values.
    """

    id: str
    output: str
    status: Status
    exposed: int = 0
    reason: str = ""
    sha256: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


class Manifest:
    """Reads and appends to the manifest of an output folder.

    Raises:
        OutputError: the manifest cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME
        self._entries: dict[str, Entry] = {}
        try:
            data = self._path.read_bytes() if self._path.is_file() else b""
        except OSError as error:
            raise OutputError(f"{NAME} cannot be read ({short_reason(error)}); check its permissions") from None
        # A line that was cut off must not swallow the next one.
        self._before_next = b"" if data.endswith(b"\n") or not data else b"\n"
        for line in data.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._entries[entry.output] = entry

    def finished(self, id: str, output: Path) -> Entry | None:
        """The entry of an output that was finished with this id and is still the file that was written."""
        entry = self._entries.get(self._name(output))
        if entry is None or entry.id != id or entry.status != "done" or not output.is_file():
            return None
        return entry if digest(output) == entry.sha256 else None

    def knows(self, output: Path) -> bool:
        """Whether a run with this manifest has begun an output."""
        return self._name(output) in self._entries

    def is_ours(self, output: Path) -> bool:
        """Whether an existing output was begun by a run with this manifest and never finished."""
        entry = self._entries.get(self._name(output))
        return entry is not None and entry.status == "started"

    def start(self, id: str, output: Path) -> None:
        """Note that a file is begun."""
        self._append(Entry(id, self._name(output), "started"))

    def finish(self, id: str, output: Path, exposed: int, report: Mapping[str, Any]) -> None:
        """Note that an output was written."""
        self._append(Entry(id, self._name(output), "done", exposed, sha256=digest(output), report=report))

    def fail(self, id: str, output: Path, reason: str) -> None:
        """Note that a file cannot be treated; there is no output."""
        self._append(Entry(id, self._name(output), "failed", reason=reason))

    def _name(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()

    def _append(self, entry: Entry) -> None:
        values = {name: value for name, value in vars(entry).items() if value not in ("", 0, {})}
        line = self._before_next + (json.dumps(values) + "\n").encode()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # One write at the end of the file is whole or, after a power failure, a damaged last line.
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, line)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise OutputError(
                f"{NAME} could not be written ({short_reason(error)}); make room for it, then run with --resume"
            ) from None
        self._before_next = b""
        self._entries[entry.output] = entry


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def _entry(line: bytes) -> Entry | None:
    """A line of the manifest; None for one that was cut off."""
    try:
        values = json.loads(line)
        entry = Entry(**values)
        texts = (entry.id, entry.output, entry.status, entry.reason, entry.sha256)
        return entry if all(isinstance(text, str) for text in texts) and isinstance(entry.exposed, int) else None
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True)
class Resumed:
    """The report of an output that an earlier run has finished."""

    values: Mapping[str, Any]
    exposed: int

    @property
    def safe(self) -> bool:
        return self.exposed == 0

    def text(self) -> str:
        """One sentence."""
        return f"finished by an earlier run; {self.values.get('summary', '')}"

    def to_json(self) -> str:
        return json.dumps(self.values)
