"""Process many files: find the inputs, name the outputs, and continue after a file that fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..core.errors import FaceVeilError, unexpected
from ..core.progress import Progress, silent
from ..faces.face import Faces
from ..imaging.load import load_image
from ..imaging.save import save_image
from ..methods.base import AnyMethod
from ..recognition.base import FaceRecognizer
from .photo import anonymize_loaded
from .report import Report
from .settings import GivenIdentity, Result, Settings
from .tasks import Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskResult:
    """The result of a task: a report, or the error that made it fail."""

    task: Task
    report: Report | None = None
    error: FaceVeilError | None = None


def run_tasks(
    tasks: Sequence[Task],
    settings: Settings,
    progress: Progress = silent,
    on_result: Callable[[Task, Result], None] | None = None,
    method: AnyMethod | None = None,
    identity: GivenIdentity | None = None,
    faces: Faces | None = None,
    recognizers: Sequence[FaceRecognizer] = (),
) -> list[TaskResult]:
    """Anonymize files one by one. A file that fails is recorded, and the next one is processed.

    Args:
        on_result: called with every result after its file is written.
        method: as for ``anonymize_batch``, like ``identity``, ``faces`` and ``recognizers``.
    """
    finished = []
    for index, task in enumerate(tasks):
        progress(index, len(tasks), task.source.name)
        try:
            image = load_image(task.source)
            result = anonymize_loaded(image, settings, faces, method, identity, recognizers, in_place=True)
            save_image(result.first, task.target)
        except FaceVeilError as error:
            finished.append(TaskResult(task, error=error))
            continue
        except Exception as error:  # one bad file must not stop the others; interruptions are no Exception
            log.debug("unexpected", exc_info=True)
            finished.append(TaskResult(task, error=unexpected(error)))
            continue
        if on_result is not None:
            on_result(task, result)
        finished.append(TaskResult(task, report=result.report))
    progress(len(tasks), len(tasks), "done")
    return finished
