"""Names that interfaces offer, apart from what does the work, so that asking for them costs no import."""

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
    "lip fullness",
    "brow height",
)
EXPRESSION_SLIDERS = ("jaw open", "smile", "mouth wide", "eyes closed", "brows up")
STYLES = ("shaded", "grey", "normals", "depth", "mask", "wireframe", "uv")
