"""Parts that all commands share: exit codes, text output, the progress bar."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..faces.names import SENSITIVITY_NAMES

OK, SOME_FAILED, USAGE, UNPROTECTED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    "exit codes: 0 success, 1 an input or output failed, 2 wrong usage, 3 a face is not protected, 130 interrupted"
)


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    """Add a command to an ``argparse`` group of subcommands.

    Args:
        run: takes the parsed options and returns the exit code.
        text: help text.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES)
    parser.set_defaults(run=run)
    return parser


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers`` to a command that uses several processes."""
    parser.add_argument("--workers", type=positive, metavar="N", help="processes (default: all cores)")


def positive(text: str) -> int:
    """A whole number of at least 1, for ``argparse``."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def add_sensitivity(parser: Any) -> None:
    """Add ``--sensitivity`` to a command that searches for faces."""
    parser.add_argument(
        "--sensitivity",
        choices=SENSITIVITY_NAMES,
        default="normal",
        help="high finds smaller and more hidden faces in several times the time, with more false detections; maximum"
        " takes everything that could be a head (default: %(default)s)",
    )


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite`` to a command that writes a file."""
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def say(text: str, error: bool = False) -> None:
    """Write one line to standard output, or to standard error."""
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on a terminal; show nothing when the output is redirected."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
