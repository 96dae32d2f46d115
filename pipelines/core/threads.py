"""Computing in one thread, where a seed promises the same bytes on every machine, and at the user's priority."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch and numpy's linear algebra compute in one thread: with several, sums are added up in another order, and
    their last bits differ.

    A search that compares many results turns such a bit into another face.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def fix_threads() -> None:
    """Let MKL compute in as many threads as torch, in every process alike.

    Until a number is set, MKL chooses one for each product. So a training that goes on in a new process would add up in
    another order than in a process in which ``one_thread`` was used before.
    """
    import torch

    torch.set_num_threads(torch.get_num_threads())


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The libraries of linear algebra in this process; to find them takes milliseconds."""
    import numpy  # noqa: F401  # loads its library
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def same_priority() -> Iterator[None]:
    """Take back a real-time priority that a library gives to this thread inside the context, and to its own threads.

    SVT-AV1 does so where it may, as root. Other programs, and all that this thread starts later, would hardly run.
    """
    # Only Linux has these calls.
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for task in Path("/proc/self/task").iterdir():
                with suppress(OSError):
                    os.sched_setscheduler(int(task.name), policy, parameters)
