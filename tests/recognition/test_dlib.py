"""dlib's network in torch against dlib itself, and bad weights files."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.landmarks import dlib_model_file
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.recognition.dlib_network import read_network
from faceveil.pipelines.recognition.dlib_resnet import WEIGHTS, _chip, default_recognizer

FILE = dlib_model_file(WEIGHTS)


def test_the_network_equals_dlibs_own():
    image = as_image(astronaut()).pixels
    chips = [_chip(image, detect_faces(image)[0].points)]
    chips += [torch.randint(0, 256, (1, 3, 150, 150), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    pixels = torch.cat([c.float() for c in chips])
    own = np.array(
        dlib.face_recognition_model_v1(str(FILE)).compute_face_descriptor(
            [np.ascontiguousarray(c.byte().movedim(0, -1).numpy()) for c in pixels]
        )
    )
    assert np.abs(read_network(FILE)(pixels).numpy() - own).max() < 1e-4
    assert np.linalg.norm(own[0] - own[1]) > 0.3


def test_other_faces_do_not_change_a_bit():
    image = as_image(astronaut()).pixels
    points = detect_faces(image)[0].points
    recognizer = default_recognizer()
    many = recognizer.embed_many([image.flip(1), image, image * 0.5], [points] * 3)
    assert (many[1] == recognizer.embed(image, points)).all()


@pytest.mark.parametrize("content", ["empty", "half", "another", "longer name"])
def test_a_file_that_is_not_dlibs_network_is_refused(tmp_path: Path, content: str):
    data = FILE.read_bytes()
    changed = {
        "empty": b"",
        "half": data[: len(data) // 2],
        "another": data.replace(b"\x01\x04fc_2", b"\x01\x04fc_9"),
        "longer name": data.replace(b"\x01\x05con_4\x01\x02", b"\x01\x05con_4\x01\x07"),
    }[content]
    path = tmp_path / "network.dat"
    path.write_bytes(changed)
    with pytest.raises(WeightsError, match=r"network\.dat is not dlib's face recognizer"):
        read_network(path)
