"""The regressor of Deep3DFaceRecon (Deng et al. 2019): a ResNet-50 that reads 257 BFM coefficients off an aligned
face."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..faces.align import apply, crop
from ..progress import Progress, silent
from ..stored import read_state
from .alignment import SIDE, reconstruction_transform
from .coefficients import DEEP3D, Coefficients
from .fitting import Estimate, landmark_errors
from .gaze import gaze_of
from .morphable import MorphableModel

HEADS = (80, 64, 80, 3, 27, 2, 1)
"""Outputs of the seven heads: identity, expression, texture, angles, light, and the translation's x, y and z."""
_FEATURES = 2048
_STAGES = (3, 4, 6, 3)


class ReconstructionNet(nn.Module):
    """Faces ``(B, 3, 224, 224)`` in [0, 1] to ``(B, 257)``; the backbone is transformers' ResNet-50 with the stride on
    its 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _resnet50()
        self.final_layers = nn.ModuleList(nn.Conv2d(_FEATURES, size, 1) for size in HEADS)
        for head in self.final_layers:
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]  # a convolution's weight
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(pixel_values=x).pooler_output
        return torch.cat([head(features) for head in self.final_layers], 1).flatten(1)


class Regressor:
    """Estimates BFM coefficients with the user's checkpoint; the same calls as the ``Fitter``."""

    def __init__(self, path: Path, model: MorphableModel | None = None) -> None:
        """Open ``epoch_20.pth`` of Deep3DFaceRecon.

        Args:
            model: the Basel Face Model, to tell how well landmarks are met; errors are nan without it.

        Raises:
            WeightsError: the file is missing, damaged or another network's.
        """
        self.model, self._net = model, ReconstructionNet().eval().requires_grad_(False)
        try:
            self._net.load_state_dict(
                from_net_recon(read_state(path, "regressor", "get epoch_20.pth of Deep3DFaceRecon", "net_recon"))
            )
        except RuntimeError:
            raise WeightsError(f"{path.name} does not hold Deep3DFaceRecon's net_recon; use its epoch_20.pth") from None

    def __call__(self, picture: Tensor, points: np.ndarray, progress: Progress = silent) -> Estimate:
        """Estimate one face of ``picture`` ``(1, 3, H, W)`` with 68 landmarks ``(68, 2)``."""
        transform = reconstruction_transform(points, *picture.shape[-2:])
        with torch.inference_mode(False), torch.no_grad():
            vector = self._net(crop(picture.clone(), transform, SIDE).clamp(0, 1))
            found = Coefficients.from_vector(vector, DEEP3D, "bfm")
            gaze = torch.from_numpy(gaze_of(picture, points))[None].float()
            found = replace(found, gaze=gaze)
            target = torch.from_numpy(apply(transform, points))
            errors = (
                torch.full((1,), float("nan"))
                if self.model is None
                else landmark_errors(self.model, found, target[None])
            )
        progress(1, 1, "reading coefficients")
        return Estimate(found, torch.from_numpy(transform)[None].float(), errors)


def from_net_recon(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published names, which are torchvision's, as transformers names them; the heads keep theirs."""
    made = {}
    for key, value in state.items():
        if key.startswith("final_layers."):
            made[key] = value
            continue
        made["backbone." + _renamed(key.removeprefix("backbone."))] = value
    return made


def _renamed(key: str) -> str:
    for old, new in (("conv1.", "convolution."), ("bn1.", "normalization.")):
        if key.startswith(old):
            return f"embedder.embedder.{new}{key.removeprefix(old)}"
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)", key)
    if not found:
        raise WeightsError(f"{key} is no part of Deep3DFaceRecon's net_recon; use its epoch_20.pth")
    stage, block, kind, number, rest = found.groups()
    place = f"encoder.stages.{int(stage) - 1}.layers.{block}"
    if kind == "downsample.":
        return f"{place}.shortcut.{'convolution' if number == '0' else 'normalization'}.{rest}"
    return f"{place}.layer.{int(number) - 1}.{'convolution' if kind == 'conv' else 'normalization'}.{rest}"


def _resnet50() -> Any:
    try:
        from transformers import ResNetConfig, ResNetModel
    except ImportError:
        raise WeightsError("the transformers package is missing; install it with: pip install transformers") from None
    return ResNetModel(ResNetConfig(depths=list(_STAGES), layer_type="bottleneck", downsample_in_bottleneck=False))
