"""Feature differences of images, for perceptual losses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import WeightsError
from ..core.stored import read_state
from ..recognition.embedder import SIZE, built_in_embedder

Features = Callable[[Tensor], Sequence[Tensor]]
"""From images ``(B, 3, S, S)`` in [-1, 1] to feature maps."""

_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
"""Channels of VGG16's convolutions up to relu4_3; each group but the first starts with max pooling."""
_VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
"""Channels of VGG19's convolutions up to conv5_4."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg(nn.Module):
    """Feature maps of one of torchvision's VGG networks, one of each group of convolutions.

    Args:
        path: its file.
        channels: of the convolutions of each group.
        name: of the network, for messages.
        activated: whether the maps are those after the last activation of a group, or before it.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, path: Path, channels: Sequence[Sequence[int]], name: str, activated: bool) -> None:
        super().__init__()
        state = read_state(path, name, f"give the file of torchvision's {name}")
        self.groups, self._activated = nn.ModuleList(), activated
        index, before = 0, 3
        for group, widths in enumerate(channels):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if group else []
            index += bool(group)
            for place, width in enumerate(widths):
                convolution = nn.Conv2d(before, width, 3, padding=1)
                try:
                    convolution.load_state_dict({k: state[f"features.{index}.{k}"] for k in ("weight", "bias")})
                except (KeyError, RuntimeError):
                    raise WeightsError(f"{path.name} is not {name}; give the file of torchvision's {name}") from None
                layers += [convolution, nn.ReLU()] if activated or place < len(widths) - 1 else [convolution]
                index, before = index + 2, width
            self.groups.append(nn.Sequential(*layers))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = ((images + 1) / 2 - self.mean) / self.std
        found = []
        for group in self.groups:
            feature = group(x)
            found.append(feature)
            x = feature if self._activated else feature.relu()
        return found


class Vgg16(Vgg):
    """relu1_2, relu2_2, relu3_3 and relu4_3 of VGG16, from ``vgg16-397923af.pth`` or the same as safetensors."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _VGG16, "VGG16", activated=True)


class Vgg19(Vgg):
    """conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 of VGG19, before the activation, from ``vgg19-dcbb9e9d.pth``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _VGG19, "VGG19", activated=False)


class EmbedderFeatures(nn.Module):
    """The feature maps of our own recognizer, where no VGG16 is at hand."""

    def __init__(self) -> None:
        super().__init__()
        # A copy: the recognizer itself stays on its device.
        self.network = copy.deepcopy(built_in_embedder().network).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        # It was trained on faces that fill more of the square than these.
        side = images.shape[-1]
        edge = round(0.2 * side)
        middle = images[..., edge : side - edge, edge : side - edge]
        # Without the filter, some pixels would count more than others, which leaves a grid in what is trained with it.
        x = functional.interpolate(middle, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
        x = self.network.normalized((x + 1) / 2)
        found = []
        for stage in self.network.stages:
            x = stage(x)
            found.append(x)
        return found


def open_features(vgg16: Path | None, device: torch.device) -> Vgg16 | EmbedderFeatures:
    """VGG16 from its file, or the built-in recognizer where there is none, on a device.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """
    # ComfyUI runs nodes in inference mode; a network made there has no gradients.
    with torch.inference_mode(False):
        return (EmbedderFeatures() if vgg16 is None else Vgg16(vgg16)).to(device)


def feature_loss(features: Features, drawn: Tensor, true: Tensor) -> Tensor:
    """Mean squared difference of the feature maps, one value per image ``(B,)``."""
    with torch.no_grad():
        goals = features(true)
    maps = zip(features(drawn), goals, strict=True)
    return torch.stack([(a - b).square().mean((1, 2, 3)) for a, b in maps]).mean(0)
