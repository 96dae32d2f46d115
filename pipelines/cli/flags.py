"""Command-line flags from the option dataclasses of methods and trainers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..core.options import Option, options_of

T = TypeVar("T")


def add_options(parser: Any, cls: type, prefix: str = "") -> None:
    """Add a flag for each option of ``cls``: ``--PREFIX-NAME``.

    Args:
        parser: an ``argparse`` parser or argument group.
    """
    for o in options_of(cls):
        arguments: dict[str, Any] = {"dest": _destination(prefix, o), "help": _help(o), "default": o.default}
        if o.kind is bool:
            arguments["action"] = "store_true"
        else:
            arguments |= {
                "type": _type(o),
                "required": o.required,
                "metavar": _metavar(o),
                "choices": o.choices or None,
            }
        names = [_flag(prefix, o)]
        if o.name == "output" and not prefix:
            names.insert(0, "-o")
        parser.add_argument(*names, **arguments)


class CommandParser(argparse.ArgumentParser):
    """A command's parser that also takes the chosen method's flags without the method's name: ``--METHOD-steps`` as
    ``--steps``, where the command has no flag of that name."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(None if args is None else self._with_method(args), namespace)

    def _with_method(self, arguments: Sequence[str]) -> list[str]:
        known = self._option_string_actions
        end = arguments.index("--") if "--" in arguments else len(arguments)
        # As for any flag, the last one counts.
        method = ""
        for place, argument in enumerate(arguments[:end]):
            if argument == "--method":
                method = "".join(arguments[place + 1 : place + 2])
            elif argument.startswith("--method="):
                method = argument.partition("=")[2]
        found = []
        for argument in arguments[:end]:
            flag, separator, value = argument.partition("=")
            longer = f"--{method}-{flag.removeprefix('--')}"
            own = method and flag.startswith("--") and flag not in known and longer in known
            found.append(f"{longer}{separator}{value}" if own else argument)
        return [*found, *arguments[end:]]


def options_from(namespace: argparse.Namespace, cls: type[T], prefix: str = "") -> T:
    """The options that were given on the command line.

    Raises:
        InputError: a value is out of its range.
    """
    return cls(**{o.name: getattr(namespace, _destination(prefix, o)) for o in options_of(cls)})


def given_flags(namespace: argparse.Namespace, cls: type, prefix: str) -> list[str]:
    """Flags of ``cls`` whose value is not the default."""
    return [_flag(prefix, o) for o in options_of(cls) if getattr(namespace, _destination(prefix, o)) != o.default]


def given_paths(namespace: argparse.Namespace, cls: type, prefix: str) -> list[Path]:
    """Paths of ``cls`` that are not the default."""
    values = {o: getattr(namespace, _destination(prefix, o)) for o in options_of(cls) if o.kind is Path}
    return [value for o, value in values.items() if value not in (None, o.default)]


def _flag(prefix: str, o: Option) -> str:
    return "--" + "-".join(part for part in (prefix, o.name.replace("_", "-")) if part)


def _destination(prefix: str, o: Option) -> str:
    return "_".join(part for part in (prefix, o.name) if part)


def _type(o: Option) -> Callable[[str], object]:
    kind = "" if o.model_file is None else o.model_file.kind
    if not kind:
        return o.kind
    return lambda text: o.kind(text.removeprefix(f"{kind}:"))


def _metavar(o: Option) -> str | None:
    if o.choices:
        return None
    return "PATH" if o.kind is Path else {int: "N", float: "X"}.get(o.kind, "TEXT")


def _help(o: Option) -> str:
    text = o.help.rstrip(".")
    return text if o.default in (None, False, "") else f"{text} (default: {o.default})"
