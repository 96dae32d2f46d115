"""Computing in one thread, where a seed promises the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
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


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    """The libraries of linear algebra in this process; to find them takes milliseconds."""
    import numpy  # noqa: F401  # loads its library
    import scipy.linalg  # noqa: F401  # has one of its own
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
