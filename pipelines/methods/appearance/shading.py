"""Decompose a canonical face image into shading and reflectance detail, and measure the attributes to keep.

``log image = shading + detail``. The shading is a masked low-pass of the log image over bare skin plus the left-right
antisymmetric part of its mid-frequency band. Light from the side is antisymmetric; most facial features are symmetric.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...imaging.lab import rgb_to_lab
from ...imaging.resample import blur, resize
from .canonical import PX, SIZE, CanonicalSpace, erode

SHADING_SIZE = 64
_SIGMA = 0.29 * PX * SHADING_SIZE / SIZE
_MID_SIGMA = 0.08 * PX * SHADING_SIZE / SIZE
_FLOOR = 6.0
OCCLUSION_RIM = 2 / PX
"""Around what lies in front of the face, in IOD: it counts as hidden, too."""


def to_log(image: Tensor) -> Tensor:
    """Convert RGB in [0, 1] to log values. An offset keeps black finite."""
    return torch.log((image.clamp(0, 1) * 255 + _FLOOR) / (255 + _FLOOR))


def from_log(logs: Tensor) -> Tensor:
    """Invert ``to_log``."""
    return (torch.exp(logs) * (255 + _FLOOR) - _FLOOR) / 255


def apply_gain(image: Tensor, gain: Tensor) -> Tensor:
    """Add ``gain`` to the log values of an image in [0, 1]; a gain of 0 changes nothing."""
    return ((image * 255 + _FLOOR) * torch.exp(gain) - _FLOOR) / 255


@dataclass(frozen=True)
class Decomposition:
    """Shading and reflectance detail of a canonical face image, as log values.

    Attributes:
        shading: ``(1, 3, 256, 256)``; it stays in the photo.
        detail: reflectance detail ``(1, 3, 256, 256)``; the model replaces it.
        visible: ``(1, 1, 256, 256)``, 0 where hair or another occlusion is in front of forehead or temples, else 1.
        low_frequency: the low-pass part of the shading, ``(1, 3, 64, 64)``, for the attributes.
        lightness: CIE L* of the image, ``(256, 256)``, for the attributes.
    """

    shading: Tensor
    detail: Tensor
    visible: Tensor
    low_frequency: Tensor
    lightness: Tensor


class Decomposer:
    """Separates shading and reflectance detail with the masks of a canonical face space."""

    def __init__(self, canonical: CanonicalSpace) -> None:
        self.canonical = canonical
        x, y = canonical.xy

        def small(mask: Tensor) -> Tensor:
            return resize(mask, SHADING_SIZE, SHADING_SIZE)

        self._skin = small(canonical.skin)
        beard_zone = small(((y - 0.70) / 0.12).clamp(0, 1)[None, None])
        hair_zone = small(((-0.26 - y) / 0.12).clamp(0, 1)[None, None])
        self._floor = 0.03 + 0.5 * (1 - beard_zone) * (1 - hair_zone)
        self._occlusion_zone = torch.maximum(((-0.26 - y) / 0.12).clamp(0, 1), ((x.abs() - 0.80) / 0.15).clamp(0, 1))[
            None, None
        ]
        self.zones = {
            "cheeks": ((x.abs() - 0.62).abs() < 0.16) & (y > 0.38) & (y < 0.68),
            "under eyes": ((x.abs() - 0.5).abs() < 0.3) & (y > 0.20) & (y < 0.42),
            "chin": (x.abs() < 0.45) & (y > 1.42) & (y < 1.75),
            "mustache": (x.abs() < 0.30) & (y > 0.76) & (y < 0.90),
            "jaw sides": ((x.abs() - 0.75).abs() < 0.12) & (y > 0.95) & (y < 1.25),
            "forehead": (x.abs() < 0.72) & (y < -0.48) & (y > -0.80) & (canonical.face[0, 0] > 0.5),
            "between brows": (x.abs() < 0.16) & (y > -0.12) & (y < 0.12),
        }
        self._reference = self.zones["cheeks"] | self.zones["under eyes"]

    def decompose(self, texture: Tensor) -> Decomposition:
        """Decompose a texture ``(1, 3, 256, 256)``, RGB in [0, 1]."""
        logs = to_log(texture)
        lab = rgb_to_lab(texture.clamp(0, 1))
        similarity = self._skin_similarity(lab)
        weight = self._skin * (self._floor + (1 - self._floor) * resize(similarity, SHADING_SIZE, SHADING_SIZE))
        small = resize(logs, SHADING_SIZE, SHADING_SIZE)
        low = _masked_blur(small, weight, _SIGMA)
        shading = resize(low + self._antisymmetric_shading(small, low, weight), SIZE, SIZE)
        return Decomposition(
            shading=shading,
            detail=logs - shading,
            visible=self._visible(similarity),
            low_frequency=low,
            lightness=lab[0, 0],
        )

    def _skin_similarity(self, lab: Tensor) -> Tensor:
        """Compute the color similarity of each pixel to the cheeks, 0 to 1, ``(1, 1, 256, 256)``."""
        reference = lab[0][:, self._reference]
        median = reference.median(1).values
        spread = 1.4826 * (reference - median[:, None]).abs().median(1).values
        spread = torch.maximum(spread, torch.tensor([2.7, 3.0, 3.5])) * torch.tensor([2.7, 2.6, 2.6])
        z = (lab - median.view(1, 3, 1, 1)) / spread.view(1, 3, 1, 1)
        return blur(torch.exp(-0.5 * ((z**2).sum(1, keepdim=True) - 0.6).clamp(min=0)), 1.5)

    def _antisymmetric_shading(self, small: Tensor, low: Tensor, weight: Tensor) -> Tensor:
        weight = weight * self._skin.clamp(max=1)
        both = torch.minimum(weight, weight.flip(-1))
        mid = _masked_blur(small, both + 0.02 * weight, _MID_SIGMA) - low
        trust = blur(both, 2.0) / blur(self._skin, 2.0).clamp(min=0.05)
        return (mid - mid.flip(-1)) / 2 * (1.2 * trust).clamp(0, 1)

    def _visible(self, similarity: Tensor) -> Tensor:
        eroded = erode(similarity, OCCLUSION_RIM)
        clear = (blur(eroded, 4.0) * 1.9 - 0.45).clamp(0, 1)
        return 1 - self._occlusion_zone * (1 - clear)


def _masked_blur(values: Tensor, weight: Tensor, sigma: float) -> Tensor:
    """Blur ``values`` with weights; where the weights are small, use a blur with four times the sigma."""
    near = blur(torch.cat([values * weight, weight], 1), sigma)
    far = blur(torch.cat([values * weight, weight], 1), 4 * sigma)
    fallback = far[:, :-1] / (far[:, -1:] + 1e-3)
    return (near[:, :-1] + 0.02 * fallback) / (near[:, -1:] + 1e-4 + 0.02)


@dataclass(frozen=True)
class Measures:
    """Measured properties of a face that the new face must share.

    Attributes:
        values: in the order of ``MEASURES``.
        pattern: shading at 16 x 16 px minus its mean, flattened, ``(768,)``.
    """

    values: np.ndarray
    pattern: np.ndarray


MEASURES = (
    "luminance",
    "beard on chin",
    "mustache",
    "beard on jaw",
    "roughness",
    "forehead creases",
    "eye creases",
    "yaw",
    "mouth gap",
    "mouth width",
    "mouth curve",
)


def measure(zones: dict[str, Tensor], decomposition: Decomposition, shape: np.ndarray) -> Measures:
    """Measure one face.

    Args:
        zones: of the decomposer.
        shape: landmarks ``(68, 2)`` in IOD units.
    """
    lightness = decomposition.lightness
    cheek = float(lightness[zones["cheeks"]].median())
    fine = (lightness - blur(lightness[None, None], 2.0)[0, 0]).abs()
    band = (blur(lightness[None, None], 1.5) - blur(lightness[None, None], 4.0))[0, 0].abs()
    low = resize(decomposition.low_frequency, 16, 16)[0].numpy()
    mean = low.mean((1, 2))
    values = np.array(
        [
            mean.mean(),
            *(float(lightness[zones[z]].mean()) - cheek for z in ("chin", "mustache", "jaw sides")),
            float(fine[zones["cheeks"]].mean()),
            float(band[zones["forehead"]].mean()),
            float(band[zones["under eyes"]].mean()),
            *mouth_and_yaw(shape),
        ]
    )
    pattern = (low - mean[:, None, None]).ravel()
    return Measures(values, pattern)


def mouth_and_yaw(shape: np.ndarray) -> tuple[float, float, float, float]:
    """Compute yaw offset, inner lip gap, mouth width and smile curve of a shape ``(68, 2)``, all in IOD units."""
    yaw = shape[27:31, 0].mean() - (shape[0:3, 0].mean() + shape[14:17, 0].mean()) / 2
    return (
        float(yaw),
        float(shape[66, 1] - shape[62, 1]),
        float(shape[54, 0] - shape[48, 0]),
        float((shape[48, 1] + shape[54, 1]) / 2 - shape[51, 1]),
    )
