"""Spread the files of a run over a cluster with Ray Data: the same work as in processes, on many machines.

Each worker is an actor that opens the method once. Ray starts lost workers again and repeats what they were doing;
outputs are written whole or not at all, so a repeated file ends as if nothing had happened. All machines must see the
inputs and outputs under the same paths, or as URLs.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from ..core.errors import InputError, WorkerLost
from ..core.files import short_reason
from ..core.parallel import Workers, one_thread_here
from ..core.progress import Progress

R = TypeVar("R")
MAX_BLOCKS = 1000
"""Blocks that the files are divided into; a lost worker repeats one."""
RESTARTS = 3
"""Times that a lost helper is started again, and that its work is repeated."""
REACH_SECONDS = 5.0
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Cluster:
    """Where a run is computed.

    Attributes:
        workers: actors.
        address: of an existing cluster; None starts one on this machine.
        gpus: share of a graphics chip for each actor.
    """

    workers: int
    address: str | None = None
    gpus: float = 0.0


class _Worker:
    """An actor of Ray: does one job of a run."""

    def __init__(self) -> None:
        one_thread_here()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        work, job = pickle.loads(row["job"])
        return {"result": pickle.dumps(work(*job))}


def on_cluster(
    work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], cluster: Cluster, progress: Progress, what: str
) -> Iterator[R]:
    """``work(*job)`` for each job, in order.

    Args:
        what: names the work to ``progress``, which is called first and after each job.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
        WorkerLost: a worker keeps dying.
    """
    ray = _start(cluster)
    progress(0, len(jobs), what)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"job": pickle.dumps((work, job))} for job in jobs]
        # Ray Data takes classes, too, and makes an actor's instance of them.
        worker: Any = _Worker
        found = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map(
            worker,
            concurrency=min(cluster.workers, len(rows)),
            num_cpus=1,
            num_gpus=cluster.gpus or None,
        )
        for done, row in enumerate(found.iter_rows()):
            progress(done + 1, len(jobs), what)
            yield pickle.loads(row["result"])
    except ray.exceptions.RayError as error:
        raise _failed(error) from None
    finally:
        ray.shutdown()


class _Helper:
    """An actor of Ray: does what ``ClusterWorkers`` are asked, one thing after the other."""

    def __init__(self) -> None:
        one_thread_here()

    def do(self, packed: bytes) -> bytes:
        work, arguments = pickle.loads(packed)
        try:
            return pickle.dumps((True, work(*arguments)))
        except Exception as error:  # it belongs to the caller
            return pickle.dumps((False, error))


class ClusterWorkers(Workers):
    """Workers of a cluster for all work of one job: parts and frames of a video. Ray starts lost ones again and repeats
    what they were doing.

    The ``with`` statement starts them.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.workers)
        self._cluster = cluster
        self._ray: Any = None
        self._helpers: list[Any] = []
        self._given = 0

    def __enter__(self) -> Self:
        self._ray = _start(self._cluster)
        options = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS, "num_cpus": 1}
        actor = self._ray.remote(**options)(_Helper)
        self._helpers = [actor.remote() for _ in range(self.count)]
        return self

    @property
    def used(self) -> int:
        """How much work they were given."""
        return self._given

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        self._helpers = []

    def submit(self, work: Callable[..., R], *arguments: Any) -> Future[R]:
        helper = self._helpers[self._given % self.count]
        self._given += 1
        outer: Future[R] = Future()
        outer.set_running_or_notify_cancel()
        inner = helper.do.remote(pickle.dumps((work, arguments))).future()
        inner.add_done_callback(lambda done: _hand_on(done, outer))
        return outer

    def map(self, work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], chunk: int) -> Iterator[R]:
        futures = [self.submit(work, *job) for job in jobs]
        yield from (future.result() for future in futures)


def _hand_on(done: Future[bytes], outer: Future[R]) -> None:
    """Give the result of a helper, or its error, to the one who waits for it."""
    try:
        fine, value = pickle.loads(done.result())
    except Exception as error:  # Ray's own errors, and those of the network
        outer.set_exception(_failed(error))
        return
    if fine:
        outer.set_result(value)
    else:
        outer.set_exception(value)


def _failed(error: Exception) -> WorkerLost:
    return WorkerLost(f"the cluster failed ({short_reason(error)}); run again with --resume")


def _start(cluster: Cluster) -> Any:
    """Ray, connected to the cluster."""
    # Ray would report its use to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray.data
    except ImportError:
        raise InputError('--cluster needs Ray; install it with: pip install "faceveil[cluster]"') from None
    # Its functions are typed for other arguments than its documentation gives them.
    module: Any = ray
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "runtime_env": {"env_vars": _THREADS}}
    try:
        if cluster.address is not None:
            _check_reachable(cluster.address)
            module.init(address=cluster.address, **quiet)
        else:
            module.init(num_cpus=max(cluster.workers, 1), include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = cluster.address or "this machine"
        raise InputError(f"no Ray cluster could be reached on {where} ({short_reason(error)})") from None
    return module


def _check_reachable(address: str) -> None:
    """Raise where nothing answers; Ray itself would wait for minutes, and then end the program.

    Raises:
        OSError: nothing answers, or the address is none.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise OSError("an address is HOST:PORT")
    socket.create_connection((host, int(port)), REACH_SECONDS).close()
