"""Inputs that several nodes share."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipelines.methods.base import MAX_STRENGTH
from .sockets import FacesSocket

MAX_SEED = 0xFFFFFFFFFFFFFFFF


def seed_input(result: str = "person") -> Any:
    """A seed with the host's control after generate."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=True,
        tooltip=f"Each seed gives a different {result}.",
    )


def strength_input(above: str) -> Any:
    """The strength of a method; ``above`` says what happens above 1."""
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=MAX_STRENGTH,
        step=0.05,
        display_mode=io.NumberDisplay.slider,
        tooltip=f"0 keeps the person, 1 is recommended, above 1 {above}.",
    )


def optional_faces_input(verb: str) -> Any:
    """Faces that a node is limited to."""
    return FacesSocket.Input(
        "faces", optional=True, tooltip=f"{verb} only these faces. Without it, all faces are detected."
    )


def is_key_name(name: str) -> bool:
    """Whether a text can be the name of a key file."""
    return name.replace("-", "").replace("_", "").isalnum()


def no_key_name(name: str) -> str:
    """What is wrong with the name of a key file."""
    return f"the key name {name!r} may contain only letters, digits, - and _"
