"""Options declared once, as fields of a frozen dataclass, for the command line, the nodes and the help pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from .errors import InputError

_KEY = "option"


@dataclass(frozen=True)
class ModelFile:
    """Where the file that an option names is kept.

    Attributes:
        folders: below ComfyUI's models folder, in order of search.
        suffixes: of the file, such as ``.safetensors``.
        contains: a part that the file's path below the folder must contain.
        remedy: what to do where no such file is there, as an imperative clause.
        kind: of the recognizer that the file holds; on the command line it may stand before the path, as KIND:FILE.
    """

    folders: tuple[str, ...]
    suffixes: tuple[str, ...]
    contains: str = ""
    remedy: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: of the dataclass field.
        kind: ``bool``, ``int``, ``float``, ``str`` or ``Path``.
        default: None where there is none.
        required: whether it must be given.
        help: one sentence.
        minimum, maximum, step: of a number.
        choices: of a text; any text where there are none.
        model_file: where the file lies, for a path to one.
    """

    name: str
    kind: type
    default: Any
    required: bool
    help: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    model_file: ModelFile | None = None


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    step: float | None = None,
    choices: Sequence[str] = (),
    model_file: ModelFile | None = None,
) -> Any:
    """A dataclass field with what its users need to know; see ``Option`` for the arguments."""
    facts = {"help": help, "minimum": minimum, "maximum": maximum, "step": step}
    return field(default=default, metadata={_KEY: facts | {"choices": tuple(choices), "model_file": model_file}})


def options_of(cls: type) -> tuple[Option, ...]:
    """The options of a dataclass, in order; fields that were not made by ``option`` are left out."""
    hints = get_type_hints(cls)
    found = []
    for f in fields(cls):
        if _KEY in f.metadata:
            hint = hints[f.name]
            required = f.default is None and type(None) not in get_args(hint)
            found.append(Option(f.name, _plain(hint), f.default, required, **f.metadata[_KEY]))
    return tuple(found)


def check_options(values: object) -> None:
    """Raise where a field lies outside its bounds or choices; for ``__post_init__``.

    Raises:
        InputError: one sentence with the name, the bounds and the value.
    """
    for o in options_of(type(values)):
        value = getattr(values, o.name)
        label = o.name.replace("_", " ")
        if o.choices and value not in o.choices:
            raise InputError(f"{label} {value!r} is not one of {', '.join(o.choices)}")
        if value is None or o.kind not in (int, float):
            continue
        # A comparison with nan is false, so nan is refused as well.
        if (o.minimum is not None and not value >= o.minimum) or (o.maximum is not None and not value <= o.maximum):
            bounds = " and ".join(
                f"{word} {bound:g}"
                for word, bound in (("at least", o.minimum), ("at most", o.maximum))
                if bound is not None
            )
            raise InputError(f"{label} must be {bounds}, got {value}")


def _plain(hint: Any) -> type:
    """``int`` of ``int`` and of ``int | None``."""
    parts = [a for a in get_args(hint) if a is not type(None)]
    return parts[0] if parts else hint
