"""The two conditions of IDDiffuse (section 3.2): tokens of an identity, and tokens of a texture.

Both read the feature maps of our own recognizer, which needs no download. The identity's copy is trained along; the
texture's stays as it is.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...recognition.embedder import STAGES, EmbedderNetwork

SIZE = 112
"""Side of the aligned faces in pixels."""
GRIDS = (3, 5)
IDENTITY_TOKENS = 49
"""7 x 7 places of the last feature map."""
_MAP = 7
_EPS = 1e-6
DROPOUT = 0.3


def patch_statistics(features: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel in each of ``grid x grid`` patches.

    DCFace's code subtracts in the wrong order, so its "variance" is negative; this is the standard deviation.

    Args:
        features: ``(B, C, h, w)``; h and w are multiples of ``grid``.

    Returns:
        Two tensors ``(B, grid^2, C)``, row by row.
    """
    pool = (features.shape[-2] // grid, features.shape[-1] // grid)
    mean = functional.avg_pool2d(features, pool)
    square = functional.avg_pool2d(features.square(), pool)
    std = ((square - mean.square()).clamp(min=0) + _EPS).sqrt()
    return mean.flatten(2).transpose(1, 2), std.flatten(2).transpose(1, 2)


class TextureEncoder(nn.Module):
    """E_t: patch-wise statistics of a frozen recognizer's first stage, ``grid^2 + 1`` tokens.

    Args:
        network: the recognizer.
        grid: patches in each direction.
        token: length of a token.
    """

    def __init__(self, network: EmbedderNetwork, grid: int, token: int) -> None:
        super().__init__()
        if grid not in GRIDS:
            raise InputError(f"the texture grid must be one of {', '.join(map(str, GRIDS))}, got {grid}")
        self.grid = grid
        self.stage = copy.deepcopy(network.stages[0]).eval().requires_grad_(False)
        channels = STAGES[0][0]
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Dropout(DROPOUT), nn.Conv2d(channels, token, 1), nn.ReLU()
        )
        self.mix = nn.Linear(2 * token, token)
        self.position = nn.Parameter(torch.randn(1, grid * grid + 1, token) * 0.02)
        self.norm = nn.LayerNorm(token)

    def train(self, mode: bool = True) -> TextureEncoder:
        """The recognizer keeps the statistics of its normalizations."""
        super().train(mode)
        self.stage.eval()
        return self

    def statistics(self, faces: Tensor) -> Tensor:
        """Means and standard deviations ``(B, grid^2 + 1, 2 C)``: of the whole, then of each patch.

        Args:
            faces: ``(B, 3, 112, 112)`` in [-1, 1].
        """
        features = self.layers(self.stage(faces))
        side = features.shape[-1] // self.grid * self.grid
        features = functional.interpolate(features, (side, side), mode="nearest")
        whole, patches = (torch.cat(patch_statistics(features, n), 2) for n in (1, self.grid))
        return torch.cat([whole, patches], 1)

    def forward(self, faces: Tensor) -> Tensor:
        """Tokens ``(B, grid^2 + 1, T)``."""
        return self.norm(self.mix(self.statistics(faces)) + self.position)  # type: ignore[no-any-return]


class IdentityEncoder(nn.Module):
    """E_I: a global token of the identity's vector, and 49 tokens of a face's feature map.

    Args:
        network: recognizer whose copy is trained.
        dimension: length of the identity's vector, of any space.
        token: length of a token.
    """

    def __init__(self, network: EmbedderNetwork, dimension: int, token: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(copy.deepcopy(stage).requires_grad_(True) for stage in network.stages)
        self.project = nn.Conv2d(STAGES[-1][0], token, 1)
        self.vector = nn.Linear(dimension, token)
        self.position = nn.Parameter(torch.randn(1, IDENTITY_TOKENS + 1, token) * 0.02)
        self._root = math.sqrt(dimension)

    def forward(self, faces: Tensor, vectors: Tensor) -> Tensor:
        """Tokens ``(B, 50, T)``, the global one first.

        Args:
            faces: of the identity, ``(B, 3, 112, 112)`` in [-1, 1].
            vectors: its unit vectors ``(B, D)``.
        """
        x = faces
        for stage in self.stages:
            x = stage(x)
        places = self.project(functional.adaptive_avg_pool2d(x, _MAP)).flatten(2).transpose(1, 2)
        first = self.vector(vectors * self._root)[:, None]
        return torch.cat([first, places], 1) + self.position


def blended(real: Tensor, synthetic: Tensor, gamma: float) -> Tensor:
    """Identity tokens ``(B, 50, T)`` between a real (gamma 1) and a synthetic (gamma 0) person.

    The global token moves on the great circle, with the length interpolated; the others in a straight line.
    """
    if not 0 <= gamma <= 1:
        raise InputError(f"gamma must be between 0 and 1, got {gamma:g}")
    places = torch.lerp(synthetic[:, 1:], real[:, 1:], gamma)
    a, b = synthetic[:, 0], real[:, 0]
    lengths = [v.norm(dim=1, keepdim=True).clamp(min=1e-9) for v in (a, b)]
    u, v = a / lengths[0], b / lengths[1]
    angle = torch.acos((u * v).sum(1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7))
    direction = (torch.sin((1 - gamma) * angle) * u + torch.sin(gamma * angle) * v) / torch.sin(angle)
    first = direction * torch.lerp(lengths[0], lengths[1], gamma)
    return torch.cat([first[:, None], places], 1)
