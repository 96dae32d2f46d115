"""Split a face in the frame into light and detail, and measure what must be kept.

``log image = light + detail``: light is a masked low-pass of the log image over plain skin, plus the left-right
antisymmetric part of its mid band (side light has no mirror image, features mostly do).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...imaging.resample import blur, resize
from .canonical import PX, SIZE, CanonicalSpace

LIGHT_SIZE = 64
_SIGMA = 0.29 * PX * LIGHT_SIZE / SIZE
_MID_SIGMA = 0.08 * PX * LIGHT_SIZE / SIZE
_FLOOR = 6.0


def to_log(image: Tensor) -> Tensor:
    """RGB in [0, 1] to log values; black stays finite."""
    return torch.log((image.clamp(0, 1) * 255 + _FLOOR) / (255 + _FLOOR))


def from_log(logs: Tensor) -> Tensor:
    """The inverse of ``to_log``."""
    return (torch.exp(logs) * (255 + _FLOOR) - _FLOOR) / 255


def apply_gain(image: Tensor, gain: Tensor) -> Tensor:
    """Add ``gain`` to the log image: the inverse of ``to_log`` around a change; a gain of 0 changes nothing."""
    return ((image * 255 + _FLOOR) * torch.exp(gain) - _FLOOR) / 255


@dataclass(frozen=True)
class FaceLayers:
    """A face in the frame, all ``(1, C, 256, 256)``.

    Attributes:
        light: what the photo keeps.
        detail: what the model replaces.
        visible: 1 where skin or features are seen, 0 under hair or another cover of forehead and temples.
        low: the low-pass part of the light at 64 px, from which attributes are measured.
    """

    light: Tensor
    detail: Tensor
    visible: Tensor
    low: Tensor


class Splitter:
    """Separates layers with the masks of one frame."""

    def __init__(self, frame: CanonicalSpace) -> None:
        self.frame = frame
        x, y = frame.xy

        def small(mask: Tensor) -> Tensor:
            return resize(mask, LIGHT_SIZE, LIGHT_SIZE)

        self._skin = small(frame.skin)
        beard_zone = small(((y - 0.70) / 0.12).clamp(0, 1)[None, None])
        hair_zone = small(((-0.26 - y) / 0.12).clamp(0, 1)[None, None])
        self._floor = 0.03 + 0.5 * (1 - beard_zone) * (1 - hair_zone)
        self._cover_zone = torch.maximum(((-0.26 - y) / 0.12).clamp(0, 1), ((x.abs() - 0.80) / 0.15).clamp(0, 1))[
            None, None
        ]
        self.zones = {
            "cheeks": ((x.abs() - 0.62).abs() < 0.16) & (y > 0.38) & (y < 0.68),
            "under eyes": ((x.abs() - 0.5).abs() < 0.3) & (y > 0.20) & (y < 0.42),
            "chin": (x.abs() < 0.45) & (y > 1.42) & (y < 1.75),
            "moustache": (x.abs() < 0.30) & (y > 0.76) & (y < 0.90),
            "jaw sides": ((x.abs() - 0.75).abs() < 0.12) & (y > 0.95) & (y < 1.25),
            "forehead": (x.abs() < 0.72) & (y < -0.48) & (y > -0.80) & (frame.face[0, 0] > 0.5),
            "between brows": (x.abs() < 0.16) & (y > -0.12) & (y < 0.12),
        }
        self._reference = self.zones["cheeks"] | self.zones["under eyes"]

    def split(self, texture: Tensor) -> FaceLayers:
        """FaceLayers of a texture ``(1, 3, 256, 256)``, RGB in [0, 1]."""
        logs = to_log(texture)
        like = self.likeness(texture)
        weight = self._skin * (self._floor + (1 - self._floor) * resize(like, LIGHT_SIZE, LIGHT_SIZE))
        small = resize(logs, LIGHT_SIZE, LIGHT_SIZE)
        low = _masked_blur(small, weight, _SIGMA)
        light = resize(low + self._side_light(small, low, weight), SIZE, SIZE)
        return FaceLayers(light=light, detail=logs - light, visible=self._visible(like), low=low)

    def likeness(self, texture: Tensor) -> Tensor:
        """How alike each pixel is to this person's cheeks, 0 to 1, ``(1, 1, 256, 256)``."""
        from kornia.color import rgb_to_lab

        lab = rgb_to_lab(texture.clamp(0, 1))
        reference = lab[0][:, self._reference]
        median = reference.median(1).values
        spread = 1.4826 * (reference - median[:, None]).abs().median(1).values
        spread = torch.maximum(spread, torch.tensor([2.7, 3.0, 3.5])) * torch.tensor([2.7, 2.6, 2.6])
        z = (lab - median.view(1, 3, 1, 1)) / spread.view(1, 3, 1, 1)
        return blur(torch.exp(-0.5 * ((z**2).sum(1, keepdim=True) - 0.6).clamp(min=0)), 1.5)

    def _side_light(self, small: Tensor, low: Tensor, weight: Tensor) -> Tensor:
        weight = weight * self._skin.clamp(max=1)
        both = torch.minimum(weight, weight.flip(-1))
        mid = _masked_blur(small, both + 0.02 * weight, _MID_SIGMA) - low
        trust = blur(both, 2.0) / blur(self._skin, 2.0).clamp(min=0.05)
        return (mid - mid.flip(-1)) / 2 * (1.2 * trust).clamp(0, 1)

    def _visible(self, like: Tensor) -> Tensor:
        eroded = 1 - torch.nn.functional.max_pool2d(1 - like, 5, 1, 2)
        clear = (blur(eroded, 4.0) * 1.9 - 0.45).clamp(0, 1)
        return 1 - self._cover_zone * (1 - clear)


def _masked_blur(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Blur of ``values`` where ``weight`` is, filled from four times as far where it is not."""
    near = blur(torch.cat([values * weight, weight], 1), sigma)
    far = blur(torch.cat([values * weight, weight], 1), 4 * sigma)
    fallback = far[:, :-1] / (far[:, -1:] + 1e-3)
    return (near[:, :-1] + 0.02 * fallback) / (near[:, -1:] + 1e-4 + 0.02)


@dataclass(frozen=True)
class Measures:
    """What is measured on a face to keep it: numbers in the order of ``MEASURES``; ``pattern`` is the light at 16
    px."""

    values: np.ndarray
    pattern: np.ndarray
    glasses: float
    fringe: float


MEASURES = (
    "luminance",
    "beard on chin",
    "moustache",
    "beard on jaw",
    "roughness",
    "forehead creases",
    "eye creases",
    "yaw",
    "mouth gap",
    "mouth width",
    "mouth curve",
)


def measure(splitter: Splitter, texture: Tensor, layers: FaceLayers, shape: np.ndarray) -> Measures:
    """Measure one face.

    Args:
        texture: ``(1, 3, 256, 256)``.
        shape: ``(68, 2)`` in IOD units.
    """
    from kornia.color import rgb_to_lab

    lab = rgb_to_lab(texture.clamp(0, 1))[0]
    lightness = lab[0]
    zones = splitter.zones
    cheek = float(lightness[zones["cheeks"]].median())
    fine = (lightness - blur(lightness[None, None], 2.0)[0, 0]).abs()
    band = (blur(lightness[None, None], 1.5) - blur(lightness[None, None], 4.0))[0, 0].abs()
    low = resize(layers.low, 16, 16)[0].numpy()
    mean = low.mean((1, 2))
    values = np.array(
        [
            mean.mean(),
            *(float(lightness[zones[z]].mean()) - cheek for z in ("chin", "moustache", "jaw sides")),
            float(fine[zones["cheeks"]].mean()),
            float(band[zones["forehead"]].mean()),
            float(band[zones["under eyes"]].mean()),
            *mouth_and_yaw(shape),
        ]
    )
    slope = (blur(lightness[None, None], 1.0)[0, 0]).diff(dim=0, append=lightness[-1:]).abs() * 4
    glasses = float(slope[zones["between brows"]].quantile(0.90) + 0.7 * slope[zones["under eyes"]].quantile(0.92))
    forehead = lightness[zones["forehead"]]
    fringe = float(((forehead - forehead.median()).abs() > 12).float().mean() + (forehead - cheek).abs().mean() / 60)
    return Measures(values, (low - mean[:, None, None]).ravel(), glasses, fringe)


def mouth_and_yaw(shape: np.ndarray) -> tuple[float, float, float, float]:
    """Yaw offset, inner lip gap, mouth width and smile curve of a shape in IOD units."""
    yaw = shape[27:31, 0].mean() - (shape[0:3, 0].mean() + shape[14:17, 0].mean()) / 2
    return (
        float(yaw),
        float(shape[66, 1] - shape[62, 1]),
        float(shape[54, 0] - shape[48, 0]),
        float((shape[48, 1] + shape[54, 1]) / 2 - shape[51, 1]),
    )
