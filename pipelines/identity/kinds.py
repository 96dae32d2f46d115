"""The kinds of recognisers, apart from what runs them, so that naming them costs no import."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["dlib", "arcface", "adaface", "sphereface", "mobileface", "facenet", "farl"]
KINDS: tuple[str, ...] = get_args(Kind)
