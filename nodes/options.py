"""Conversion of method options to node inputs, and of input values to options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..pipelines.core.errors import InputError
from ..pipelines.core.options import ModelFile, Option, options_of
from ..pipelines.methods.registry import MethodSpec, method_spec, method_specs
from .files import model_stamp, names, path_of
from .sockets import NONE

METHOD = "method"
HAS_DYNAMIC_COMBO = hasattr(io, "DynamicCombo")
"""False in ComfyUI 0.3.64, which has no dynamic combo: all methods use their default options there."""


def method_input() -> Any:
    """Create the input that selects a method, with the inputs of each method where ComfyUI has dynamic combos."""
    specs = list(method_specs().values())
    tip = " ".join(f"{spec.name}: {spec.summary}" for spec in specs)
    if not HAS_DYNAMIC_COMBO:
        return io.Combo.Input(METHOD, options=[spec.name for spec in specs], default=specs[0].name, tooltip=tip)
    options = [io.DynamicCombo.Option(spec.name, [_input(o) for o in options_of(spec.options)]) for spec in specs]
    return io.DynamicCombo.Input(METHOD, options=options, tooltip=tip)


def chosen_method(value: str | Mapping[str, Any]) -> tuple[str, object]:
    """Return the name and the options of the selected method.

    Raises:
        InputError: an option is missing or out of range.
        WeightsError: a file is missing.
    """
    if isinstance(value, str):
        spec = method_spec(value)
        return spec.name, spec.options()
    spec = method_spec(value[METHOD])
    return spec.name, _options(spec, value)


def method_stamp(value: str | Mapping[str, Any] | None) -> str:
    """Return a text that changes when a model file of the selected method changes."""
    if not isinstance(value, Mapping):
        return ""
    options = options_of(method_spec(value[METHOD]).options)
    return "/".join(model_stamp(o.model_file.folders, value.get(o.name)) for o in options if o.model_file is not None)


def _options(spec: MethodSpec, values: Mapping[str, Any]) -> object:
    given = {}
    for o in options_of(spec.options):
        value = values.get(o.name, o.default)
        if o.model_file is not None:
            value = _path(spec.name, o, value, o.model_file)
        elif o.kind is Path:
            # A text field; an empty one names nothing.
            value = Path(value) if value else o.default
        given[o.name] = value
    return spec.options(**given)


def _path(method: str, o: Option, value: object, file: ModelFile) -> Path | None:
    if isinstance(value, Path):
        return value
    if value in (None, NONE) or not _offered(file):
        if o.default is None and not o.required:
            return None
        raise InputError(
            f"the method {method} needs a file for {o.name.replace('_', ' ')}; {file.remedy}, then reload the page"
        )
    return path_of(file.folders, str(value), f"{file.remedy}, then reload the page")


def _offered(file: ModelFile) -> list[str]:
    return names(file.folders, file.suffixes, file.contains)


def _input(o: Option) -> Any:
    """Create the widget of one option."""
    if o.model_file is not None:
        # ComfyUI rejects a combo without options before the node can report the missing file.
        offered = _offered(o.model_file)
        optional = [NONE] if o.default is None else []
        return io.Combo.Input(
            o.name,
            options=[*optional, *offered] or [NONE],
            tooltip=f"{o.help} {o.model_file.remedy[:1].upper()}{o.model_file.remedy[1:]}.",
        )
    if o.kind is bool:
        return io.Boolean.Input(o.name, default=o.default, tooltip=o.help)
    if o.kind is int:
        return io.Int.Input(o.name, default=o.default, min=_whole(o.minimum), max=_whole(o.maximum), tooltip=o.help)
    if o.kind is float:
        return io.Float.Input(o.name, default=o.default, min=o.minimum, max=o.maximum, step=o.step, tooltip=o.help)
    if o.choices:
        return io.Combo.Input(o.name, options=list(o.choices), default=o.default, tooltip=o.help)
    return io.String.Input(o.name, default=o.default or "", tooltip=o.help)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
