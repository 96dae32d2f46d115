"""Spread work over processes, and compute items ahead in a thread."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from .errors import WorkerLost
from .progress import Progress

MAX_CHUNK = 32
"""Jobs that a process fetches at once."""
POLL_SECONDS = 0.25
PROCESS_MEMORY, FALLBACK_PROCESSES = 2 * 1024**3, 2
"""Bytes of memory for one process: 1 GB and a large image; and the number where the memory's size is unknown."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
R = TypeVar("R")
T = TypeVar("T")


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
        WorkerLost: a process was killed.
    """
    progress(0, len(jobs), what)
    results = (work(*job) for job in jobs) if workers == 1 or not jobs else _elsewhere(work, jobs, workers, chunk)
    for done, result in enumerate(results):
        progress(done + 1, len(jobs), what)
        yield result


def _elsewhere(work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], count: int, chunk: int | None) -> Iterator[R]:
    chunk = chunk or max(1, min(MAX_CHUNK, len(jobs) // (4 * count)))
    with Workers(count) as workers:
        yield from workers.map(work, jobs, chunk)


class Workers:
    """Processes of one thread each for all work of one job. The end of the ``with`` block stops them, an exception at
    once.

    They are started by the first work they get.

    Args:
        count: of processes.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None
        self._others: set[Any] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, work: Callable[..., R], *arguments: Any) -> Future[R]:
        """Begin some work; ``result`` waits for it."""
        try:
            with _one_thread_each():
                return self._started().submit(work, *arguments)
        except BrokenProcessPool:
            raise _lost() from None

    def map(self, work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], chunk: int) -> Iterator[R]:
        """``work(*job)`` for each job in order; a process fetches ``chunk`` of them at once.

        Raises:
            WorkerLost: a process was killed.
        """
        try:
            # All processes are started when the work is submitted.
            with _one_thread_each():
                results = self._started().map(work, *zip(*jobs, strict=True), chunksize=chunk)
            yield from results
        except BrokenProcessPool:
            raise _lost() from None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._others = set(multiprocessing.active_children())
            # Forking a process that runs torch threads can hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_prepare)
        return self._pool


def fitting_memory() -> int:
    """How many processes fit into the machine's memory; a guess where the system does not tell its size."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return FALLBACK_PROCESSES
    return max(1, memory // PROCESS_MEMORY)


def result(future: Future[R], while_waiting: Callable[[], None]) -> R:
    """The result of submitted work; ``while_waiting`` is called a few times a second, and may raise to interrupt.

    Raises:
        WorkerLost: a process was killed.
    """
    while not wait([future], POLL_SECONDS).done:
        while_waiting()
    try:
        return future.result()
    except BrokenProcessPool:
        raise _lost() from None


def _lost() -> WorkerLost:
    return WorkerLost("a process was killed, probably because the memory is full; use fewer processes")


def one_thread_here() -> None:
    """Let this process compute in one thread; another process has the other cores."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _prepare() -> None:
    one_thread_here()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def streamed(
    work: Callable[..., R], jobs: Iterable[tuple[T, tuple[Any, ...] | None]], workers: Workers, ahead: int
) -> Iterator[tuple[T, R | None]]:
    """Do the work of a stream of jobs in order; at most ``ahead`` of them are under way.

    Args:
        jobs: pairs of what is handed through and the arguments of ``work``; None where there is nothing to do.
        workers: for one of them the work is done in this process.

    Returns:
        What was handed through, and the result of its work.

    Raises:
        WorkerLost: a process was killed.
    """
    if workers.count == 1:
        yield from ((item, None if arguments is None else work(*arguments)) for item, arguments in jobs)
        return
    waiting: deque[tuple[T, Future[R] | None]] = deque()
    for item, arguments in jobs:
        waiting.append((item, None if arguments is None else workers.submit(work, *arguments)))
        while waiting and (len(waiting) > ahead or waiting[0][1] is None):
            first, future = waiting.popleft()
            yield first, None if future is None else result(future, _wait_on)
    for first, future in waiting:
        yield first, None if future is None else result(future, _wait_on)


def _wait_on() -> None:
    """Nothing to do while work is under way; the caller is interrupted where it takes the results."""


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The items, up to ``count`` of them computed ahead in a thread; its exceptions are raised here."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # it belongs to the reader
            put((False, error))

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        thread.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Start processes whose linear algebra uses one thread: the libraries read this once, when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
