"""Trainings without a step loop: the result of each part of the work is kept, so that a stopped training goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from ..core.errors import InputError
from ..core.parallel import parallel
from ..core.progress import Progress
from .checkpoints import load_state, save_state

R = TypeVar("R")
SUBJECT = "subject"


class Packing(Generic[R]):
    """How results are stored.

    Args:
        pack: to tensors, numbers and texts, in nested dicts and lists.
        unpack: the reverse.
    """

    def __init__(self, pack: Callable[[R], dict[str, Any]], unpack: Callable[[dict[str, Any]], R]) -> None:
        self.pack, self.unpack = pack, unpack


class Parts:
    """A folder of finished parts.

    Args:
        folder: made when missing.
        subject: digest of the data and the settings; the parts of another subject are refused.

    Raises:
        InputError: the folder holds the parts of another training.
    """

    def __init__(self, folder: Path, subject: str) -> None:
        self._folder = folder
        known = load_state(folder / SUBJECT)
        if known is None:
            save_state(folder / SUBJECT, {SUBJECT: subject})
        elif known.get(SUBJECT) != subject:
            raise InputError(f"the training state {folder.name} belongs to another training; delete it to start again")

    def run(
        self,
        name: str,
        work: Callable[..., R],
        jobs: Sequence[tuple[Any, ...]],
        packing: Packing[R],
        workers: int,
        progress: Progress,
        what: str,
    ) -> list[R]:
        """``work(*job)`` for each job, in the order of the jobs; the results of an earlier run are read.

        Args:
            name: of this kind of work, in file names.
            what: names the work to ``progress``.

        Raises:
            InputError: the file of a part is damaged.
        """
        files = [self._folder / f"{name}-{i:05}.part" for i in range(len(jobs))]
        open_jobs = [i for i, file in enumerate(files) if not file.is_file()]
        for i, made in zip(
            open_jobs, parallel(work, [jobs[i] for i in open_jobs], workers, progress, what), strict=True
        ):
            save_state(files[i], packing.pack(made))
        return [packing.unpack(load_state(file) or {}) for file in files]

    def remove(self) -> None:
        """Delete all parts: the result is saved."""
        shutil.rmtree(self._folder, ignore_errors=True)
