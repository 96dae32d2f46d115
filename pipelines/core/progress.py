"""Progress of long loops: the callback that the command line, a node or a test supplies."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""``(done, total, what)``. It may raise an exception to interrupt the loop; the loop must not catch it."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""
