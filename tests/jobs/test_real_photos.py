"""Real photos, where the data folder is: a quick look; the whole measurement is ``benchmarks/appearance.py``."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.images import load_picture
from faceveil.pipelines.jobs.photo import Settings, anonymize_batch


@pytest.mark.parametrize("index", [0, 4, 9, 13, 17])
def test_a_real_person_becomes_somebody_else(photos, index) -> None:
    picture = load_picture(photos[index])
    result = anonymize_batch(picture.pixels, Settings(trials=8))
    row = result.report.faces[0]
    assert row.outcome == "replaced"
    assert row.checks[0].distance >= 0.6
    assert row.utility.yaw < 0.08 and row.utility.mouth_gap < 0.06 and row.utility.eye_opening < 0.06
    assert torch.equal(torch.where(result.mask > 0, picture.pixels, result.pixels), picture.pixels)
    assert len(detect_faces(result.pixels, turned=False)) >= 1
