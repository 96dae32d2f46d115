"""The built-in model and the analyzed public-domain portrait."""

from __future__ import annotations

import pytest
from faceveil.pipelines.methods.appearance.method import AppearanceMethod
from faceveil.pipelines.methods.appearance.render import Subject
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer


@pytest.fixture(scope="module")
def method() -> AppearanceMethod:
    return AppearanceMethod()


@pytest.fixture(scope="module")
def subject(method, portrait, portrait_faces) -> Subject:
    face = portrait_faces[0]
    return method.prepare(View(portrait, face, default_recognizer().embed(portrait, face.points))).subject
