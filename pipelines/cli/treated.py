"""What is left of a treated file. Cheap to import: the process that only hands out the files loads no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import FaceVeilError
from ..jobs.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

    from ..jobs.report import AnyReport
    from ..methods.identities import MethodIdentity


@dataclass(frozen=True)
class Treated:
    """What is left of a treated file, small enough to be sent to another process.

    Attributes:
        report: what was done; None where the file failed.
        error: why it failed.
        identities: what is shown on the replaced faces, where the run saves it.
        rows: for the preview sheet.
    """

    task: Task
    report: AnyReport | None = None
    error: FaceVeilError | None = None
    identities: Sequence[MethodIdentity] = ()
    rows: Sequence[Image.Image] = ()
