"""Feature differences of images, for the perceptual loss (Eq. 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import WeightsError
from ...core.stored import read_state
from ...recognition.embedder import SIZE, built_in_embedder

Features = Callable[[Tensor], Sequence[Tensor]]
"""From images ``(B, 3, S, S)`` in [-1, 1] to feature maps."""

_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
"""Channels of VGG16's convolutions up to relu4_3; each group but the first starts with max pooling."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg16(nn.Module):
    """relu1_2, relu2_2, relu3_3 and relu4_3 of torchvision's VGG16.

    Args:
        path: its file, ``vgg16-397923af.pth`` or the same as safetensors.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        state = read_state(path, "VGG16", "give the file of torchvision's VGG16")
        self.groups = nn.ModuleList()
        index, before = 0, 3
        for group, widths in enumerate(_VGG16):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if group else []
            index += bool(group)
            for width in widths:
                convolution = nn.Conv2d(before, width, 3, padding=1)
                try:
                    convolution.load_state_dict({k: state[f"features.{index}.{k}"] for k in ("weight", "bias")})
                except (KeyError, RuntimeError):
                    raise WeightsError(f"{path.name} is not VGG16; give the file of torchvision's VGG16") from None
                layers += [convolution, nn.ReLU()]
                index, before = index + 2, width
            self.groups.append(nn.Sequential(*layers))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = ((images + 1) / 2 - self.mean) / self.std  # type: ignore[operator]
        found = []
        for group in self.groups:
            x = group(x)
            found.append(x)
        return found


class EmbedderFeatures(nn.Module):
    """The feature maps of our own recognizer, where no VGG16 is at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.network = built_in_embedder().network.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        # It was trained on faces that fill more of the square than these.
        side = images.shape[-1]
        edge = round(0.2 * side)
        middle = images[..., edge : side - edge, edge : side - edge]
        x = functional.interpolate(middle, (SIZE, SIZE), mode="bilinear", align_corners=False)
        x = self.network.normalized((x + 1) / 2)
        found = []
        for stage in self.network.stages:
            x = stage(x)
            found.append(x)
        return found


def feature_loss(features: Features, drawn: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference of the feature maps, one value per image ``(B,)``."""
    with torch.no_grad():
        goals = features(true)
    maps = zip(features(drawn), goals, strict=True)
    return torch.stack([(a - b).square().mean((1, 2, 3)) for a, b in maps]).mean(0)
