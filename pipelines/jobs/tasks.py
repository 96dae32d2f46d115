"""Name the inputs and outputs of a run over images and videos; torch is not imported for it."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import InputError
from ..core.files import exists, is_folder
from ..imaging.formats import FORMATS, VIDEO_OUTPUTS, VIDEO_SUFFIXES


@dataclass(frozen=True)
class Task:
    """One image or video to read, and the file to write its result to.

    Attributes:
        source: of a source behind a URL, only its place below the input folder.
        target: likewise.
        source_url, target_url: empty for local files.
    """

    source: Path
    target: Path
    source_url: str = ""
    target_url: str = ""

    @property
    def is_video(self) -> bool:
        return self.source.suffix.lower() in VIDEO_SUFFIXES

    @property
    def is_remote(self) -> bool:
        return bool(self.source_url or self.target_url)

    @property
    def shown(self) -> str:
        """The target as the user knows it."""
        return self.target_url or str(self.target)


UNWRITTEN = (".gif", ".ogv", ".3gp", ".mxf", ".mpg", ".mpeg", ".wmv", ".flv")
"""Suffixes of videos that cannot be written; without this, they would become folders."""
VEILED = "_veiled"
"""Added to the name of a result that is written beside its input."""


def plan_tasks(inputs: Sequence[str], output: str | None) -> list[Task]:
    """Expand files, folders and globs, and name an output file for each image and video.

    The subfolders of an input folder are recreated below ``output``. Without ``output`` each result is written next to
    its input as ``NAME_veiled.EXT``. Results of earlier runs in an input folder are left out.

    Raises:
        InputError: no image was found, or two inputs have one output file.
    """
    found: list[tuple[Path, Path]] = []
    for text in inputs:
        found += [pair for pair in _expand(text) if not _is_result(pair[0], Path(text), output)]
    if not found:
        raise InputError(
            f"no image or video was found in {', '.join(inputs)}; name files that end in"
            f" {', '.join(sorted(FORMATS))}, {', '.join(VIDEO_OUTPUTS)}"
        )
    if output is not None and Path(output).suffix.lower() in (*FORMATS, *VIDEO_OUTPUTS) and not is_folder(Path(output)):
        if len(found) > 1:
            raise InputError(
                f"{len(found)} files cannot be written to the one file {Path(output).name}; name a folder with -o"
            )
        check_kind(found[0][0], Path(output))
        tasks = [Task(found[0][0], Path(output))]
    elif output is not None and len(found) == 1 and _names_a_file(found[0][0], Path(output)):
        raise InputError(
            f"{Path(output).name} has no suffix of a video that can be written; use {', '.join(VIDEO_OUTPUTS)}"
        )
    elif output is not None:
        tasks = [Task(source, Path(output) / writable(relative)) for source, relative in found]
    else:
        tasks = [
            Task(source, source.with_name(f"{source.stem}{VEILED}{writable(source).suffix}")) for source, _ in found
        ]
    # A file that is named twice, by itself and by a glob, is treated once.
    return _distinct(list(dict.fromkeys(tasks)))


def _distinct(tasks: list[Task]) -> list[Task]:
    """Give outputs of one name another where their inputs differ in the suffix: ``clip.mpg`` beside ``clip.mp4``.

    Raises:
        InputError: two inputs of one name have one output.
    """
    count = Counter(task.target for task in tasks)
    renamed = []
    for task in tasks:
        source, target = task.source, task.target
        if count[target] > 1 and source.suffix.lower() != target.suffix.lower():
            target = target.with_name(f"{target.stem}_{source.suffix[1:].lower()}{target.suffix}")
        renamed.append(replace(task, target=target))
    first: dict[Path, Path] = {}
    for task in renamed:
        if task.target in first:
            raise InputError(
                f"{first[task.target]} and {task.source} would both be written to {task.target.name}; rename one, or"
                " treat their folders one after the other, each with its own -o"
            )
        first[task.target] = task.source
    return renamed


def skipped_files(inputs: Sequence[str], output: str | None) -> list[Path]:
    """Files in the named folders that ``plan_tasks`` leaves out: other formats, and results of earlier runs."""
    folders = [Path(text) for text in inputs if is_folder(Path(text))]
    inside = [(p, folder) for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p, folder in inside if not _is_known(p) or _is_result(p, folder, output)]


def _is_result(path: Path, folder: Path, output: str | None) -> bool:
    """Whether an image of an input folder was written by an earlier run with the same output."""
    if not is_folder(folder):
        return False
    if output is None:
        return path.stem.endswith(VEILED)
    target = Path(output).resolve()
    return target != folder.resolve() and path.resolve().is_relative_to(target)


def _expand(text: str) -> list[tuple[Path, Path]]:
    """List pairs of an input file and its path relative to the named folder."""
    path = Path(text)
    if is_folder(path):
        inside = sorted(p for p in path.rglob("*") if _is_known(p) and p.is_file())
        return [(p, p.relative_to(path)) for p in inside]
    if exists(path) or not glob.has_magic(text):
        return [(path, Path(path.name))]
    return [(p, Path(p.name)) for p in sorted(map(Path, glob.glob(text, recursive=True))) if p.is_file()]


def writable(path: Path) -> Path:
    """Replace a suffix that cannot be written by ``.png``, or ``.mp4`` for a video."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return path if suffix in VIDEO_OUTPUTS else path.with_suffix(".mp4")
    return path if suffix in FORMATS else path.with_suffix(".png")


def _names_a_file(source: Path, output: Path) -> bool:
    """Whether the output of one video seems to be meant as a file, of a kind that cannot be written."""
    return source.suffix.lower() in VIDEO_SUFFIXES and output.suffix.lower() in UNWRITTEN and not exists(output)


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in (*FORMATS, *VIDEO_SUFFIXES)


def check_kind(source: Path, output: Path) -> None:
    """Raise where an image would be written as a video, or a video as an image."""
    if (source.suffix.lower() in VIDEO_SUFFIXES) != (output.suffix.lower() in VIDEO_OUTPUTS):
        kinds = ("a video", "an image") if source.suffix.lower() in VIDEO_SUFFIXES else ("an image", "a video")
        raise InputError(f"{source.name} is {kinds[0]}, but {output.name} names {kinds[1]}; give another suffix")
