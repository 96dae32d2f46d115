"""FaceNet: Inception-ResNet v1 (Szegedy et al. 2016; Schroff et al. 2015) with the layer names of facenet-pytorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import WeightsError
from ..core.stored import read_state
from ..faces.align import box_transform, crop
from .base import TorchRecognizer

SIDE, DIMENSIONS = 160, 512
_MARGIN = 0.25
"""Margin around the landmarks' bounding box. The detector's boxes in the training of FaceNet reach from the middle of
the forehead to the chin."""
Size = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution without bias, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Residual block: parallel branches, concatenated, projected by a 1x1 convolution, scaled and added to the input.

    Args:
        channels: of the input and the output.
        branch_channels: sum of the branches' output channels.
        scale: factor of the residual.
        last: leaves out the final ReLU.
    """

    def __init__(
        self, channels: int, branch_channels: int, scale: float, *branches: nn.Module, last: bool = False
    ) -> None:
        super().__init__()
        self.scale, self.last, self._count = scale, last, len(branches)
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.conv2d = nn.Conv2d(branch_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self._count)], 1)
        x = x + self.scale * self.conv2d(features)
        return x if self.last else torch.relu(x)


class Reduction(nn.Module):
    """Parallel branches of stride 2, concatenated; the last branch is max pooling."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self._count = len(branches)
        for i, branch in enumerate([*branches, nn.MaxPool2d(3, 2)]):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self._count + 1)], 1)


def _block35() -> Residual:
    three = nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1), Conv(32, 32, 3, padding=1))
    return Residual(256, 96, 0.17, Conv(256, 32, 1), nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1)), three)


def _block17() -> Residual:
    long = nn.Sequential(
        Conv(896, 128, 1), Conv(128, 128, (1, 7), padding=(0, 3)), Conv(128, 128, (7, 1), padding=(3, 0))
    )
    return Residual(896, 256, 0.10, Conv(896, 128, 1), long)


def _block8(scale: float = 0.20, last: bool = False) -> Residual:
    long = nn.Sequential(
        Conv(1792, 192, 1), Conv(192, 192, (1, 3), padding=(0, 1)), Conv(192, 192, (3, 1), padding=(1, 0))
    )
    return Residual(1792, 384, scale, Conv(1792, 192, 1), long, last=last)


class InceptionResnetV1(nn.Module):
    """The network: maps faces ``(B, 3, 160, 160)`` in [-1, 1] to unit vectors ``(B, 512)``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = Conv(3, 32, 3, 2)
        self.conv2d_2a = Conv(32, 32, 3)
        self.conv2d_2b = Conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = Conv(64, 80, 1)
        self.conv2d_4a = Conv(80, 192, 3)
        self.conv2d_4b = Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = Reduction(
            Conv(256, 384, 3, 2), nn.Sequential(Conv(256, 192, 1), Conv(192, 192, 3, padding=1), Conv(192, 256, 3, 2))
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = Reduction(
            nn.Sequential(Conv(896, 256, 1), Conv(256, 384, 3, 2)),
            nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, 2)),
            nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, padding=1), Conv(256, 256, 3, 2)),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, last=True)
        self.avgpool_1a = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(1792, DIMENSIONS, bias=False)
        self.last_bn = nn.BatchNorm1d(DIMENSIONS, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        # Modules run in the order of their definition.
        for layer in (m for name, m in self.named_children() if not name.startswith("last")):
            x = layer(x)
        return nn.functional.normalize(self.last_bn(self.last_linear(x.flatten(1))))


class FaceNet(TorchRecognizer):
    """FaceNet on upright square crops of 160 px.

    Args:
        path: a weights file of facenet-pytorch (``20180402-114759-vggface2.pt``,
            ``20180408-102900-casia-webface.pt``), or the same weights as safetensors.

    Attributes:
        name: ``facenet-vggface2``, ``facenet-casia``, or ``facenet-NAME`` for a file of another name.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """

    dimension = DIMENSIONS
    alignment = "box-160"

    def __init__(self, path: Path) -> None:
        stored = read_state(path, "recognizer", "get a fresh copy from facenet-pytorch")
        self._network = InceptionResnetV1().eval().requires_grad_(False)
        try:
            self._network.load_state_dict({k: v for k, v in stored.items() if not k.startswith("logits.")})
        except RuntimeError:
            raise WeightsError(
                f"{path.name} does not contain FaceNet weights of facenet-pytorch; use 20180402-114759-vggface2.pt"
            ) from None
        known = [n for n in ("vggface2", "casia") if n in path.stem]
        self.name = f"facenet-{known[0] if known else path.stem}"

    def crop(self, image: Tensor, landmarks: np.ndarray) -> Tensor:
        (x0, y0), (x1, y1) = landmarks.min(0), landmarks.max(0)
        return crop(image, box_transform((x0, y0, x1, y1), SIDE, _MARGIN), SIDE)

    def embed_crops(self, crops: Tensor) -> Tensor:
        # FaceNet was trained with 8-bit values v scaled to (v - 127.5) / 128.
        vectors: Tensor = self._network(((crops.clamp(0, 1) * 255 - 127.5) / 128).float())
        return vectors
