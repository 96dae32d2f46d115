"""Run a template in this process: each node in order, with the values of its widgets and links."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
_EXTRAS = ("nodes_custom_sampler", "nodes_flux")
_CONTROLS = ("fixed", "increment", "decrement", "randomize")
_NOTES = ("MarkdownNote", "PreviewImage")


def run_template(
    path: Path,
    ours: Mapping[str, Any],
    changed: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, tuple[Any, ...]],
) -> dict[str, tuple[Any, ...]]:
    """Results of the nodes by their type; of several of one type the last.

    Args:
        ours: node classes of the pack by their id.
        changed: inputs of nodes by their type, instead of the template's.
        given: results of nodes that are not run, by their type.
    """
    graph = json.loads(path.read_text(encoding="utf-8"))
    links = {link[0]: (link[1], link[2]) for link in graph["links"]}
    results: dict[int, tuple[Any, ...]] = {}
    found: dict[str, tuple[Any, ...]] = {}
    for node in sorted(graph["nodes"], key=lambda n: n["order"]):
        kind = node["type"]
        if kind in _NOTES:
            continue
        if kind not in given:
            inputs = _widgets(ours, kind, list(node["widgets_values"]))
            for item in node["inputs"]:
                if item["link"] is not None:
                    source, slot = links[item["link"]]
                    inputs[item["name"]] = results[source][slot]
            results[node["id"]] = _execute(ours, kind, inputs | dict(changed.get(kind, {})))
        else:
            results[node["id"]] = given[kind]
        found[kind] = results[node["id"]]
    return found


def _widgets(ours: Mapping[str, Any], kind: str, values: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, options in _inputs(ours, kind):
        found[name] = values.pop(0)
        if isinstance(options, dict):
            # A dynamic combo's inner widgets stand behind it.
            inner = [i.id for o in options["options"] if o.key == found[name] for i in o.inputs]
            found[name] = {name: found[name]} | {i: values.pop(0) for i in inner if values}
        if values and values[0] in _CONTROLS and name == "seed":
            values.pop(0)
    from comfy_api.latest import io

    # An older ComfyUI has no dynamic combos, so the inner widgets' values are left.
    assert not values or not hasattr(io, "DynamicCombo"), (kind, values)
    return found


def _inputs(ours: Mapping[str, Any], kind: str) -> list[tuple[str, Any]]:
    """Names of the widgets; the options of a dynamic combo."""
    node = ours.get(kind) or _core(kind)
    if hasattr(node, "GET_SCHEMA"):
        dynamic = [i for i in node.GET_SCHEMA().inputs if i.get_io_type() in _WIDGETS]
        return [
            (
                i.id,
                {"options": i.options} if hasattr(next(iter(getattr(i, "options", None) or [0])), "inputs") else None,
            )
            for i in dynamic
        ]
    declared = node.INPUT_TYPES()
    both = {**declared.get("required", {}), **declared.get("optional", {})}
    return [(name, None) for name, spec in both.items() if isinstance(spec[0], list) or spec[0] in _WIDGETS]


def _core(kind: str) -> Any:
    core = importlib.import_module("nodes")
    if kind in core.NODE_CLASS_MAPPINGS:
        return core.NODE_CLASS_MAPPINGS[kind]
    modules = [importlib.import_module(f"comfy_extras.{name}") for name in _EXTRAS]
    return next(getattr(module, kind) for module in modules if hasattr(module, kind))


def _execute(ours: Mapping[str, Any], kind: str, inputs: dict[str, Any]) -> tuple[Any, ...]:
    node = ours.get(kind) or _core(kind)
    with torch.inference_mode():
        if hasattr(node, "GET_SCHEMA"):
            return tuple(node.PREPARE_CLASS_CLONE({}).execute(**inputs).result)
        return tuple(getattr(node(), node.FUNCTION)(**inputs))
