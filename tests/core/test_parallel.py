"""Work in other processes: order, errors, interruption."""

from __future__ import annotations

import math
import multiprocessing
import os
import time

import pytest
from faceveil.pipelines.core.errors import InputError, WorkerLost
from faceveil.pipelines.core.parallel import Workers, parallel, result, streamed
from faceveil.pipelines.core.progress import silent


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers) -> None:
    seen = []
    jobs = [(n,) for n in (9.0, 4.0, 1.0)]
    found = list(parallel(math.sqrt, jobs, workers, lambda *step: seen.append(step), "roots"))
    assert found == [3, 2, 1]
    assert seen == [(i, 3, "roots") for i in range(4)]


def test_an_error_in_a_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(parallel(math.sqrt, [(1.0,), (-1.0,)], 2, silent, "roots"))


def test_a_killed_process_is_one_sentence() -> None:
    with pytest.raises(InputError, match="a process was killed"):
        list(parallel(os._exit, [(9,)], 2, silent, "exits"))


def test_an_interruption_stops_the_processes_at_once() -> None:
    began = time.monotonic()

    def interrupt(done: int, total: int, what: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(parallel(time.sleep, [(0.0,), (600.0,), (600.0,)], 2, interrupt, "sleep", chunk=1))
    assert time.monotonic() - began < 300
    assert not multiprocessing.active_children()


def test_a_stream_keeps_its_order_and_hands_through_what_needs_no_work() -> None:
    jobs = [("a", (4.0,)), ("b", None), ("c", (9.0,)), ("d", (16.0,))]
    for count in (1, 2):
        with Workers(count) as workers:
            assert list(streamed(math.sqrt, iter(jobs), workers, 2)) == [("a", 2), ("b", None), ("c", 3), ("d", 4)]
    assert not multiprocessing.active_children()


def test_a_stream_tells_of_a_killed_process() -> None:
    with pytest.raises(WorkerLost, match="a process was killed"), Workers(2) as workers:
        list(streamed(os._exit, iter([("a", (9,)), ("b", (9,))]), workers, 2))


def test_waiting_for_a_result_can_be_interrupted() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        result(workers.submit(time.sleep, 600.0), interrupt)
    assert time.monotonic() - began < 300
    assert not multiprocessing.active_children()


def test_an_error_of_the_work_is_no_wait() -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"), Workers(2) as workers:
        result(workers.submit(math.sqrt, -1.0), lambda: None)


def test_processes_have_one_thread() -> None:
    with Workers(2) as workers:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        assert [result(workers.submit(os.getenv, name), lambda: None) for name in names] == ["1", "1"]
