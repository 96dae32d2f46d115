"""Our own face recognizer: a small MobileNet-type network that comes with the package, differentiable, for any device.

``faceveil train embedder`` distills it. dlib's recognizer is a ResNet with other training data, so the two err in
different ways: a face that both find different is more likely to be different to a third one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from ...weights.builtin import open_builtin
from ..core.errors import WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors
from ..core.threads import one_thread
from ..faces.align import ARCFACE_SIZE, arcface_transform, crop
from .base import TorchRecognizer

NAME = "faceveil"
FILE = "embedder.safetensors"
FORMAT = "faceveil.embedder/1"
DIMENSION = 256
REMEDY = "train one with: faceveil train embedder"
_STAGES = ((48, 3), (96, 5), (144, 5))
"""Channels and blocks of each stage; the first block of each stage but the first halves the resolution."""
_STEM_SIZE, _STEM_STRIDE = 7, 4
"""A large stride in the first layer, as in ConvNeXt, halves the time on a CPU."""
_EXPANSION, _SQUEEZE, _HEAD = 2, 4, 384
_SIDE = ARCFACE_SIZE // 16
"""Side of the last feature map."""


class EmbedderNetwork(nn.Module):
    """Maps aligned faces ``(N, 3, 112, 112)``, RGB in [0, 1], to unit vectors ``(N, 256)``.

    Inverted residuals (MobileNetV2, Sandler et al. 2018) with squeeze-and-excitation and, as in MobileFaceNet (Chen et
    al. 2018), PReLU and a global depthwise convolution instead of a pooling: the places in an aligned face differ.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = _STAGES[0][0]
        blocks: list[nn.Module] = [_convolution(3, channels, _STEM_SIZE, _STEM_STRIDE)]
        for out_channels, count in _STAGES:
            for _ in range(count):
                blocks.append(InvertedResidual(channels, out_channels, 1 if channels == out_channels else 2))
                channels = out_channels
        self.features = nn.Sequential(*blocks, _convolution(channels, _HEAD, 1))
        self.pool = nn.Sequential(
            nn.Conv2d(_HEAD, _HEAD, _SIDE, groups=_HEAD, bias=False), nn.BatchNorm2d(_HEAD), nn.Flatten()
        )
        self.embedding = nn.Linear(_HEAD, DIMENSION)

    def forward(self, faces: Tensor) -> Tensor:
        return functional.normalize(self.embedding(self.pool(self.features(2 * faces - 1))))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection and squeeze-and-excitation; a shortcut where the sizes are equal."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = _EXPANSION * channels
        self.layers = nn.Sequential(
            _convolution(channels, inner, 1),
            _convolution(inner, inner, 3, stride, groups=inner),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.excitation = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(out_channels, out_channels // _SQUEEZE, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels // _SQUEEZE, out_channels, 1),
            nn.Sigmoid(),
        )
        self.residual = stride == 1 and channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        y = y * self.excitation(y)
        return x + y if self.residual else y  # type: ignore[no-any-return]  # a module's call is untyped


def _convolution(channels: int, out_channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.PReLU(out_channels),
    )


class Embedder(TorchRecognizer):
    """The built-in recognizer, or one that ``faceveil train embedder`` wrote.

    Args:
        path: weights file; the built-in one when omitted.

    Attributes:
        network: the network itself.
        name: ``faceveil`` for the built-in network, ``faceveil-NAME`` for a file: each network has its own space.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """

    dimension = DIMENSION
    alignment = "arcface-112"

    def __init__(self, path: Path | None = None) -> None:
        tensors, metadata = open_builtin(FILE) if path is None else read_safetensors(path, "recognizer", REMEDY)
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{path or FILE} is not a recognizer of format {FORMAT}; {REMEDY}")
        self.network = self._network = EmbedderNetwork()
        try:
            self._network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        except RuntimeError:
            raise WeightsError(f"{path or FILE} does not fit the network of this version; {REMEDY}") from None
        self._network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name = NAME if path is None else f"{NAME}-{path.stem}"

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        # One face at a time, in one thread: otherwise the other faces would change the last bits.
        with one_thread():
            rows = [super(Embedder, self).embed_many([i], [p]) for i, p in zip(images, landmarks, strict=True)]
        return np.concatenate([np.zeros((0, DIMENSION)), *rows])

    def crop(self, image: Tensor, landmarks: np.ndarray) -> Tensor:
        return crop(image, arcface_transform(landmarks), ARCFACE_SIZE)

    def embed_crops(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self._network(crops.clamp(0, 1))
        return vectors


@lru_cache(maxsize=1)
def built_in_embedder() -> Embedder:
    """The built-in recognizer, opened once."""
    return Embedder()


def save_embedder(path: Path, network: EmbedderNetwork) -> None:
    """Write a network in half precision.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    write_whole(path, save({k: v.contiguous() for k, v in tensors.items()}, {"format": FORMAT}))
