"""The command line: ``faceveil anonymize photo.jpg``."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from importlib.metadata import version

from ..core.errors import FaceVeilError, PolicyStop, unexpected
from . import anonymize, inspect, make, train, vault, videos
from .flags import CommandParser
from .terminal import EXIT_CODES, INTERRUPTED, SOME_FAILED, UNPROTECTED, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    # A warning of a library would stand before our sentence, and says nothing to a user.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if options.debug else logging.ERROR)
    if options.debug:
        # Only ours: the libraries below log a lot.
        logging.getLogger(__name__.removesuffix(".cli")).setLevel(logging.DEBUG)
    try:
        return int(options.run(options))
    except PolicyStop as error:
        say(f"stopped: {error}", error=True)
        return UNPROTECTED
    except FaceVeilError as error:
        say(f"error: {error}", error=True)
        return SOME_FAILED
    except MemoryError:
        say("error: the memory is full; use smaller images or close other programs", error=True)
        return SOME_FAILED
    except Exception as error:  # the last resort: a user gets a sentence, a developer the traceback with --debug
        if options.debug:
            raise
        say(f"error: {unexpected(error)}", error=True)
        return SOME_FAILED
    except KeyboardInterrupt:
        say("interrupted; finished files are whole, the current one was not written", error=True)
        return INTERRUPTED
    finally:
        logging.captureWarnings(False)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="faceveil",
        description="Take a person's identity out of photos and videos and keep everything else.",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"faceveil {version('faceveil')}")
    top.add_argument("--debug", action="store_true", help="show where an unexpected error comes from")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    for module in (anonymize, videos, vault, inspect, make, train):
        module.add_commands(commands)
    return top
