"""Option names for the user interfaces. They are separate from the implementation, so that a list of options does not
import it."""

from __future__ import annotations

SHAPE_SLIDERS = (
    "face width",
    "jaw width",
    "face length",
    "chin",
    "eye distance",
    "eye size",
    "nose length",
    "nose width",
    "nose depth",
    "mouth width",
    "brow height",
)
EXPRESSION_SLIDERS = ("smile", "mouth wide", "brows up")
STYLES = ("shaded", "gray", "normals", "depth", "mask", "wireframe", "uv")
