"""Small HeadNeRF networks, and one face that all tests use."""

from __future__ import annotations

import math

import pytest
import torch
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.ideudemon.headnerf import HeadCodes, HeadNeRF, HeadNeRFConfig
from torch import Tensor


def wave_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by formula, as the recorded reference had them."""
    filled = {}
    for number, (name, value) in enumerate(sorted(state.items())):
        if name.endswith(".f"):
            filled[name] = value
            continue
        ramp = torch.arange(value.numel(), dtype=torch.float64) * 0.7 + number
        scale = 2 / math.sqrt(value[0].numel() if value.dim() > 1 else 1) if name.endswith("weight") else 0.1
        if value.dim() <= 1 and name.endswith("weight"):
            scale = 2 / math.sqrt(value.numel())
        filled[name] = (torch.sin(ramp * ramp.sqrt()) * scale).float().view(value.shape)
    return filled


def head_network(features: int, image: int, channels: int = 256, width: int = 384) -> HeadNeRF:
    network = HeadNeRF(HeadNeRFConfig(features, image, channels, width))
    network.load_state_dict(wave_weights(network.state_dict()))
    return network.eval().requires_grad_(False)


def wave_codes(scale: float = 0.5) -> HeadCodes:
    return HeadCodes(*(torch.sin(torch.arange(n) * 1.3 + n)[None] * scale for n in (100, 79, 100, 27)))


@pytest.fixture(scope="session")
def tiny() -> HeadNeRF:
    """8 x 8 rays, 32 px."""
    return head_network(8, 32, 64, 64)


@pytest.fixture(scope="session")
def view(portrait, portrait_faces) -> View:
    from faceveil.pipelines.recognition.dlib_resnet import default_recognizer

    face = portrait_faces[0]
    return View(portrait, face, default_recognizer().embed(portrait, face.points))
