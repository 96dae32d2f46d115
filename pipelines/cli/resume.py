"""Where the manifest of a run lies, and what identifies a file in it: content, settings and weights."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from ...weights.catalog import cards
from ..core.files import is_folder
from ..imaging.formats import FORMATS, VIDEO_OUTPUTS
from ..jobs.manifest import digest
from ..jobs.remote import Notes, checksum, is_url, names_file
from ..jobs.tasks import Task
from .anonymize import method_options

_WITHOUT_EFFECT = (
    "command", "run", "debug", "input", "output", "jobs", "report", "preview", "save_identity", "overwrite", "resume",
    "hardware", "cluster", "address", "worker_gpus",
)  # fmt: skip
"""Flags that do not change the pixels of an output."""


def manifest_folder(options: argparse.Namespace) -> Path | None:
    """The output folder of a run over several files; None where it treats one, or writes beside its inputs."""
    several = len(options.input) > 1 or any(_is_folder(text) for text in options.input)
    if options.output is None or not several:
        return None
    output = Path(options.output)
    if is_url(options.output):
        return None
    one_file = output.suffix.lower() in (*FORMATS, *VIDEO_OUTPUTS) and not is_folder(output)
    return None if one_file else output


def _is_folder(text: str) -> bool:
    """Whether an input is a folder; behind a URL that is what does not look like a file."""
    return not names_file(text) if is_url(text) else is_folder(Path(text))


def remote_notes(options: argparse.Namespace) -> Notes | None:
    """Where a run into a folder behind a URL notes what was done."""
    output = options.output
    if not is_url(output) or names_file(output):
        return None
    return Notes(output)


def id_of(options: argparse.Namespace, task: Task) -> str:
    """The id of a task; it changes when its output could change.

    Raises:
        InputError: the source cannot be read.
    """
    from ..core.errors import InputError
    from ..core.files import short_reason

    try:
        content = checksum(task.source_url) if task.source_url else digest(task.source)
    except OSError as error:
        raise InputError(f"{task.source.name} cannot be read ({short_reason(error)})") from None
    settings = {k: _value(v) for k, v in sorted(vars(options).items()) if k not in _WITHOUT_EFFECT and not callable(v)}
    # Flags that are left out have defaults that can be files.
    method = method_options(options)
    chosen = {} if method is None else {f.name: _value(getattr(method, f.name)) for f in fields(cast(Any, method))}
    weights = [card.sha256 for card in cards()]
    text = json.dumps([content, settings, chosen, weights, version("faceveil")])
    return hashlib.sha256(text.encode()).hexdigest()


def _value(value: object) -> object:
    """A flag's value; files, also those of a folder, count with their sizes and times."""
    if isinstance(value, (list, tuple)):
        return [_value(item) for item in value]
    if isinstance(value, Path):
        inside = sorted(value.rglob("*")) if value.is_dir() else [value]
        files = [(p.relative_to(value.parent), p.stat()) for p in inside if p.is_file()]
        return [value.name, [[str(name), status.st_size, status.st_mtime_ns] for name, status in files]]
    if isinstance(value, str) and (file := Path(value.partition(":")[2])).is_file():
        # A recognizer and its file, as KIND:FILE.
        return [value, _value(file)]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
