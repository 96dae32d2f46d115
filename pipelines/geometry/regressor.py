"""The regressor of Deep3DFaceRecon (Deng et al. 2019): a ResNet-50 that predicts 257 BFM coefficients from an aligned
face."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import WeightsError
from ..core.progress import Progress, silent
from ..core.stored import read_state
from ..faces.align import apply
from .alignment import aligned_square, reconstruction_transform
from .coefficients import DEEP3D, Coefficients
from .fitting import Estimate, landmark_errors
from .gaze import gaze_of
from .morphable import MorphableModel

HEADS = (80, 64, 80, 3, 27, 2, 1)
"""Output sizes of the seven heads: identity, expression, texture, angles, lighting, translation x and y, translation
z."""
_FEATURES = 2048
_STAGES = (3, 4, 6, 3)


class ReconstructionNet(nn.Module):
    """Map faces ``(B, 3, 224, 224)`` in [0, 1] to coefficients ``(B, 257)``.

    The backbone is the ResNet-50 of transformers, with the stride in the 3x3 convolution of each bottleneck.
    """

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
    """Estimate BFM coefficients with a checkpoint from the user; called in the same way as ``Fitter``."""

    def __init__(self, path: Path, model: MorphableModel | None = None) -> None:
        """Load ``epoch_20.pth`` of Deep3DFaceRecon.

        Args:
            path: the checkpoint.
            model: the Basel Face Model, which is needed to compute landmark errors; they are nan without it.

        Raises:
            WeightsError: the file is missing or damaged, or belongs to another network.
        """
        self.model, self._net = model, ReconstructionNet().eval().requires_grad_(False)
        try:
            self._net.load_state_dict(
                from_net_recon(read_state(path, "regressor", "get epoch_20.pth of Deep3DFaceRecon", "net_recon"))
            )
        except RuntimeError:
            raise WeightsError(f"{path.name} does not hold Deep3DFaceRecon's net_recon; use its epoch_20.pth") from None

    def __call__(self, image: Tensor, points: np.ndarray, progress: Progress = silent) -> Estimate:
        """Estimate one face of ``image`` ``(1, 3, H, W)`` from 68 landmarks ``(68, 2)`` in pixels."""
        transform = reconstruction_transform(points, *image.shape[-2:])
        with torch.inference_mode(False), torch.no_grad():
            vector = self._net(aligned_square(image.clone(), transform))
            found = Coefficients.from_vector(vector, DEEP3D, "bfm")
            gaze = torch.from_numpy(gaze_of(image, points))[None].float()
            found = replace(found, gaze=gaze)
            target = torch.from_numpy(apply(transform, points))
            errors = (
                torch.full((1,), float("nan"))
                if self.model is None
                else landmark_errors(self.model, found, target[None])
            )
        progress(1, 1, "estimating coefficients")
        return Estimate(found, torch.from_numpy(transform)[None].float(), errors)


def from_net_recon(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights from the published (torchvision) names to those of transformers; the heads keep their names."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("final_layers."):
            renamed[key] = value
            continue
        renamed["backbone." + _renamed(key.removeprefix("backbone."))] = value
    return renamed


def _renamed(key: str) -> str:
    for old, new in (("conv1.", "convolution."), ("bn1.", "normalization.")):
        if key.startswith(old):
            return f"embedder.embedder.{new}{key.removeprefix(old)}"
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)\.(.+)", key)
    if not found:
        raise WeightsError(f"{key} is not a weight of Deep3DFaceRecon's net_recon; use its epoch_20.pth")
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
