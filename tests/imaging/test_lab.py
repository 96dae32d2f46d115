"""Lab by OpenCV is that of kornia."""

from __future__ import annotations

import torch
from faceveil.pipelines.imaging.lab import rgb_to_lab
from kornia.color import rgb_to_lab as reference


def test_lab_equals_kornias() -> None:
    image = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    assert (rgb_to_lab(image) - reference(image)).abs().max() < 1.0
    assert (rgb_to_lab(image) - reference(image)).abs().mean() < 0.15


def test_gradients_go_through() -> None:
    image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    rgb_to_lab(image)[:, 0].sum().backward()
    assert image.grad is not None and (image.grad > 0).any()
