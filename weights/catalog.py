"""Model cards: the origin, license, purpose and checksum of each weights file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..pipelines.core.errors import WeightsError


@dataclass(frozen=True)
class Card:
    """Model card of one weights file.

    Attributes:
        name: name of the card.
        file: file name.
        folder: folder below the models folder; a description of the location for files in Python packages.
        origin: project or page that publishes the weights.
        revision: version of the weights.
        license: license of the weights, not of the code.
        purpose: what the weights are used for.
        url: download address; empty when the file is not downloaded by this package.
        sha256: checksum of the whole file; required with ``url``.
        bytes: size of the file, rounded where it is not fetched by this package; 0 when it is unknown.
        notes: training data and other facts.

    Raises:
        WeightsError: the card has a URL but no SHA-256.
    """

    name: str
    file: str
    folder: str
    origin: str
    revision: str
    license: str
    purpose: str
    url: str = ""
    sha256: str = ""
    bytes: int = 0
    notes: str = ""

    def __post_init__(self) -> None:
        if self.url and len(self.sha256) != 64:
            raise WeightsError(f"model card {self.name} has a URL but no SHA-256; add the SHA-256")

    @property
    def megabytes(self) -> float:
        return self.bytes / 1e6


@lru_cache(maxsize=1)
def cards() -> tuple[Card, ...]:
    """Read all model cards, in the order of ``catalog.json``."""
    text = Path(__file__).with_name("catalog.json").read_text(encoding="utf-8")
    return tuple(Card(**row) for row in json.loads(text))


def card(name: str) -> Card:
    """Find a model card by name.

    Raises:
        WeightsError: the name is unknown.
    """
    for c in cards():
        if c.name == name:
            return c
    raise WeightsError(f"weights {name!r} are unknown; the known names are {', '.join(c.name for c in cards())}")
