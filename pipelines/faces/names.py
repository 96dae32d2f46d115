"""Names that a user can choose, without importing what they name, so that listing them is cheap."""

from __future__ import annotations

from typing import Literal, get_args

DetectorName = Literal["auto", "centerface", "dlib", "insightface", "uniface"]
DETECTORS: tuple[str, ...] = get_args(DetectorName)
BUILT_IN_DETECTORS = ("auto", "centerface", "dlib")
"""Detectors that need no file."""

SensitivityName = Literal["normal", "high", "maximum"]
SENSITIVITY_NAMES: tuple[str, ...] = get_args(SensitivityName)

RedactionStyle = Literal["solid", "pixelate", "blur", "sticker"]
REDACTION_STYLES: tuple[str, ...] = get_args(RedactionStyle)
RedactionShape = Literal["ellipse", "box", "hull"]
REDACTION_SHAPES: tuple[str, ...] = get_args(RedactionShape)
