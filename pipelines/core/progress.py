"""Progress of long loops: the callback that the command line, a node or a test supplies."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Progress = Callable[[int, int, str], None]
"""``(done, total, what)``. It may raise an exception to interrupt the loop; the loop must not catch it."""


PART_STEPS = 100
"""Steps that a part is divided into."""


Preview = Callable[["Tensor"], None]
"""Shows a finished part of an image ``(1, 3, H, W)`` to the user, before the rest is done."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""


def part_of(progress: Progress, done: int, count: int, offset: int = 0) -> Progress:
    """The progress of one of ``count`` equal parts, of which ``done`` are finished; each step can be interrupted.

    Args:
        offset: parts before these, which ``count`` includes.
    """

    def report(step: int, steps: int, what: str) -> None:
        # Whole numbers only: hosts draw their bar from them.
        progress(
            (offset + done) * PART_STEPS + min(PART_STEPS, PART_STEPS * step // max(steps, 1)), count * PART_STEPS, what
        )

    return report


def unseen(image: Tensor) -> None:
    """Show nothing."""
