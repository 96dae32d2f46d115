"""Progress of long loops: one callback that a command line, a node or a test supplies."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""``(done, total, what)``; it may raise to interrupt the loop, and the loop must let that through."""


def silent(done: int, total: int, what: str) -> None:
    """Report nothing."""
