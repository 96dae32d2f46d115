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
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...weights.builtin import open_builtin
from ..core.errors import WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors
from ..core.threads import one_thread
from ..faces.align import crop, five_points, similarity
from .base import TorchRecognizer

NAME = "faceveil"
FILE = "embedder.safetensors"
FORMAT = "faceveil.embedder/2"
DIMENSION = 256
REMEDY = "train one with: faceveil train embedder"
SIZE = 128
"""Side of an aligned face in pixels."""
TEMPLATE = np.array([[40.39, 59.08], [87.38, 59.08], [64.03, 81.98], [44.73, 105.56], [83.64, 105.56]])
"""Its five points: Open Model Zoo's alignment, so that the stages can be compared with those of its network."""
STAGES = ((64, 3), (128, 5), (128, 2))
"""Channels and blocks of each stage, at a quarter, an eighth and a sixteenth of the resolution."""
_STEM_SIZE, _STEM_STRIDE = 7, 4
"""A large stride in the first layer, as in ConvNeXt, halves the time on a CPU."""
_EXPANSION, _DOWNSAMPLING_EXPANSION, _SQUEEZE, _HEAD = 2, 4, 8, 512


class EmbedderNetwork(nn.Module):
    """Maps aligned faces ``(N, 3, 128, 128)``, RGB in [0, 1], to unit vectors ``(N, 256)``.

    Inverted residuals (MobileNetV2, Sandler et al. 2018) with squeeze-and-excitation and, as in MobileFaceNet (Chen et
    al. 2018), PReLU and a global depthwise convolution instead of a pooling: the places in an aligned face differ.

    Attributes:
        stages: from the normalized faces to feature maps of 32, 16 and 8 px; each ends with a normalization.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = STAGES[0][0]
        stages = []
        for i, (out_channels, count) in enumerate(STAGES):
            blocks: list[nn.Module] = [] if i else [_convolution(3, channels, _STEM_SIZE, _STEM_STRIDE)]
            for j in range(count):
                blocks.append(InvertedResidual(channels, out_channels, 2 if i and not j else 1))
                channels = out_channels
            stages.append(nn.Sequential(*blocks, nn.BatchNorm2d(channels)))
        self.stages = nn.ModuleList(stages)
        self.head = nn.Sequential(
            _convolution(channels, _HEAD, 1),
            nn.Conv2d(_HEAD, _HEAD, SIZE // 16, groups=_HEAD, bias=False),
            nn.BatchNorm2d(_HEAD),
            nn.Flatten(),
            nn.Linear(_HEAD, DIMENSION),
        )

    def forward(self, faces: Tensor) -> Tensor:
        x = self.normalized(faces)
        for stage in self.stages:
            x = stage(x)
        return self.embedding(x)

    @staticmethod
    def normalized(faces: Tensor) -> Tensor:
        """Input of the first stage."""
        return 2 * faces - 1

    def embedding(self, features: Tensor) -> Tensor:
        """Unit vectors ``(N, 256)`` of the last stage's features ``(N, 128, 8, 8)``."""
        return functional.normalize(self.head(features))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection and squeeze-and-excitation; a shortcut where the sizes are equal."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inner = channels * (_EXPANSION if stride == 1 else _DOWNSAMPLING_EXPANSION)
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


def embedder_transform(landmarks: np.ndarray) -> np.ndarray:
    """The transform ``(2, 3)`` from an image to the aligned face, for 68 landmarks ``(68, 2)``."""
    return similarity(five_points(landmarks), TEMPLATE)


class Embedder(TorchRecognizer):
    """The built-in recognizer, or one that ``faceveil train embedder`` wrote.

    Args:
        path: weights file; the built-in one when omitted.

    Attributes:
        name: ``faceveil`` for the built-in network, ``faceveil-NAME`` for a file: each network has its own space.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
    """

    dimension = DIMENSION
    alignment = "omz-128"

    def __init__(self, path: Path | None = None) -> None:
        tensors, metadata = open_builtin(FILE) if path is None else read_safetensors(path, "recognizer", REMEDY)
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{path or FILE} is not a recognizer of format {FORMAT}; {REMEDY}")
        network = EmbedderNetwork()
        try:
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        except RuntimeError:
            raise WeightsError(f"{path or FILE} does not fit the network of this version; {REMEDY}") from None
        network.eval().requires_grad_(False)
        _fuse(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: EmbedderNetwork = network
        self.name = NAME if path is None else f"{NAME}-{path.stem}"

    @property
    def network(self) -> EmbedderNetwork:
        """The network, for its feature maps; do not change it."""
        return self._network

    def embed_many(self, images: Sequence[Tensor], landmarks: Sequence[np.ndarray]) -> np.ndarray:
        # One face at a time, in one thread: otherwise the other faces would change the last bits.
        with one_thread():
            rows = [super(Embedder, self).embed_many([i], [p]) for i, p in zip(images, landmarks, strict=True)]
        return np.concatenate([np.zeros((0, DIMENSION)), *rows])

    def crop(self, image: Tensor, landmarks: np.ndarray) -> Tensor:
        return crop(image, embedder_transform(landmarks), SIZE)

    def embed_crops(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self._network(crops.clamp(0, 1))
        return vectors


def _fuse(network: nn.Module) -> None:
    """Move each normalization behind a convolution into its weights, which saves a quarter of the time."""
    for block in network.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i in range(len(block) - 1):
            convolution, normalization = block[i], block[i + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(normalization, nn.BatchNorm2d):
                block[i], block[i + 1] = fuse_conv_bn_eval(convolution, normalization), nn.Identity()


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
