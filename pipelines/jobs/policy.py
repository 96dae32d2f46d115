"""What happens to a face that cannot be replaced safely."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from ..core.errors import InputError

Action = Literal["redact", "stop", "pass"]
ACTIONS: tuple[str, ...] = get_args(Action)
"""``redact`` covers it, ``stop`` hands nothing on, ``pass`` lets it through and says so."""


@dataclass(frozen=True)
class Policy:
    """One action a situation; the default never lets an identity through silently.

    Attributes:
        no_face: nobody was found; ``redact`` then covers the whole picture.
        out_of_range: the face is too small, too turned or has no landmarks.
        failed: the method raised an error.
        still_similar: the recognizer still says "same person" after all tries.
    """

    no_face: Action = "redact"
    out_of_range: Action = "redact"
    failed: Action = "redact"
    still_similar: Action = "redact"

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) not in ACTIONS:
                raise InputError(f"policy {getattr(self, field.name)!r} is not one of {', '.join(ACTIONS)}")

    @classmethod
    def always(cls, action: Action) -> Policy:
        """The same action everywhere."""
        return cls(action, action, action, action)
