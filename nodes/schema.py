"""Schemas that older hosts accept as well."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from comfy_api.latest import io

_KNOWN = {field.name for field in fields(io.Schema)}


def schema(**values: Any) -> io.Schema:
    """A node's schema; fields that this host does not know, such as ``search_aliases``, are dropped."""
    return io.Schema(**{name: value for name, value in values.items() if name in _KNOWN})
