"""The network of dlib's face recognizer in torch, and the reader of its weights file: fast, batched and differentiable.

The network is a ResNet of 29 convolutions (King 2017). Each convolution is followed by an affine layer, which is folded
into it here. Stride-2 convolutions have no padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import WeightsError

DIMENSION = 128
_MEAN_COLOR = (122.782, 117.001, 104.298)
"""RGB, subtracted from the input; the result is divided by 256."""
_BLOCKS = (
    *((32, 32, False),) * 3,
    (32, 64, True),
    *((64, 64, False),) * 3,
    (64, 128, True),
    *((128, 128, False),) * 2,
    (128, 256, True),
    *((256, 256, False),) * 2,
    (256, 256, True),
)
"""Input channels, output channels, and whether the block halves the resolution."""
_LAYER = re.compile(rb"\x01\x05(con_4)|\x01\x07(affine_)|\x01\x04(fc_2)")
"""Names of the layers with weights, each after its length, which is stored as an integer of one byte."""
_TENSOR_VERSION = 2
_LENGTH_BITS = 0x0F


class DlibNetwork(nn.Module):
    """Maps aligned chips ``(N, 3, 150, 150)``, RGB in [0, 255], to embeddings ``(N, 128)``, not normalized."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 7, 2)
        self._plan = [_Block(*plan) for plan in _BLOCKS]
        self.blocks = nn.Sequential(*self._plan)
        self.embedding = nn.Linear(_BLOCKS[-1][1], DIMENSION, bias=False)
        self.register_buffer("mean", torch.tensor(_MEAN_COLOR).view(1, 3, 1, 1))

    def forward(self, chips: Tensor) -> Tensor:
        features = functional.relu(self.stem((chips - self.mean) / 256))
        features = self.blocks(functional.max_pool2d(features, 3, 2))
        return self.embedding(features.mean((2, 3)))  # type: ignore[no-any-return]  # a module's call is untyped

    def convolutions(self) -> Iterator[nn.Conv2d]:
        """All convolutions from the input on."""
        yield self.stem
        for block in self._plan:
            yield from (block.first, block.second)


class _Block(nn.Module):
    """Two convolutions and a shortcut. Where the two have different sizes, the smaller one is padded with zeros."""

    def __init__(self, channels: int, out_channels: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.first = (
            nn.Conv2d(channels, out_channels, 3, 2, 0) if halves else nn.Conv2d(channels, out_channels, 3, 1, 1)
        )
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(functional.relu(self.first(x)))
        shortcut = functional.avg_pool2d(x, 2) if self.halves else x
        size = [max(a, b) for a, b in zip(y.shape[1:], shortcut.shape[1:], strict=True)]
        return functional.relu(_padded(y, size) + _padded(shortcut, size))


def _padded(x: Tensor, size: list[int]) -> Tensor:
    """Pad ``(N, C, H, W)`` with zeros at the end to the size ``[C, H, W]``."""
    channels, height, width = (wanted - n for wanted, n in zip(size, x.shape[1:], strict=True))
    return functional.pad(x, (0, width, 0, height, 0, channels)) if channels or height or width else x


def read_network(path: Path) -> DlibNetwork:
    """Build the network from dlib's own file ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises:
        WeightsError: the file does not contain this network.
    """
    network = DlibNetwork()
    layers = _read_layers(path.read_bytes())
    try:
        for convolution in network.convolutions():
            bias_size = convolution.out_channels
            weights, (gamma, beta) = next(layers), np.split(next(layers), 2)
            kernel, bias = np.split(weights, [len(weights) - bias_size])
            kernel = kernel.reshape(convolution.weight.shape) * gamma[:, None, None, None]
            convolution.weight = nn.Parameter(torch.from_numpy(kernel))
            convolution.bias = nn.Parameter(torch.from_numpy(bias * gamma + beta))
        last = next(layers).reshape(network.embedding.in_features, DIMENSION)
    except (StopIteration, ValueError, IndexError):
        raise WeightsError(f"{path} is not dlib's face recognizer, or is damaged; install the package again") from None
    network.embedding.weight = nn.Parameter(torch.from_numpy(last.T.copy()))
    # The same bits as in torch's own layout, in three quarters of the time.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def _read_layers(data: bytes) -> Iterator[np.ndarray]:
    """Read the weights of each layer, in the order from the input on.

    Raises:
        ValueError, IndexError: the data ends early.
    """
    position = 0
    while (match := _LAYER.search(data, position)) is not None:
        position = match.end()
        for _ in range(2 if match.group(3) else 0):
            # The fully connected layer stores its numbers of outputs and inputs first.
            _, position = _read_integer(data, position)
        version, position = _read_integer(data, position)
        if version != _TENSOR_VERSION:
            raise ValueError("unknown version of a tensor")
        count = 1
        for _ in range(4):
            size, position = _read_integer(data, position)
            count *= size
        yield np.frombuffer(data, "<f4", count, position).copy()
        position += 4 * count


def _read_integer(data: bytes, position: int) -> tuple[int, int]:
    """Read an integer, stored as its number of bytes and then these bytes; returns it and the next position."""
    start = position + 1
    end = start + (data[position] & _LENGTH_BITS)
    return int.from_bytes(data[start:end], "little"), end
