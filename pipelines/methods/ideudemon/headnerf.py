"""HeadNeRF (Hong et al. 2022): a parametric head as a radiance field, drawn at low resolution and then upsampled.

    points    65 depths between the planes z = 2.5 and z = -3.5 dm, of which the first 64 are used
    field     the encoded point and the shape code give a density; the appearance code gives a feature
    rendering features are summed along the ray, with a learned background behind them
    image     1x1 convolutions and pixel shuffling double the resolution until the image is complete

The names and shapes of the weights are those of the public checkpoints. All their layers are 1x1 convolutions over
points. The codes are the same at every point, so their part of a layer is added to its bias once; the rest are matrix
products. The last layer of the features is linear, so it is applied after the sum along the ray. Rays are followed from
front to back, and end where nothing behind can be seen. All three give the same numbers in less time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ...core.errors import InputError
from .cameras import NerfCamera

IDENTITY, EXPRESSION, ALBEDO, ILLUMINATION = 100, 79, 100, 27
"""Lengths of the codes."""
SHAPE_CODE, APPEARANCE_CODE = IDENTITY + EXPRESSION, ALBEDO + ILLUMINATION
NEAR, FAR = 2.5, -3.5
"""Planes of the first and the last depth, in decimeters along z."""
_MIN_DISTANCE = 1.0
"""Minimum distance of a camera from the first plane, in decimeters."""
SAMPLES = 64
FREQUENCIES = 10
_ENCODED = 3 + 6 * FREQUENCIES
_LAYERS, _SKIP = 8, 4
_MIN_CHANNELS = 32
_TINY = 1e-10
_SLOPE = 0.2
RAYS = 128
"""Rays that are computed at once on the CPU; more need more memory and are not faster."""
GPU_RAYS = 4096
"""The same on a GPU, where each call costs time: a segment of so many rays has about half a gigabyte."""
KEPT_BYTES = 2 << 30
"""With gradients, intermediate results are kept up to this size; beyond, they are computed twice."""
_SEGMENT = 8
"""Samples that are computed before the rays are tested again."""
_OPAQUE = 1e-6
"""A ray ends where less than this share of what is behind can be seen."""


@dataclass(frozen=True)
class HeadNeRFConfig:
    """Sizes of the network. The public checkpoints have 32 to 256, 32 to 512 and 64 to 512 px.

    Attributes:
        features: side F of the feature map, in rays.
        image: side of the image in pixels, F times a power of two.
        channels: of the feature map.
        width: of the field's layers.
    """

    features: int = 32
    image: int = 256
    channels: int = 256
    width: int = 384

    def __post_init__(self) -> None:
        if self.features < 2 or self.image != self.features << max(self.doublings, 1):
            raise InputError(f"HeadNeRF cannot draw {self.image} px from {self.features} x {self.features} rays")

    @property
    def doublings(self) -> int:
        """How often the resolution doubles."""
        return int(math.log2(max(1, self.image // self.features)))


@dataclass(frozen=True)
class HeadCodes:
    """Latent codes of N heads: z_id and z_app of IDEudemon, whose z_app joins expression, albedo and illumination.

    Attributes:
        identity: z_id ``(N, 100)``.
        expression: ``(N, 79)``.
        albedo: ``(N, 100)``.
        illumination: ``(N, 27)``, nine bands of spherical harmonics with three colors each.
    """

    identity: Tensor
    expression: Tensor
    albedo: Tensor
    illumination: Tensor

    def __post_init__(self) -> None:
        widths = (IDENTITY, EXPRESSION, ALBEDO, ILLUMINATION)
        for value, width in zip(self.parts, widths, strict=True):
            if value.dim() != 2 or value.shape != (len(self.identity), width):
                raise InputError(
                    f"HeadNeRF's codes have {', '.join(map(str, widths))} numbers, got the shape {tuple(value.shape)}"
                )

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four codes."""
        return self.identity, self.expression, self.albedo, self.illumination

    @property
    def shape(self) -> Tensor:
        """``(N, 179)``: what the density depends on."""
        return torch.cat([self.identity, self.expression], 1)

    @property
    def appearance(self) -> Tensor:
        """``(N, 127)``: what only the color depends on."""
        return torch.cat([self.albedo, self.illumination], 1)

    @classmethod
    def average(cls, count: int = 1) -> HeadCodes:
        """Codes of the average head in even light."""
        light = torch.zeros(count, ILLUMINATION)
        light[:, :3] = 0.8
        return cls(torch.zeros(count, IDENTITY), torch.zeros(count, EXPRESSION), torch.zeros(count, ALBEDO), light)


def encode(points: Tensor) -> Tensor:
    """Positional encoding of points ``(..., 3)``: themselves, then sines and cosines of 2^k x, ``(..., 63)``."""
    parts = [points]
    for k in range(FREQUENCIES):
        parts += [torch.sin(points * 2.0**k), torch.cos(points * 2.0**k)]
    return torch.cat(parts, -1)


Segment = tuple[Tensor, Tensor, Tensor]
"""Weighted sums of the last hidden layer ``(R, H)`` and of the weights ``(R, 1)`` along a segment, and how much of what
is behind it can be seen ``(R, 1)``."""


class RadianceField(nn.Module):
    """Density and features at points."""

    def __init__(self, config: HeadNeRFConfig) -> None:
        super().__init__()
        width, inputs = config.width, _ENCODED + SHAPE_CODE
        for index in range(_LAYERS):
            before = inputs if index == 0 else width + (inputs if index == _SKIP + 1 else 0)
            self.add_module(f"FeaExt_module_{index}", nn.Conv2d(before, width, 1))
        self.density_module = nn.Conv2d(width, 1, 1)
        self.RGB_layer_0 = nn.Conv2d(width, width, 1)
        self.RGB_layer_1 = nn.Conv2d(width + APPEARANCE_CODE, width // 2, 1)
        self.RGB_layer_2 = nn.Conv2d(width // 2, config.channels, 1)

    def forward(self, points: Tensor, steps: Tensor, shape: Tensor, appearance: Tensor) -> Segment:
        """What segments of rays of one head show.

        Args:
            points: ``(R, P, 3)`` in decimeters.
            steps: lengths of the steps between them ``(R, P)``.
            shape: ``(179,)``.
            appearance: ``(127,)``.
        """
        rays, samples = steps.shape
        encoded = encode(points).reshape(rays * samples, _ENCODED)
        x = encoded
        for index in range(_LAYERS):
            weight, bias = _matrix(getattr(self, f"FeaExt_module_{index}"))
            if index in (0, _SKIP + 1):
                # The inputs are the encoded point, the shape code, and the layer before.
                bias = bias + weight[:, _ENCODED : _ENCODED + SHAPE_CODE] @ shape
                places = [weight[:, :_ENCODED], weight[:, _ENCODED + SHAPE_CODE :]]
                weight = torch.cat(places, 1) if index else places[0]
                x = torch.cat([encoded, x], 1) if index else encoded
            x = torch.addmm(bias, x, weight.T).relu()
        weight, bias = _matrix(self.density_module)
        density = torch.addmm(bias, x, weight.T).relu().view(rays, samples)
        # The next two layers have no activation between them.
        first, first_bias = _matrix(self.RGB_layer_0)
        second, second_bias = _matrix(self.RGB_layer_1)
        inner, code = second[:, : first.shape[0]], second[:, first.shape[0] :]
        bias = second_bias + inner @ first_bias + code @ appearance
        hidden = torch.addmm(bias, x, (inner @ first).T).relu().view(rays, samples, -1)
        alpha = 1 - torch.exp(-density * steps)
        passed = torch.cumprod(1 - alpha + _TINY, 1)
        weights = alpha * functional.pad(passed[:, :-1], (1, 0), value=1.0)
        return (weights[:, None] @ hidden)[:, 0], weights.sum(1, keepdim=True), passed[:, -1:]

    def features(self, hidden: Tensor, total: Tensor) -> Tensor:
        """Features ``(R, C)`` of whole rays, from the sums of their segments."""
        weight, bias = _matrix(self.RGB_layer_2)
        return hidden @ weight.T + total * bias


def _matrix(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight ``(out, in)`` and bias of a 1x1 convolution."""
    return layer.weight[:, :, 0, 0], layer.bias  # type: ignore[index, return-value]


class Blur(nn.Module):
    """A normalized 3x3 binomial filter with reflected borders."""

    f: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("f", torch.tensor([1.0, 2.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        kernel = torch.outer(self.f, self.f) / self.f.sum() ** 2
        channels = x.shape[1]
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)


class Upsample(nn.Module):
    """Doubles the resolution: two layers over channels, pixel shuffling, and a blur."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_1 = nn.Conv2d(channels, channels * 2, 1)
        self.layer_2 = nn.Conv2d(channels * 2, channels * 4, 1)
        self.blur_layer = Blur()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.layer_1(x), _SLOPE)
        y = functional.leaky_relu(self.layer_2(y), _SLOPE)
        return self.blur_layer(functional.pixel_shuffle(y + x.repeat(1, 4, 1, 1), 2))  # type: ignore[no-any-return]


class NeuralRenderer(nn.Module):
    """From a feature map ``(N, C, F, F)`` to an image ``(N, 3, S, S)`` in [0, 1]."""

    def __init__(self, config: HeadNeRFConfig) -> None:
        super().__init__()
        count = config.doublings
        widths = [max(config.channels >> i, _MIN_CHANNELS) for i in range(count + 1)]
        self.bg_featmap = nn.Parameter(torch.ones(1, config.channels, config.features, config.features))
        self.feat_upsample_list = nn.ModuleList(Upsample(width) for width in widths[:count])
        self.rgb_upsample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            Blur(),
        )
        self.feat_2_rgb_list = nn.ModuleList(nn.Conv2d(width, 3, 1) for width in widths)
        self.feat_layers = nn.ModuleList(nn.Conv2d(widths[i], widths[i + 1], 1) for i in range(count))

    def forward(self, features: Tensor) -> Tensor:
        colors = self.rgb_upsample(self.feat_2_rgb_list[0](features))
        for index, (upsample, layer) in enumerate(zip(self.feat_upsample_list, self.feat_layers, strict=True)):
            features = functional.leaky_relu(layer(upsample(features)), _SLOPE)
            colors = colors + self.feat_2_rgb_list[index + 1](features)
            if index < len(self.feat_layers) - 1:
                colors = self.rgb_upsample(colors)
        return torch.sigmoid(colors)


@dataclass(frozen=True)
class HeadImage:
    """Drawn heads.

    Attributes:
        image: ``(N, 3, S, S)``, RGB in [0, 1], in front of the learned background, which is about white.
        background: the background alone ``(1, 3, S, S)``.
        coverage: how much of each ray the head stops, ``(N, 1, F, F)``.
    """

    image: Tensor
    background: Tensor
    coverage: Tensor


class HeadNeRF(nn.Module):
    """Draws heads from codes and cameras."""

    def __init__(self, config: HeadNeRFConfig) -> None:
        super().__init__()
        self.config = config
        # Each point keeps the activations of ten layers, in four bytes each.
        self._kept = config.features**2 * SAMPLES * config.width * (_LAYERS + 2) * 4 <= KEPT_BYTES
        self.fg_CD_predictor = RadianceField(config)
        self.neural_render = NeuralRenderer(config)

    def forward(self, codes: HeadCodes, camera: NerfCamera, rays: int | None = None) -> HeadImage:
        """Draw N heads.

        Args:
            codes: one row for each head.
            camera: one for each head.
            rays: that are computed at once; ``RAYS`` or ``GPU_RAYS`` when omitted.
        """
        side = self.config.features
        rays = rays or (RAYS if codes.shape.device.type == "cpu" else GPU_RAYS)
        origins, directions = camera.rays(side)
        if bool((origins[:, 2] < NEAR + _MIN_DISTANCE).any()):
            raise InputError("HeadNeRF cannot draw a head from the side or from behind; use smaller angles")
        rows = [
            self._features(o, d, s, a, rays)
            for o, d, s, a in zip(origins, directions, codes.shape, codes.appearance, strict=True)
        ]
        features, behind = (
            torch.stack(part).transpose(1, 2).unflatten(2, (side, side)) for part in zip(*rows, strict=True)
        )
        background = self.neural_render.bg_featmap
        image = self.neural_render(features + behind * background)
        return HeadImage(image, self.neural_render(background), 1 - behind)

    def _features(
        self, origin: Tensor, directions: Tensor, shape: Tensor, appearance: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Features ``(R, C)`` and transparency ``(R, 1)`` of the rays of one head, some rays at a time."""
        found = [self._followed(*samples(origin, part), shape, appearance) for part in directions.split(count)]
        hidden, total = (torch.cat(part) for part in zip(*found, strict=True))
        return self.fg_CD_predictor.features(hidden, total), 1 - total

    def _followed(self, points: Tensor, steps: Tensor, shape: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """Sums along rays with ``(R, 64, 3)`` points, from front to back: ``(R, H)`` and ``(R, 1)``."""
        hidden = points.new_zeros(len(points), self.config.width // 2)
        total, passed = points.new_zeros(len(points), 1), points.new_ones(len(points), 1)
        for start in range(0, SAMPLES, _SEGMENT):
            seen = (passed[:, 0] > _OPAQUE).nonzero()[:, 0]
            if not len(seen):
                break
            part = slice(start, start + _SEGMENT)
            inputs = (points[seen, part], steps[seen, part], shape, appearance)
            if torch.is_grad_enabled() and not self._kept:
                segment: Segment = checkpoint(self.fg_CD_predictor, *inputs, use_reentrant=False)
            else:
                segment = self.fg_CD_predictor(*inputs)
            before = passed[seen]
            hidden = hidden.index_add(0, seen, before * segment[0])
            total = total.index_add(0, seen, before * segment[1])
            passed = passed.index_copy(0, seen, before * segment[2])
        return hidden, total


def samples(origin: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Points along rays.

    Args:
        origin: center of the camera ``(3,)``, in front of the head, at positive z.
        directions: ``(R, 3)``, with the z component -1.

    Returns:
        Points ``(R, 64, 3)``, and the lengths of the steps between them ``(R, 64)``.
    """
    share = torch.linspace(0, 1, SAMPLES + 1, device=directions.device, dtype=directions.dtype)
    depths = (origin[2] - NEAR) * (1 - share) + (origin[2] - FAR) * share
    lengths = directions.norm(dim=1, keepdim=True)
    points = origin + directions[:, None] * depths[:-1, None]
    return points, (depths[1:] - depths[:-1]) * lengths
