"""Spread work over processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch

from ..core.progress import Progress

MAX_CHUNK = 32
"""Jobs that a process fetches at once."""
R = TypeVar("R")


def parallel(
    work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], workers: int, progress: Progress, what: str
) -> Iterator[R]:
    """``work(*job)`` for each job in order, in processes of one thread each; in this process for one worker.

    Args:
        what: names the work to ``progress``, which is called after each job.
    """
    for done, result in enumerate(_results(work, jobs, workers)):
        progress(done + 1, len(jobs), what)
        yield result


def _results(work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[R]:
    if workers == 1 or not jobs:
        yield from (work(*job) for job in jobs)
        return
    # Forking a process that runs torch threads can hang.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, min(MAX_CHUNK, len(jobs) // (4 * workers)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(work, *zip(*jobs, strict=True), chunksize=chunk)
