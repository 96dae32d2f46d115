"""Treat one file as the flags of ``faceveil anonymize`` say; also in a process of its own."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from ..core.errors import FaceVeilError, OutputError, unexpected
from ..core.files import exists, read_text
from ..core.parallel import Workers
from ..core.progress import Progress, silent
from ..faces.face import Faces
from ..identity.bank import load_bank
from ..identity.compare import recognizer_named
from ..identity.pseudonym import Pseudonyms
from ..imaging.image import LoadedImage
from ..imaging.load import load_image
from ..imaging.video import VideoSource
from ..jobs.folder import treat_file
from ..jobs.manifest import Manifest, Resumed, digest
from ..jobs.photo import Watch, anonymize_loaded
from ..jobs.remote import staged
from ..jobs.restore import ImageSealer, digest_of_video
from ..jobs.settings import GivenIdentity, Result
from ..jobs.tasks import Task
from ..jobs.vault import VaultWriter
from ..methods.base import AnyMethod
from ..methods.identities import load_any_identity
from ..methods.registry import open_method
from ..viz.sheets import preview_rows
from .anonymize import method_options, settings_from
from .resume import id_of, manifest_folder, remote_notes
from .treated import Treated
from .vault import secret_from
from .videos import job_from, open_source, plan_from

log = logging.getLogger(__name__)


class Opened:
    """The settings, the method, the plan and the identity that the flags name.

    Attributes:
        identity: shown instead of searched ones.
        workers: of a cluster, over which videos are spread.

    Raises:
        FaceVeilError: one of them cannot be used.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings = settings_from(options)
        self.method: AnyMethod | None = None
        if not self.settings.redacts_only:
            self.method = open_method(self.settings.method, method_options(options))
        self.identity: GivenIdentity | None = _identity(options)
        self.recognizers = [recognizer_named(text) for text in options.verify]
        self.workers: Workers | None = None
        folder = manifest_folder(options)
        self._manifest = None if folder is None else Manifest(folder)

    def treat(self, task: Task, progress: Progress = silent) -> Treated:
        """Treat one file; an error is part of the result.

        Args:
            progress: of a video; images are treated at once.
        """
        try:
            if task.target_url:
                return self._treat_remote(task, progress)
            if task.source_url:
                with staged(task) as local:
                    return replace(self._treat_local(local, progress), task=task)
            return self._treat_local(task, progress)
        except FaceVeilError as error:
            return Treated(task, error=error)

    def _treat_local(self, task: Task, progress: Progress) -> Treated:
        # What is no file, such as a pipe, has no content to note: reading it would wait forever.
        if self._manifest is None or not (exists(task.source) and task.source.is_file()):
            return self._treat(task, progress)
        return self._noted(self._manifest, task, progress)

    def _noted(self, manifest: Manifest, task: Task, progress: Progress) -> Treated:
        """Treat a file, and note it in the manifest; what an earlier run has finished is left alone."""
        name = id_of(self.options, task)
        if self.options.resume and (entry := manifest.finished(name, task.target)) is not None:
            return Treated(task, Resumed(entry.report, entry.exposed))
        if self.options.resume and exists(task.target) and not self.options.overwrite:
            return self._compared(manifest, task, name, progress)
        manifest.start(name, task.target)
        try:
            treated = self._treat(task, progress)
        except FaceVeilError as error:
            # Not the message: it has the name of the source.
            manifest.fail(name, task.target, type(error).__name__)
            raise
        assert treated.report is not None
        manifest.finish(name, task.target, treated.report.exposed, json.loads(treated.report.to_json()))
        return treated

    def _treat_remote(self, task: Task, progress: Progress) -> Treated:
        """Treat a file behind a URL, and note it where the output is a folder behind one."""
        notes = remote_notes(self.options)
        name = "" if notes is None else id_of(self.options, task)
        if notes is not None:
            if self.options.resume and (entry := notes.finished(name, task, self.options.overwrite)) is not None:
                return Treated(task, Resumed(entry.report, entry.exposed))
            notes.write(name, task, "started")
        try:
            with staged(task, self.options.overwrite) as local:
                treated = self._treat(local, progress)
        except FaceVeilError as error:
            if notes is not None:
                notes.write(name, task, "failed", reason=type(error).__name__)
            raise
        assert treated.report is not None
        if notes is not None:
            notes.write(name, task, "done", treated.report.exposed, report=json.loads(treated.report.to_json()))
        return replace(treated, task=task)

    def _compared(self, manifest: Manifest, task: Task, name: str, progress: Progress) -> Treated:
        """Treat a file whose output exists although no run has finished it: it may be ours, or the user's."""
        changed = OutputError(
            f"{task.target.name} was made with other settings, from another file, or changed since; add --overwrite, or"
            " name another output"
        )
        if not manifest.is_ours(task.target):
            raise changed
        with TemporaryDirectory() as folder:
            again = Path(folder) / task.target.name
            treated = self._treat(Task(task.source, again), progress)
            if digest(again) != digest(task.target):
                raise changed
        assert treated.report is not None
        manifest.finish(name, task.target, treated.report.exposed, json.loads(treated.report.to_json()))
        return replace(treated, task=task)

    def _treat(self, task: Task, progress: Progress) -> Treated:
        if task.is_video:
            return self._treat_video(task, progress)
        result = treat_file(task, self._anonymized) if not self.options.vault else self._sealed(task)
        shown = [one for one in result.identities if one is not None] if self.options.save_identity else []
        rows = preview_rows(load_image(task.source).pixels, result) if self.options.preview else []
        return Treated(task, result.report, identities=shown, rows=rows)

    def _sealed(self, task: Task) -> Result:
        """Treat an image, and seal its original faces."""
        original = load_image(task.source)
        with VaultWriter(self.options.vault, secret_from(self.options, new=True)) as vault:
            sealer = ImageSealer(vault, original)
            result = treat_file(task, lambda image: self._anonymized(image, sealer.seen))
            _finish(vault, task.target, lambda: sealer.seal(task.target))
        return result

    def _treat_video(self, task: Task, progress: Progress) -> Treated:
        job = job_from(self)
        try:
            plan = plan_from(self.options, task.source)
            source = open_source(task.source, self.options, plan)
            with self._vault() as vault:
                if plan is not None:
                    report = job.render(source, plan, task.target, progress=progress, vault=vault)
                else:
                    report = job.run(source, task.target, progress, vault=vault)
                if vault is not None:
                    _finish(vault, task.target, lambda: digest_of_video(VideoSource(task.target), progress))
        except (FaceVeilError, MemoryError):
            raise
        except Exception as error:  # one bad file must not stop the others; interruptions are no Exception
            log.debug("unexpected", exc_info=True)
            raise unexpected(error) from error
        return Treated(task, report)

    def _vault(self) -> AbstractContextManager[VaultWriter | None]:
        options = self.options
        return VaultWriter(options.vault, secret_from(options, new=True)) if options.vault else nullcontext()

    def _anonymized(self, image: LoadedImage, watch: Watch | None = None) -> Result:
        return anonymize_loaded(
            image, self.settings, self._faces, self.method, self.identity, self.recognizers, in_place=True, watch=watch
        )

    @cached_property
    def _faces(self) -> Faces | None:
        """The plan of an image."""
        return Faces.from_json(read_text(self.options.plan)) if self.options.plan else None


def _finish(vault: VaultWriter, target: Path, digest_of_target: Callable[[], str]) -> None:
    """Complete the vault of a written result; without its vault, the result would look as if it could be restored."""
    try:
        vault.finish(digest_of_target())
    except FaceVeilError:
        target.unlink(missing_ok=True)
        raise


def _identity(options: argparse.Namespace) -> GivenIdentity | None:
    if options.identity:
        return load_any_identity(options.identity)
    if options.pseudonyms:
        bank = load_bank(options.bank) if options.bank else None
        key = options.pseudonyms
        return Pseudonyms.open(key.parent, key.stem, bank=bank, ledger=not options.no_ledger)
    return None
