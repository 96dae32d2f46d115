"""Work in other processes: order, errors, interruption."""

from __future__ import annotations

import math
import multiprocessing
import os
import time

import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.parallel import parallel
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
