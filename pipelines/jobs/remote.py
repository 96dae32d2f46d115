"""Files behind URLs, such as ``s3://bucket/photos``: any file system that fsspec knows.

Each file is fetched into a temporary folder, treated there, and the result is sent when it is whole. What was done is
noted in one small object for each output, so that many machines can work on one folder and a stopped run can go on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ..core.errors import FaceVeilError, InputError, OutputError
from ..core.files import short_reason
from ..imaging.formats import FORMATS, VIDEO_OUTPUTS, VIDEO_SUFFIXES
from .manifest import Entry, Status
from .tasks import Task, plan_tasks, writable

NOTES = "faceveil-manifest"
"""Folder in the output folder with a note for each output."""
_WHOLE = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory")
"""Protocols whose files appear when they are complete; for others, a file is sent under another name, then renamed."""
_PART = ".faceveil-part"
_BELOW = ".faceveil-output"
"""Stands for the output folder while targets are planned; it never exists."""


def is_url(text: str | None) -> bool:
    """Whether a text names a file system and a path in it."""
    return text is not None and "://" in text


def plan_any_tasks(inputs: Sequence[str], output: str | None) -> list[Task]:
    """``plan_tasks`` for inputs and an output that may be URLs.

    Raises:
        InputError: no image was found, there is no output, or several inputs have one output file.
    """
    if not any(map(is_url, (*inputs, output))):
        return plan_tasks(inputs, output)
    if output is None:
        raise InputError("for inputs behind URLs, name a folder or a file with -o")
    found: list[Task] = []
    for text in inputs:
        found += _expanded(text) if is_url(text) else plan_tasks([text], _BELOW)
    one_file = PurePosixPath(output).suffix.lower() in (*FORMATS, *VIDEO_OUTPUTS)
    if one_file and len(found) > 1:
        raise InputError(f"{len(found)} files cannot be written to the one file {_name(output)}; name a folder with -o")
    tasks = []
    for task in found:
        # All targets were planned below one folder.
        inside = task.target.relative_to(_BELOW)
        place = output if one_file else f"{output.rstrip('/')}/{inside.as_posix()}"
        target = Path(place) if not is_url(output) else Path(_name(place)) if one_file else inside
        tasks.append(Task(task.source, target, task.source_url, place if is_url(output) else ""))
    return list(dict.fromkeys(tasks))


def _expanded(url: str) -> list[Task]:
    """The images and videos of a URL: a file, or a folder with everything below it."""
    fs, root = _opened(url)
    try:
        if fs.isfile(root):
            name = _name(root)
            return [Task(Path(name), Path(_BELOW) / writable(Path(name)), url)]
        names = sorted(fs.find(root))
    except Exception as error:  # file systems raise errors of their own
        raise InputError(
            f"{url} cannot be listed ({short_reason(error)}); check its name and your permissions"
        ) from None
    tasks = []
    for name in names:
        inside = PurePosixPath(name).relative_to(PurePosixPath(root))
        if inside.suffix.lower() in (*FORMATS, *VIDEO_SUFFIXES):
            tasks.append(Task(Path(inside), Path(_BELOW) / writable(Path(inside)), f"{url.rstrip('/')}/{inside}"))
    if not tasks:
        raise InputError(f"no image or video was found below {url}; check its name")
    return tasks


@contextmanager
def staged(task: Task) -> Iterator[Task]:
    """The task with local files; its result is sent at the end of the ``with`` block.

    Raises:
        InputError: the source cannot be fetched.
        OutputError: the result cannot be sent.
    """
    with TemporaryDirectory(prefix="faceveil-") as folder:
        source, target = task.source, task.target
        if task.source_url:
            source = Path(folder) / "in" / task.source.name
            fs, place = _opened(task.source_url)
            try:
                source.parent.mkdir()
                fs.get_file(place, str(source))
            except Exception as error:  # file systems raise errors of their own
                raise InputError(f"{task.source.name} cannot be fetched ({short_reason(error)}); run again") from None
        if task.target_url:
            target = Path(folder) / "out" / task.target.name
        yield Task(source, target)
        if task.target_url:
            _send(target, task.target_url)


def source_checksum(task: Task) -> str:
    """A text that changes with the content of a remote source.

    Raises:
        InputError: the source cannot be read.
    """
    fs, place = _opened(task.source_url)
    try:
        return str(fs.checksum(place))
    except Exception as error:  # file systems raise errors of their own
        raise InputError(f"{task.source.name} cannot be read ({short_reason(error)})") from None


def check_remote_outputs(tasks: Sequence[Task], notes: Notes | None, overwrite: bool, resume: bool) -> None:
    """Refuse outputs behind URLs that would overwrite a file of the user, before anything is computed.

    Raises:
        OutputError: an output exists, or is the source of a task.
    """
    remote = [task for task in tasks if task.target_url]
    sources, seen = {task.source_url for task in tasks}, set[str]()
    for task in remote:
        if task.target_url in sources:
            raise OutputError(f"{task.target_url} is an input and would be overwritten; name another output")
        if task.target_url in seen:
            raise OutputError(f"{task.target_url} would be written twice; run the inputs one by one")
        seen.add(task.target_url)
    if overwrite or not remote:
        return
    known = notes.known() if notes is not None and resume else frozenset()
    there = _listed(notes.folder) if notes is not None else None
    for task in remote:
        fs, place = _opened(task.target_url)
        exists = fs.exists(place) if there is None else place in there
        if exists and task.target.as_posix() not in known:
            raise OutputError(f"{task.target_url} exists; add --overwrite, or name another output")


def _listed(url: str) -> Collection[str]:
    """All files below a folder."""
    fs, root = _opened(url)
    try:
        return set(fs.find(root))
    except Exception as error:  # file systems raise errors of their own
        raise InputError(f"{url} cannot be listed ({short_reason(error)}); check your permissions") from None


@dataclass(frozen=True)
class Notes:
    """What was done, behind a URL: one JSON object for each output.

    Attributes:
        folder: URL of the output folder.
    """

    folder: str

    def known(self) -> Collection[str]:
        """The outputs that a run has begun, relative to the folder."""
        url = f"{self.folder.rstrip('/')}/{NOTES}"
        root = PurePosixPath(_opened(url)[1])
        return {PurePosixPath(n).relative_to(root).as_posix().removesuffix(".json") for n in _listed(url)}

    def finished(self, id: str, task: Task) -> Entry | None:
        """The entry of an output that was finished with this id and still has the size that was written."""
        fs, place = _opened(self._note(task))
        try:
            values = json.loads(fs.cat_file(place))
            size = values.pop("size")
            entry = Entry(**values)
            there, output = _opened(task.target_url)
            whole = entry.id == id and entry.status == "done" and there.info(output)["size"] == size
            return entry if whole else None
        except Exception:  # no note, a damaged one, or no output
            return None

    def write(self, id: str, task: Task, status: Status, exposed: int = 0, **more: Any) -> None:
        """Note what became of a file.

        Raises:
            OutputError: the note cannot be written.
        """
        values: Mapping[str, Any] = {"id": id, "output": task.target.as_posix(), "status": status, "exposed": exposed}
        size = {}
        if status == "done":
            there, output = _opened(task.target_url)
            size = {"size": there.info(output)["size"]}
        fs, place = _opened(self._note(task))
        try:
            fs.makedirs(fs._parent(place), exist_ok=True)
            fs.pipe_file(place, json.dumps({**values, **size, **more}).encode())
        except Exception as error:  # file systems raise errors of their own
            raise OutputError(f"a note could not be written to {self.folder} ({short_reason(error)})") from None

    def _note(self, task: Task) -> str:
        return f"{self.folder.rstrip('/')}/{NOTES}/{task.target.as_posix()}.json"


def _send(path: Path, url: str) -> None:
    fs, place = _opened(url)
    protocol = url.split("://", 1)[0].lower()
    first = place if protocol in _WHOLE else place + _PART
    try:
        fs.makedirs(fs._parent(place), exist_ok=True)
        fs.put_file(str(path), first)
        if first != place:
            fs.mv(first, place)
    except Exception as error:  # file systems raise errors of their own
        raise OutputError(f"{_name(url)} cannot be sent ({short_reason(error)}); run again with --resume") from None


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        InputError: the protocol is unknown, needs a package, or refuses the user.
    """
    import fsspec

    protocol = url.split("://", 1)[0]
    try:
        fs, place = fsspec.core.url_to_fs(url)
        return fs, str(place)
    except FaceVeilError:
        raise
    except ImportError as error:
        raise InputError(f"{protocol}:// needs another package: {short_reason(error)}") from None
    except Exception as error:  # an unknown protocol, no credentials
        raise InputError(f"{url} cannot be opened ({short_reason(error)}); check the protocol and your login") from None


def _name(text: str) -> str:
    return text.rstrip("/").rsplit("/", 1)[-1]
