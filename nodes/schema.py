"""Node schemas that older versions of ComfyUI also accept."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io

_KNOWN = {field.name for field in fields(io.Schema)}


def schema(**values: Any) -> io.Schema:
    """Create a node's schema without the fields that this ComfyUI does not know, such as ``search_aliases``."""
    return io.Schema(**{name: value for name, value in values.items() if name in _KNOWN})
