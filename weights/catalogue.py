"""The cards: what each weights file is, where it comes from, under which licence, and what needs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..pipelines.errors import WeightsError


@dataclass(frozen=True)
class Card:
    """One weights file.

    Attributes:
        folder: below a models folder, for files that can be fetched; in words for the others.
        url: where it can be fetched; empty when it comes with a package.
        sha256: of the whole file; a file that can be fetched must have one.
        licence: of the weights, not of the code.
    """

    name: str
    file: str
    folder: str
    origin: str
    revision: str
    licence: str
    purpose: str
    url: str = ""
    sha256: str = ""
    bytes: int = 0
    notes: str = ""

    def __post_init__(self) -> None:
        if self.url and len(self.sha256) != 64:
            raise WeightsError(f"the card of {self.name} has an address but no SHA-256; add it")

    @property
    def megabytes(self) -> float:
        return self.bytes / 1e6


@lru_cache(maxsize=1)
def cards() -> tuple[Card, ...]:
    """All cards in the order of the file."""
    text = Path(__file__).with_name("catalogue.json").read_text(encoding="utf-8")
    return tuple(Card(**row) for row in json.loads(text))


def card(name: str) -> Card:
    """One card.

    Raises:
        WeightsError: there is none of that name.
    """
    for c in cards():
        if c.name == name:
            return c
    raise WeightsError(f"there are no weights called {name}; known are {', '.join(c.name for c in cards())}")
