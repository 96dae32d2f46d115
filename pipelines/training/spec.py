"""How a trainer is announced to the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ..core.progress import Progress

O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class TrainerSpec(Generic[O]):
    """One ``faceveil train NAME``.

    Attributes:
        name: of the command.
        summary: one clause for ``--help``.
        options: a frozen dataclass of ``core.options.option`` fields.
        run: trains, writes the weights, and returns one sentence about the result.
        writes: the files and folders that a training with these options would replace.
    """

    name: str
    summary: str
    options: type[O]
    run: Callable[[O, Progress], str]
    writes: Callable[[O], Sequence[Path]]
