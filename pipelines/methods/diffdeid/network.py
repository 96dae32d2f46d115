"""The denoiser of DiffDeID (section 3.3): a U-Net in pixel space with two encoders, texture attention and AdaIN.

encoder E        of [z_t, I_3d]: the noisy image and the rendered face
encoder E_t      of I_m: the image without the identity, and its mask; it does not depend on z_t and t
texture attention (Eq. 5, 6) reads E_t's features where E's are
AdaIN (Eq. 7)    in each block, from C = z'_id + Linear(p') + Linear(t)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...identity.lds import alphas_cumprod

RESIDUALS = ("noise", "background")
_EPS = 1e-5
_FACE, _MASKED = 3, 4
"""Channels of I_3d, and of I_m with its mask."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the denoiser.

    Attributes:
        size: side of the image in pixels.
        channels: of each level; each level after the first halves the resolution.
        blocks: residual blocks of each level.
        attention: levels with texture attention, 0 for the full resolution.
        condition: length of C.
        identity: length of z'_id; 0 for the network of videos, which gets none.
        coefficients: length of p'.
        window: frames of coefficients that C sees, an odd number; 1 for images.
        residual: what texture attention adds its result to: the features of the noise, or those of the background.
    """

    size: int = 256
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    blocks: int = 2
    attention: tuple[int, ...] = (3, 4)
    condition: int = 512
    identity: int = 512
    coefficients: int = 261
    window: int = 1
    residual: str = "noise"

    def __post_init__(self) -> None:
        if self.residual not in RESIDUALS:
            raise InputError(f"residual {self.residual!r} is not one of {', '.join(RESIDUALS)}")
        step = 2 ** (len(self.channels) - 1)
        if self.size % step or self.size < step:
            raise InputError(f"the size must be a multiple of {step}, got {self.size}")
        if self.window % 2 == 0 or any(level >= len(self.channels) for level in self.attention):
            raise InputError("the window must be odd, and texture attention must be at levels that the network has")

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> NetworkConfig:
        """Invert ``as_dict``."""
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**read)


class AdaIN(nn.Module):
    """Adaptive instance normalization (Eq. 7): ``(F - mu(F)) / sigma(F) * sigma_c(C) + mu_c(C)``.

    It starts as a plain instance normalization.
    """

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.affine = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.cat([torch.ones(channels), torch.zeros(channels)]))

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Normalize ``(B, C, h, w)`` and scale by ``condition`` ``(B, K)``."""
        scale, shift = self.affine(condition)[..., None, None].chunk(2, 1)
        mean = features.mean((2, 3), keepdim=True)
        variance = features.var((2, 3), keepdim=True, unbiased=False)
        return (features - mean) * torch.rsqrt(variance + _EPS) * scale + shift  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions, each after AdaIN and SiLU; it starts as its shortcut."""

    def __init__(self, channels: int, out_channels: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = AdaIN(channels, condition), AdaIN(out_channels, condition)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(functional.silu(self.norm1(x, condition)))
        y = self.conv2(functional.silu(self.norm2(y, condition)))
        return self.shortcut(x) + y  # type: ignore[no-any-return]


class TextureAttention(nn.Module):
    """Reads the background's features F_b where those of the noise F_n are (Eq. 5 and 6).

    ``M = softmax(Q K^T / sqrt(d))``, ``F_o = tau M V + F_n``. The paper's Eq. 5 has no ``1 / sqrt(d)``; without it the
    softmax saturates. ``tau`` starts at 0.
    """

    def __init__(self, channels: int, residual: str) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.tau = nn.Parameter(torch.zeros(()))
        self._of_background = residual == "background"

    def forward(self, noise: Tensor, background: Tensor) -> Tensor:
        """F_o of F_n and F_b, all ``(B, C, h, w)``."""
        query = self.query(noise).flatten(2).transpose(1, 2)
        key, value = (f(background).flatten(2).transpose(1, 2) for f in (self.key, self.value))
        read = functional.scaled_dot_product_attention(query, key, value)
        read = read.transpose(1, 2).reshape(noise.shape)
        return self.tau * read + (background if self._of_background else noise)


class Encoder(nn.Module):
    """Features of each level, from the full resolution down."""

    def __init__(self, in_channels: int, config: NetworkConfig) -> None:
        super().__init__()
        channels, condition = config.channels, config.condition
        self.stem = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.levels = nn.ModuleList()
        self.downs = nn.ModuleList()
        before = channels[0]
        for level, width in enumerate(channels):
            self.downs.append(Downsample2D(before, use_conv=True) if level else nn.Identity())
            self.levels.append(
                nn.ModuleList(ResidualBlock(width if i else before, width, condition) for i in range(config.blocks))
            )
            before = width

    def forward(self, x: Tensor, condition: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for down, blocks in zip(self.downs, self.levels, strict=True):
            x = down(x)
            for block in blocks:  # type: ignore[union-attr, attr-defined]
                x = block(x, condition)
            features.append(x)
        return features


class Decoder(nn.Module):
    """The encoder mirrored; each level reads the encoder's features of its resolution."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels, condition = config.channels, config.condition
        self.levels = nn.ModuleList()
        self.ups = nn.ModuleList()
        before = channels[-1]
        for width in reversed(channels):
            self.ups.append(Upsample2D(before, use_conv=True) if self.levels else nn.Identity())
            self.levels.append(
                nn.ModuleList(
                    ResidualBlock(width if i else before + width, width, condition) for i in range(config.blocks)
                )
            )
            before = width
        self.norm = AdaIN(before, condition)
        self.out = nn.Conv2d(before, 3, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, skips: Sequence[Tensor], condition: Tensor) -> Tensor:
        for up, blocks, skip in zip(self.ups, self.levels, reversed(skips), strict=True):
            x = torch.cat([up(x), skip], 1)
            for block in blocks:  # type: ignore[union-attr, attr-defined]
                x = block(x, condition)
        return self.out(functional.silu(self.norm(x, condition)))  # type: ignore[no-any-return]


class CoefficientEmbedding(nn.Module):
    """Linear(p') of one frame; three 1D convolutions over a window of frames."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width, condition = config.coefficients, config.condition
        self.window = config.window
        self.layers: nn.Module
        if config.window == 1:
            self.layers = nn.Linear(width, condition)
        else:
            self.layers = nn.Sequential(
                nn.Conv1d(width, condition, 3, padding=1),
                nn.SiLU(),
                nn.Conv1d(condition, condition, 3, padding=1),
                nn.SiLU(),
                nn.Conv1d(condition, condition, config.window),
            )

    def forward(self, coefficients: Tensor) -> Tensor:
        """``(B, K)`` of standardized coefficients ``(B, window, D)``."""
        if self.window == 1:
            return self.layers(coefficients[:, 0])  # type: ignore[no-any-return]
        return self.layers(coefficients.transpose(1, 2))[..., 0]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is told about B images.

    Attributes:
        face: I_3d ``(B, 3, S, S)`` in [-1, 1], 0 beside the face.
        masked: I_m and its mask ``(B, 4, S, S)``; the image in [-1, 1], 0 where the mask is 1.
        identity: z'_id ``(B, D)``, unit vectors times sqrt(D); empty for videos.
        coefficients: p' ``(B, window, P)``, standardized.
    """

    face: Tensor
    masked: Tensor
    identity: Tensor
    coefficients: Tensor

    def __len__(self) -> int:
        return len(self.face)

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All tensors, in the order of ``Denoiser.forward``."""
        return self.face, self.masked, self.identity, self.coefficients

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditions:
        """Move all tensors."""
        return Conditions(*(part.to(device, dtype) for part in self.parts()))

    def rows(self, chosen: Sequence[int]) -> Conditions:
        """Select images, in the given order."""
        return Conditions(*(part[list(chosen)] for part in self.parts()))

    def without_identity(self) -> Conditions:
        """The same with z'_id = 0, for classifier-free guidance."""
        return Conditions(self.face, self.masked, torch.zeros_like(self.identity), self.coefficients)

    @classmethod
    def cat(cls, several: Sequence[Conditions]) -> Conditions:
        """Join batches."""
        return cls(*(torch.cat(parts) for parts in zip(*(c.parts() for c in several), strict=True)))


class Denoiser(nn.Module):
    """Predicts the noise in ``(B, 3, S, S)``.

    The last layer predicts the velocity v, from which the noise follows: ``eps = sqrt(abar) v + sqrt(1 - abar) z_t``.
    A network that predicts the noise itself has to copy z_t at late steps; there its errors become 157 times as large
    in the image.
    """

    _alphas: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        condition = config.condition
        self.identity = nn.Linear(config.identity, condition, bias=False) if config.identity else None
        self.coefficients = CoefficientEmbedding(config)
        self.sinusoid = Timesteps(condition, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(condition, condition)
        self.encoder = Encoder(3 + _FACE, config)
        self.texture_encoder = Encoder(_MASKED, config)
        self.attention = nn.ModuleDict(
            {str(level): TextureAttention(config.channels[level], config.residual) for level in config.attention}
        )
        self.decoder = Decoder(config)
        self.register_buffer("_alphas", alphas_cumprod(), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.decoder.out.weight.dtype

    def condition(self, identity: Tensor, coefficients: Tensor) -> Tensor:
        """C without the time, ``(B, K)``.

        The paper adds z'_id itself, whose 512 numbers are as many as C has. A linear map makes other spaces fit.
        """
        c = self.coefficients(coefficients)
        return c if self.identity is None else c + self.identity(identity)  # type: ignore[no-any-return]

    def textures(self, masked: Tensor, condition: Tensor) -> list[Tensor]:
        """F_b of each level. They are the same at every time step, so one call per image is enough."""
        return self.texture_encoder(masked, condition)  # type: ignore[no-any-return]

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        face: Tensor,
        masked: Tensor,
        identity: Tensor,
        coefficients: Tensor,
        textures: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Predict the noise.

        Args:
            x: z_t ``(B, 3, S, S)``.
            time: ``(B,)``, 0 to 999.
            face, masked, identity, coefficients: see ``Conditions``.
            textures: of ``textures``, where they were computed before.
        """
        still = self.condition(identity, coefficients)
        if textures is None:
            textures = self.textures(masked, still)
        condition = still + self.time(self.sinusoid(time).to(still.dtype))
        features = self.encoder(torch.cat([x, face], 1), condition)
        for level, attention in self.attention.items():
            features[int(level)] = attention(features[int(level)], textures[int(level)])
        velocity = self.decoder(features[-1], features, condition)
        alpha = self._alphas.to(x.device)[time.long()].view(-1, 1, 1, 1).to(x.dtype)
        return alpha.sqrt() * velocity + (1 - alpha).sqrt() * x  # type: ignore[no-any-return]


def describe(config: NetworkConfig) -> str:
    """Parameters and multiply-adds of one call at batch size 1, in a sentence."""
    from torch.utils.flop_counter import FlopCounterMode

    # On the meta device nothing is computed or allocated.
    with torch.device("meta"):
        network = Denoiser(config)
        size = (config.size, config.size)
        inputs = (
            torch.empty(1, 3, *size),
            torch.empty(1),
            torch.empty(1, _FACE, *size),
            torch.empty(1, _MASKED, *size),
            torch.empty(1, config.identity),
            torch.empty(1, config.window, config.coefficients),
        )
        with FlopCounterMode(display=False) as counter:
            network(*inputs)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    return f"{config.size} px: {millions:.1f} M parameters, {counter.get_total_flops() / 2e9:.1f} G multiply-adds"
