"""Files behind URLs, such as ``s3://bucket/photos``: any file system that fsspec knows.

Each file is fetched into a temporary folder, treated there, and the result is sent when it is whole. What was done is
noted in one small object for each output, so that many machines can work on one folder and a stopped run can go on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ..core.errors import InputError, OutputError
from ..core.files import short_reason
from ..imaging.formats import FORMATS, VIDEO_OUTPUTS, VIDEO_SUFFIXES
from .manifest import Entry, Status, digest
from .tasks import UNWRITTEN, Task, check_kind, plan_tasks, writable

NOTES = "faceveil-manifest"
"""Folder in the output folder with a note for each output."""
_RENAMED = ("file", "local", "sftp", "ssh", "smb")
"""Protocols whose files grow while they are sent: they are sent under another name, then renamed. Objects of other
stores appear when they are complete."""
_PART = ".faceveil-part"
_BELOW = ".faceveil-output"
"""Stands for the output folder while targets are planned; it never exists."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_FLATTENED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""A URL that was read as a path; a Windows drive has one letter."""
_Key = tuple[str, str]
"""A protocol and a path: two spellings of one file have the same."""


def is_url(text: str | None) -> bool:
    """Whether a text names a file system and a path in it."""
    return text is not None and _URL.match(text) is not None


def was_url(path: Path) -> bool:
    """Whether a path of the local file system was meant as a URL."""
    return _FLATTENED.match(path.as_posix()) is not None


def names_file(output: str) -> bool:
    """Whether an output names one file, not a folder."""
    return not output.endswith("/") and PurePosixPath(output).suffix.lower() in (*FORMATS, *VIDEO_OUTPUTS, *UNWRITTEN)


def plan_any_tasks(inputs: Sequence[str], output: str | None) -> list[Task]:
    """``plan_tasks`` for inputs and an output that may be URLs.

    Raises:
        InputError: no image was found, there is no output, or several inputs have one output file.
    """
    if not any(map(is_url, (*inputs, output))):
        return plan_tasks(inputs, output)
    if output is None:
        raise InputError("for inputs behind URLs, name a folder or a file with -o")
    if is_url(output):
        opened(output)
    found: list[Task] = []
    for text in inputs:
        found += _expanded(text, output) if is_url(text) else plan_tasks([text], _BELOW)
    if names_file(output):
        return [_single(found, output)]
    tasks = []
    for task in found:
        # All targets were planned below one folder.
        inside = task.target.relative_to(_BELOW)
        if is_url(output):
            tasks.append(Task(task.source, inside, task.source_url, _joined(output, inside.as_posix())))
        else:
            tasks.append(Task(task.source, Path(output) / inside, task.source_url))
    return list(dict.fromkeys(tasks))


def _single(found: Sequence[Task], output: str) -> Task:
    """The task of an output that names a file."""
    name = _name(output)
    if len(found) > 1:
        raise InputError(f"{len(found)} files cannot be written to the one file {name}; name a folder with -o")
    if Path(name).suffix.lower() in UNWRITTEN:
        raise InputError(f"{name} has no suffix that can be written; use {', '.join((*FORMATS, *VIDEO_OUTPUTS))}")
    check_kind(found[0].source, Path(name))
    if is_url(output):
        return Task(found[0].source, Path(name), found[0].source_url, output)
    return Task(found[0].source, Path(output), found[0].source_url)


def _expanded(url: str, output: str) -> list[Task]:
    """The images and videos of a URL: a file, or a folder with everything below it but the results of this run."""
    fs, root = opened(url)
    with _one_sentence(f"{url} cannot be listed", "check its name and your permissions"):
        if fs.isfile(root):
            name = Path(_name(root))
            return [Task(name, Path(_BELOW) / writable(name), url)]
        names = sorted(fs.find(root))
    results = _inside(url, output)
    tasks = []
    for name in names:
        inside = PurePosixPath(name).relative_to(PurePosixPath(root))
        if results is not None and inside.is_relative_to(results):
            continue
        if inside.suffix.lower() in (*FORMATS, *VIDEO_SUFFIXES):
            if ".." in inside.parts:
                raise InputError(f"{inside.name} lies at a place with '..' behind {url}; rename it")
            tasks.append(Task(Path(inside), Path(_BELOW) / writable(Path(inside)), _joined(url, inside.as_posix())))
    if not tasks:
        raise InputError(f"no image or video was found below {url}; check its name")
    return tasks


def _inside(url: str, output: str) -> PurePosixPath | None:
    """Where an output folder lies in an input folder; None where it lies elsewhere."""
    (protocol, root), (other, place) = _key(url), _key(output if is_url(output) else Path(output))
    below = PurePosixPath(place)
    if protocol != other or place == root or not below.is_relative_to(root):
        return None
    return below.relative_to(root)


def skipped_remote(inputs: Sequence[str]) -> list[Path]:
    """Files behind the given URLs that are no images or videos of a known format."""
    found = []
    for url in filter(is_url, inputs):
        fs, root = opened(url)
        with _one_sentence(f"{url} cannot be listed", "check your permissions"):
            names = [] if fs.isfile(root) else fs.find(root)
        found += [Path(n) for n in names if PurePosixPath(n).suffix.lower() not in (*FORMATS, *VIDEO_SUFFIXES)]
    return [path for path in found if NOTES not in path.parts]


@contextmanager
def staged(task: Task, overwrite: bool = False) -> Iterator[Task]:
    """The task with local files; its result is sent at the end of the ``with`` block.

    Args:
        overwrite: whether another file at the target's place may be overwritten.

    Raises:
        InputError: the source cannot be fetched.
        OutputError: the result cannot be sent.
    """
    with TemporaryDirectory(prefix="faceveil-") as folder:
        source, target = task.source, task.target
        if task.source_url:
            source = Path(folder) / "in" / task.source.name
            fs, place = opened(task.source_url)
            with _one_sentence(f"{task.source.name} cannot be fetched", "run again"):
                source.parent.mkdir()
                fs.get_file(place, str(source))
        if task.target_url:
            target = Path(folder) / "out" / task.target.name
        yield Task(source, target)
        if task.target_url and (overwrite or not _is_there(target, task, Path(folder) / "there")):
            _send(target, task.target_url)


def _is_there(path: Path, task: Task, copy: Path) -> bool:
    """Whether a result has been sent already, by a run that was stopped before it could note that.

    Raises:
        OutputError: another file is at its place.
    """
    fs, place = opened(task.target_url)
    with _one_sentence(f"{task.target.name} cannot be looked up", "run again"):
        if not fs.isfile(place):
            return False
        fs.get_file(place, str(copy))
    if digest(copy) != digest(path):
        raise _changed(task)
    return True


def _changed(task: Task) -> OutputError:
    return OutputError(
        f"{task.target.name} was made with other settings, from another file, or changed since; add --overwrite, or"
        " name another output"
    )


def checksum(url: str) -> str:
    """A text that changes with a file behind a URL.

    Raises:
        InputError: the file cannot be read.
    """
    fs, place = opened(url)
    with _one_sentence(f"{_name(url)} cannot be read", "check your permissions"):
        return str(fs.checksum(place))


def check_places(tasks: Sequence[Task], notes: Notes | None, overwrite: bool, resume: bool) -> None:
    """Refuse outputs that would overwrite an input, each other, or a file of the user, before anything is computed.

    Raises:
        OutputError: an output is an input, exists, or is named twice.
    """
    if not any(task.is_remote for task in tasks):
        return
    sources, seen = {_key(task.source_url or task.source) for task in tasks}, set[_Key]()
    for task in tasks:
        key = _key(task.target_url or task.target)
        if key in sources:
            raise OutputError(f"{task.shown} is an input and would be overwritten; name another output")
        if key in seen:
            raise OutputError(f"{task.shown} would be written twice; run the inputs one by one")
        seen.add(key)
    remote = [task for task in tasks if task.target_url and "::" not in task.target_url]
    if overwrite or not remote:
        return
    known = notes.known() if notes is not None and resume else frozenset()
    there = _listed(notes.folder) if notes is not None else None
    for task in remote:
        fs, place = opened(task.target_url)
        with _one_sentence(f"{task.shown} cannot be looked up", "check your permissions"):
            exists = fs.exists(place) if there is None else place in there
        if exists and task.target.as_posix() not in known:
            raise OutputError(f"{task.shown} exists; add --overwrite, or name another output")


@dataclass(frozen=True)
class Notes:
    """What was done, behind a URL: one JSON object for each output.

    Attributes:
        folder: URL of the output folder.
    """

    folder: str

    def known(self) -> Collection[str]:
        """The outputs that a run has begun, relative to the folder."""
        url = _joined(self.folder, NOTES)
        root = PurePosixPath(opened(url)[1])
        return {PurePosixPath(n).relative_to(root).as_posix().removesuffix(".json") for n in _listed(url)}

    def finished(self, id: str, task: Task, overwrite: bool) -> Entry | None:
        """The entry of an output that was finished with this id and did not change since.

        Raises:
            OutputError: an output was finished otherwise, or changed, and must not be overwritten.
        """
        fs, place = opened(self._note(task))
        try:
            values = json.loads(fs.cat_file(place))
            written = values.pop("checksum", "")
            entry = Entry(**values)
        except Exception:  # no note, or one that another program damaged
            return None
        there, output = opened(task.target_url)
        if entry.status != "done" or not there.exists(output):
            return None
        if entry.id == id and checksum(task.target_url) == written:
            return entry
        if overwrite:
            return None
        raise _changed(task)

    def write(self, id: str, task: Task, status: Status, exposed: int = 0, **more: Any) -> None:
        """Note what became of a file.

        Raises:
            InputError: the note cannot be written.
        """
        values: Mapping[str, Any] = {"id": id, "output": task.target.as_posix(), "status": status, "exposed": exposed}
        done = {"checksum": checksum(task.target_url)} if status == "done" else {}
        fs, place = opened(self._note(task))
        with _one_sentence(f"a note on {task.target.name} cannot be written", "check your permissions"):
            fs.makedirs(fs._parent(place), exist_ok=True)
            fs.pipe_file(place, json.dumps({**values, **done, **more}).encode())

    def _note(self, task: Task) -> str:
        return _joined(self.folder, f"{NOTES}/{task.target.as_posix()}.json")


def _send(path: Path, url: str) -> None:
    fs, place = opened(url)
    first = place + _PART if _protocol(fs) in _RENAMED else place
    try:
        if fs.isdir(place):
            raise OutputError(f"{url} is a folder; name another output")
        fs.makedirs(fs._parent(place), exist_ok=True)
        fs.put_file(str(path), first)
        if _protocol(fs) in ("file", "local"):
            Path(first).replace(place)
        elif first != place:
            fs.mv(first, place)
    except OutputError:
        raise
    except Exception as error:  # file systems raise errors of their own
        if first != place:
            with suppress(Exception):
                fs.rm_file(first)
        raise OutputError(f"{_name(url)} cannot be sent ({short_reason(error)}); run again with --resume") from None


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        InputError: the protocol is unknown, needs a package, or refuses the user, or there is no path.
    """
    import fsspec

    protocol, _, rest = url.partition("://")
    if "::" in rest:
        raise InputError(f"{_name(url)} has '::' in its name or place, which means a chain of file systems; rename it")
    if not rest.strip("/"):
        raise InputError(f"{url} names no bucket or folder; add one")
    try:
        fs, place = fsspec.core.url_to_fs(f"{protocol.lower()}://{rest}")
        return fs, str(place).rstrip("/")
    except ImportError as error:
        raise InputError(f"{protocol}:// needs another package: {short_reason(error)}") from None
    except Exception as error:  # an unknown protocol, no credentials
        raise InputError(f"{url} cannot be opened ({short_reason(error)}); check the protocol and your login") from None


def _listed(url: str) -> Collection[str]:
    """All files below a folder."""
    fs, root = opened(url)
    with _one_sentence(f"{url} cannot be listed", "check your permissions"):
        return set(fs.find(root))


def _key(place: str | Path) -> _Key:
    if isinstance(place, Path):
        return "file", os.path.realpath(place)
    if "::" in place:
        return place, ""
    fs, path = opened(place)
    protocol = _protocol(fs)
    return ("file", os.path.realpath(path)) if protocol in ("file", "local") else (protocol, path)


def _protocol(fs: Any) -> str:
    """The first name of a file system: several, such as s3 and s3a, can mean the same."""
    return str(fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0])


@contextmanager
def _one_sentence(what: str, remedy: str) -> Iterator[None]:
    """Say in one sentence what a file system raises: these are errors of many kinds."""
    try:
        yield
    except (InputError, OutputError):
        raise
    except Exception as error:
        raise InputError(f"{what} ({short_reason(error)}); {remedy}") from None


def _joined(folder: str, inside: str) -> str:
    return f"{folder.rstrip('/')}/{inside}"


def _name(text: str) -> str:
    return text.rstrip("/").rsplit("/", 1)[-1]
