"""Spread work over processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from .errors import InputError
from .progress import Progress

MAX_CHUNK = 32
"""Jobs that a process fetches at once."""
R = TypeVar("R")


def parallel(
    work: Callable[..., R],
    jobs: Sequence[tuple[Any, ...]],
    workers: int,
    progress: Progress,
    what: str,
    chunk: int | None = None,
) -> Iterator[R]:
    """``work(*job)`` for each job in order, in processes of one thread each; in this process for one worker.

    An exception, also one that ``progress`` raises, stops the processes at once.

    Args:
        what: names the work to ``progress``, which is called first and after each job.
        chunk: jobs that a process fetches at once; at most ``MAX_CHUNK``, fewer for few jobs, when omitted.

    Raises:
        InputError: a process was killed.
    """
    progress(0, len(jobs), what)
    results = (work(*job) for job in jobs) if workers == 1 or not jobs else _elsewhere(work, jobs, workers, chunk)
    for done, result in enumerate(results):
        progress(done + 1, len(jobs), what)
        yield result


def _elsewhere(work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], workers: int, chunk: int | None) -> Iterator[R]:
    others = set(multiprocessing.active_children())
    # Forking a process that runs torch threads can hang.
    context = multiprocessing.get_context("spawn")
    chunk = chunk or max(1, min(MAX_CHUNK, len(jobs) // (4 * workers)))
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_prepare)
    try:
        yield from pool.map(work, *zip(*jobs, strict=True), chunksize=chunk)
    except BrokenProcessPool:
        raise InputError("a process was killed, probably because the memory is full; use fewer processes") from None
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
