"""One run of ``faceveil anonymize``: open what it needs, treat the files, write what goes beside them."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import FaceVeilError, InputError, PolicyStop
from ..core.files import read_text, write_whole
from ..faces.face import Faces
from ..identity.bank import load_bank
from ..identity.compare import recognizer_named
from ..identity.pseudonym import Pseudonyms
from ..imaging.load import load_image
from ..jobs.folder import TaskResult, run_tasks
from ..jobs.photo import search_identity
from ..jobs.settings import GivenIdentity, Result, Settings
from ..jobs.tasks import Task
from ..methods.identities import MethodIdentity, load_any_identity, save_any_identity
from ..methods.registry import open_method
from ..viz.sheets import preview_rows, stack_rows
from .anonymize import method_options
from .terminal import OK, SOME_FAILED, UNPROTECTED, progress_bar, say

if TYPE_CHECKING:
    from PIL import Image

    from ..methods.base import AnyMethod

MAX_SHARED = 6
"""Images that a shared identity is searched over; more cost time and change little."""


class Run:
    """Opens the method, the plan and the identity that the flags name."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self._options, self._settings = options, settings
        self._faces = Faces.from_json(read_text(options.plan)) if options.plan else None
        self._method = self._opened_method()
        self._recognizers = [recognizer_named(text) for text in options.verify]
        self._given: GivenIdentity | None = None
        if options.identity:
            self._given = load_any_identity(options.identity)
        elif options.pseudonyms:
            bank = load_bank(options.bank) if options.bank else None
            key = options.pseudonyms
            self._given = Pseudonyms.open(key.parent, key.stem, bank=bank, ledger=not options.no_ledger)
        self._rows: list[dict[str, Any]] = []
        self._sheet: list[Image.Image] = []
        self._shown: list[MethodIdentity] = []

    def run(self, tasks: list[Task]) -> int:
        """Treat all files and return the exit code."""
        if self._settings.same_person and self._method is not None:
            self._given = self._shared_identity(tasks, self._method)
        with progress_bar() as progress:
            done = run_tasks(
                tasks,
                self._settings,
                progress,
                self._finished,
                method=self._method,
                identity=self._given,
                faces=self._faces,
                recognizers=self._recognizers,
            )
        code = _conclude(done)
        try:
            self._write_side_files(self._options)
        except FaceVeilError as error:
            say(f"error: {error}", error=True)
            return code if code == UNPROTECTED else SOME_FAILED
        return code

    def _opened_method(self) -> AnyMethod | None:
        if self._settings.redacts_only:
            return None
        return open_method(self._settings.method, method_options(self._options))

    def _shared_identity(self, tasks: list[Task], method: AnyMethod) -> MethodIdentity:
        images = []
        for task in tasks[:MAX_SHARED]:
            # A bad file is reported when its turn comes.
            with suppress(FaceVeilError):
                images.append(load_image(task.source))
        return search_identity(images, self._settings, method)

    def _finished(self, task: Task, result: Result) -> None:
        say(f"{task.target}: " + result.report.text().replace("\n", "\n  "))
        # Numbered by order: a report must not contain the names of source files.
        self._rows.append({"image": len(self._rows), **json.loads(result.report.to_json())})
        if self._options.preview:
            self._sheet += preview_rows(load_image(task.source).pixels, result)
        self._shown += [identity for identity in result.identities if identity is not None]

    def _write_side_files(self, options: argparse.Namespace) -> None:
        if options.report:
            write_whole(options.report, json.dumps(self._rows, indent=2).encode())
        if options.preview and self._sheet:
            write_whole(options.preview, stack_rows(self._sheet))
        if options.save_identity:
            _save_shown(options.save_identity, self._shown)


def _save_shown(path: Path, shown: list[MethodIdentity]) -> None:
    """Save the only identity that was shown.

    Raises:
        InputError: none was shown, or several.
    """
    different = [one for place, one in enumerate(shown) if not any(one is earlier for earlier in shown[:place])]
    if len(different) != 1:
        count = len(different) or "no"
        raise InputError(
            f"{count} identities were shown, so none was saved in {path.name}; choose one face with --faces, or give"
            " all the same identity with --same-person"
        )
    save_any_identity(path, different[0])


def _conclude(done: list[TaskResult]) -> int:
    failed = [d for d in done if d.error is not None]
    for d in failed:
        say(f"failed: {d.task.source.name}: {d.error}", error=True)
    if len(done) > 1:
        say(f"{len(done) - len(failed)} of {len(done)} images done")
    if any(isinstance(d.error, PolicyStop) or (d.report is not None and not d.report.safe) for d in done):
        return UNPROTECTED
    return SOME_FAILED if failed else OK
