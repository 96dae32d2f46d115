"""The kinds of recognizers, without importing them, so that listing them is cheap."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["dlib", "faceveil", "arcface", "adaface", "sphereface", "mobileface", "facenet", "farl"]
KINDS: tuple[str, ...] = get_args(Kind)
