"""The methods that this installation has: each package beside this file with a module ``spec``.

A spec is cheap to import: it names options and functions, and opens nothing. The command line, the node *Veil Faces*,
``faceveil doctor``, ``faceveil train`` and the help pages read this registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..training.spec import TrainerSpec

if TYPE_CHECKING:
    from .base import AnyMethod

DEFAULT = "appearance"


@dataclass(frozen=True)
class ConverterSpec:
    """One ``faceveil convert-NAME``, which reads a foreign file once.

    Attributes:
        name: of what it converts.
        summary: one clause for ``--help``.
        run: converts the first path to the second, and returns one sentence about the result.
    """

    name: str
    summary: str
    run: Callable[[Path, Path], str]


@dataclass(frozen=True)
class MethodSpec:
    """One method.

    Attributes:
        name: on the command line, in nodes and in reports.
        title: for people.
        summary: one sentence: what it does and what it needs.
        options: a frozen dataclass of ``core.options.option`` fields.
        open: opens the method with such options; imports and loads only then.
        identity_space: name of the space whose identities the method shows; empty where it shows none.
        one_thread: whether it computes on the CPU in one thread, so that a folder is spread over processes.
        needs: names of the weights cards of files that the user must get.
        check: says in a clause what an installation has, for ``faceveil doctor``; raises FaceVeilError where it cannot
            run.
        trainers: what ``faceveil train`` offers for it.
        converters: commands that convert its files.
    """

    name: str
    title: str
    summary: str
    options: type[Any]
    open: Callable[[Any], AnyMethod]
    check: Callable[[], str]
    identity_space: str = ""
    one_thread: bool = False
    needs: tuple[str, ...] = ()
    trainers: tuple[TrainerSpec[Any], ...] = ()
    converters: tuple[ConverterSpec, ...] = ()


def method_specs() -> dict[str, MethodSpec]:
    """All methods by name, the default first."""
    package = importlib.import_module(__package__ or "")
    names = [m.name for m in pkgutil.iter_modules(package.__path__) if m.ispkg]
    found = [importlib.import_module(f"{__package__}.{name}.spec").SPEC for name in sorted(names)]
    return {spec.name: spec for spec in sorted(found, key=lambda spec: spec.name != DEFAULT)}


def method_spec(name: str) -> MethodSpec:
    """One method.

    Raises:
        InputError: there is none of this name.
    """
    specs = method_specs()
    if name not in specs:
        raise InputError(f"method {name!r} is not one of {', '.join(specs)}")
    return specs[name]


def open_method(name: str, options: object | None = None) -> AnyMethod:
    """Open a method, with its default options when none are given.

    Raises:
        InputError: there is no such method, or an option is missing or out of range.
        WeightsError: a weights file cannot be used.
    """
    spec = method_spec(name)
    return spec.open(spec.options() if options is None else options)
