"""Treat one file as the flags of ``faceveil anonymize`` say; also in a process of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..core.errors import FaceVeilError
from ..core.files import read_text
from ..faces.face import Faces
from ..identity.bank import load_bank
from ..identity.compare import recognizer_named
from ..identity.pseudonym import Pseudonyms
from ..imaging.image import LoadedImage
from ..imaging.load import load_image
from ..jobs.folder import treat_file
from ..jobs.photo import anonymize_loaded
from ..jobs.report import Report
from ..jobs.settings import GivenIdentity, Result
from ..jobs.tasks import Task
from ..methods.base import AnyMethod
from ..methods.identities import MethodIdentity, load_any_identity
from ..methods.registry import open_method
from ..viz.sheets import preview_rows
from .anonymize import method_options, settings_from


@dataclass(frozen=True)
class Treated:
    """What is left of a treated file, small enough to be sent to another process.

    Attributes:
        report: what was done; None where the file failed.
        error: why it failed.
        identities: what is shown on the replaced faces.
        rows: for the preview sheet.
    """

    task: Task
    report: Report | None = None
    error: FaceVeilError | None = None
    identities: Sequence[MethodIdentity] = ()
    rows: Sequence[Image.Image] = ()


class Opened:
    """The settings, the method, the plan and the identity that the flags name.

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
        self._faces = Faces.from_json(read_text(options.plan)) if options.plan else None
        self._recognizers = [recognizer_named(text) for text in options.verify]

    def treat(self, task: Task) -> Treated:
        """Treat one file; an error is part of the result."""
        try:
            result = treat_file(task, self._treat)
            shown = [one for one in result.identities if one is not None]
            rows = preview_rows(load_image(task.source).pixels, result) if self.options.preview else []
            return Treated(task, result.report, identities=shown, rows=rows)
        except FaceVeilError as error:
            return Treated(task, error=error)

    def _treat(self, image: LoadedImage) -> Result:
        return anonymize_loaded(
            image, self.settings, self._faces, self.method, self.identity, self._recognizers, in_place=True
        )


def _identity(options: argparse.Namespace) -> GivenIdentity | None:
    if options.identity:
        return load_any_identity(options.identity)
    if options.pseudonyms:
        bank = load_bank(options.bank) if options.bank else None
        key = options.pseudonyms
        return Pseudonyms.open(key.parent, key.stem, bank=bank, ledger=not options.no_ledger)
    return None
