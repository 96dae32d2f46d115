"""The policy: what happens to a face that cannot be replaced safely."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from ..core.errors import InputError

Action = Literal["redact", "stop", "pass"]
ACTIONS: tuple[str, ...] = get_args(Action)
"""``redact`` removes the face, ``stop`` raises an error and returns no image, ``pass`` keeps and reports the face."""


@dataclass(frozen=True)
class Policy:
    """One action for each situation. By default every face that cannot be replaced is redacted.

    Attributes:
        no_face: no face was found in the image; ``redact`` then redacts the whole image.
        out_of_range: the face is too small, rotated too far, or has no landmarks.
        failed: the method raised an error, or changed no pixel.
        still_similar: a recognizer still matches the new face with the original after all tries.

    Raises:
        InputError: an action is unknown.
    """

    no_face: Action = "redact"
    out_of_range: Action = "redact"
    failed: Action = "redact"
    still_similar: Action = "redact"

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) not in ACTIONS:
                raise InputError(
                    f"the policy {getattr(self, field.name)!r} is not one of {', '.join(ACTIONS)}; choose one of these"
                )

    @classmethod
    def always(cls, action: Action) -> Policy:
        """Create a policy with the same action in all situations."""
        return cls(action, action, action, action)
