"""Treat one of many files: whatever goes wrong with it is one sentence, so that the next one can be treated."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..core.errors import FaceVeilError, unexpected
from ..imaging.image import LoadedImage
from ..imaging.load import load_image
from ..imaging.save import save_image
from .settings import Result
from .tasks import Task

log = logging.getLogger(__name__)


def treat_file(task: Task, treat: Callable[[LoadedImage], Result]) -> Result:
    """Read a file, treat it, and write the result.

    Raises:
        FaceVeilError: the file cannot be treated; nothing was written.
    """
    try:
        result = treat(load_image(task.source))
        save_image(result.first, task.target)
        return result
    except FaceVeilError:
        raise
    except Exception as error:  # one bad file must not stop the others; interruptions are no Exception
        log.debug("unexpected", exc_info=True)
        raise unexpected(error) from error
