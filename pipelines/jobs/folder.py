"""Many files: names of inputs and outputs, and a loop that goes on past a bad one."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import FaceVeilError, InputError, OutputError
from ..core.progress import Progress, silent
from ..faces.face import Faces
from ..imaging.load import FORMATS, load_image
from ..imaging.save import save_image
from ..methods.base import AnyMethod
from ..recognition.base import FaceRecognizer
from .photo import anonymize_batch
from .report import Report
from .settings import GivenIdentity, Result, Settings


@dataclass(frozen=True)
class Task:
    """One picture to read and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Done:
    """What became of a task: a result's report, or the sentence that says why not."""

    task: Task
    report: Report | None = None
    error: FaceVeilError | None = None


def plan_tasks(inputs: Sequence[str], output: str | None) -> list[Task]:
    """Expand files, folders and globs, and name an output for each.

    A folder's tree is mirrored below ``output``. Without ``output`` results lie beside their input as
    ``NAME_veiled.EXT``.

    Raises:
        InputError: nothing matches, or several inputs are to go to one file.
        OutputError: an output would overwrite its own input, or two results the same file.
    """
    found: list[tuple[Path, Path]] = []
    for text in inputs:
        found += _expand(text)
    if not found:
        raise InputError(
            f"no picture was found in {', '.join(inputs)}; name files that end in {', '.join(sorted(FORMATS))}"
        )
    if output is not None and Path(output).suffix.lower() in FORMATS and not Path(output).is_dir():
        if len(found) > 1:
            raise InputError(
                f"{len(found)} pictures cannot go to the one file {Path(output).name}; name a folder with -o"
            )
        tasks = [Task(found[0][0], Path(output))]
    elif output is not None:
        tasks = [Task(source, Path(output) / _writable(relative)) for source, relative in found]
    else:
        tasks = [
            Task(source, source.with_name(f"{source.stem}_veiled{_writable(source).suffix}")) for source, _ in found
        ]
    _check(tasks)
    return tasks


def run_tasks(
    tasks: Sequence[Task],
    settings: Settings,
    progress: Progress = silent,
    each: Callable[[Task, Result], None] | None = None,
    method: AnyMethod | None = None,
    identity: GivenIdentity | None = None,
    faces: Faces | None = None,
    recognizers: Sequence[FaceRecognizer] = (),
) -> list[Done]:
    """Anonymize one file after the other; a bad file is noted and the loop goes on.

    Args:
        each: called with every finished result, after its file is written.
        method, identity, faces, recognizers: as for ``anonymize_batch``.
    """
    finished = []
    for index, task in enumerate(tasks):
        progress(index, len(tasks), task.source.name)
        try:
            image = load_image(task.source)
            result = anonymize_batch(
                image.pixels, settings, faces, method=method, identity=identity, recognizers=recognizers
            )
            save_image(image.with_pixels(result.pixels), task.target)
        except FaceVeilError as error:
            finished.append(Done(task, error=error))
            continue
        if each is not None:
            each(task, result)
        finished.append(Done(task, report=result.report))
    progress(len(tasks), len(tasks), "done")
    return finished


def _expand(text: str) -> list[tuple[Path, Path]]:
    """Pairs of a file and its path below the named folder."""
    path = Path(text)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in FORMATS and p.is_file())
        return [(p, p.relative_to(path)) for p in inside]
    if path.exists() or not glob.has_magic(text):
        return [(path, Path(path.name))]
    return [(p, Path(p.name)) for p in sorted(map(Path, glob.glob(text, recursive=True))) if p.is_file()]


def _writable(path: Path) -> Path:
    return path if path.suffix.lower() in FORMATS else path.with_suffix(".png")


def _check(tasks: Sequence[Task]) -> None:
    seen: dict[Path, Path] = {}
    for task in tasks:
        target = task.target.resolve()
        if target == task.source.resolve():
            raise OutputError(f"{task.source.name} would be overwritten by its own result; name another output with -o")
        if target in seen and seen[target] != task.source.resolve():
            raise OutputError(f"two inputs are called {task.target.name}; anonymize their folders one by one")
        seen[target] = task.source.resolve()
