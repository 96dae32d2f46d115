"""Real photos, where the data folder is: a quick look; the whole measurement is ``benchmarks/appearance.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.appearance.method import AppearanceMethod


@pytest.mark.slow
def test_real_people_become_somebody_else_and_keep_their_expression(photos) -> None:
    changes = []
    # Enough of them that one eye that the landmark detector takes for another does not decide.
    for path in photos[::3]:
        picture = load_image(path)
        result = anonymize_batch(picture.pixels, Settings(), method=AppearanceMethod(trials=8))
        row = result.report.faces[0]
        assert row.outcome == "replaced"
        assert row.checks[0].distance >= 0.6
        assert torch.equal(torch.where(result.mask > 0, picture.pixels, result.pixels), picture.pixels)
        assert len(detect_faces(result.pixels, rotated=False)) >= 1
        changes.append([row.utility.yaw, row.utility.mouth_gap, row.utility.eye_opening])
    yaw, mouth, eyes = np.mean(changes, axis=0)
    assert yaw < 0.04 and mouth < 0.05 and eyes < 0.04
