"""The U-Net of DCFace and IDDiffuse: an ADM network in pixel space whose self-attention also reads condition tokens.

The names of its weights are those of guided diffusion, which DCFace's public checkpoints have as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError

_GROUPS = 32
_MAX_PERIOD = 10_000


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults are DCFace's.

    Attributes:
        size: side of the image in pixels.
        base: channels at the full resolution.
        multiples: channels of each level, in multiples of ``base``.
        smallest: side below which a level does not halve the resolution again.
        attention: levels with attention, 0 for the full resolution; the middle always has some.
        head: channels of an attention head.
        token: length of a condition token.
        dropout: in the residual blocks.
    """

    size: int = 112
    base: int = 128
    multiples: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    smallest: int = 7
    attention: tuple[int, ...] = (4,)
    head: int = 64
    token: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.base % _GROUPS:
            raise InputError(f"the channels must be a multiple of {_GROUPS}, got {self.base}")
        if self.sides[-1] < self.smallest or self.size % self.sides[-1]:
            raise InputError(f"a size of {self.size} cannot be halved {len(self.multiples) - 1} times")

    @property
    def sides(self) -> list[int]:
        """Side of each level in pixels."""
        found = [self.size]
        for _ in self.multiples[1:]:
            found.append(found[-1] // 2 if found[-1] > self.smallest else found[-1])
        return found

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> UNetConfig:
        """Invert ``as_dict``."""
        read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**read)


class ResBlock(nn.Module):
    """A residual block with scale and shift from the time embedding; it can change the resolution."""

    def __init__(self, channels: int, embedding: int, out_channels: int, dropout: float, resample: str = "") -> None:
        super().__init__()
        self._resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out_channels))
        last = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.out_layers = nn.Sequential(nn.GroupNorm(_GROUPS, out_channels), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip_connection: nn.Module = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = self._resized(activation(norm(x)))
        x = self._resized(x)
        h = convolution(h)
        scale, shift = self.emb_layers(embedding)[..., None, None].chunk(2, 1)
        norm, *rest = self.out_layers
        h = norm(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h  # type: ignore[no-any-return]

    def _resized(self, x: Tensor) -> Tensor:
        if self._resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2.0, mode="nearest") if self._resample == "up" else x


class AttentionBlock(nn.Module):
    """Self-attention whose keys and values also contain those of the condition tokens (IDDiffuse, Eq. 8).

    The tokens come first; one softmax runs over both.
    """

    def __init__(self, channels: int, head: int, token: int) -> None:
        super().__init__()
        self._heads = max(1, channels // head)
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.encoder_kv = nn.Conv1d(token, 2 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Attend from ``(B, C, h, w)`` to itself and to ``tokens`` ``(B, N, T)``."""
        flat = x.flatten(2)
        # Guided diffusion keeps query, key and value of one head together.
        query, key, value = self._split(self.qkv(self.norm(flat)), 3)
        token_key, token_value = self._split(self.encoder_kv(tokens.transpose(1, 2)), 2)
        key, value = torch.cat([token_key, key], 2), torch.cat([token_value, value], 2)
        read = functional.scaled_dot_product_attention(query, key, value)
        read = read.transpose(2, 3).reshape(flat.shape)
        return (flat + self.proj_out(read)).reshape(x.shape)  # type: ignore[no-any-return]

    def _split(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """From ``(B, parts C, N)`` to ``parts`` tensors ``(B, heads, N, C / heads)``."""
        batch, channels, length = joined.shape
        per_head = joined.reshape(batch, self._heads, channels // self._heads, length).transpose(2, 3)
        return per_head.chunk(parts, 3)


class UNet(nn.Module):
    """Predicts the noise in ``(B, 3, S, S)``.

    The last layer has 6 channels as in ADM; the three of the variance are not used.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, embedding = config.base, 4 * config.base
        self.time_embed = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        widths, sides = [base * k for k in config.multiples], config.sides
        self.input_blocks = nn.ModuleList([nn.ModuleList([nn.Conv2d(3, base, 3, padding=1)])])
        skips, before = [base], base
        for level, (width, side) in enumerate(zip(widths, sides, strict=True)):
            self.input_blocks.append(self._level(before, width, level))
            skips.append(width)
            before = width
            if level < len(widths) - 1:
                kind = "down" if sides[level + 1] < side else ""
                self.input_blocks.append(nn.ModuleList([ResBlock(width, embedding, width, config.dropout, kind)]))
                skips.append(width)
        self.middle_block = nn.ModuleList(
            [
                ResBlock(before, embedding, before, config.dropout),
                AttentionBlock(before, config.head, config.token),
                ResBlock(before, embedding, before, config.dropout),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level, (width, side) in reversed(list(enumerate(zip(widths, sides, strict=True)))):
            for last in (False, True):
                block = self._level(before + skips.pop(), width, level)
                before = width
                if last and level:
                    kind = "up" if sides[level - 1] > side else ""
                    block.append(ResBlock(width, embedding, width, config.dropout, kind))
                self.output_blocks.append(block)
        last_layer = nn.Conv2d(before, 6, 3, padding=1)
        nn.init.zeros_(last_layer.weight)
        nn.init.zeros_(last_layer.bias)  # type: ignore[arg-type]
        self.out = nn.Sequential(nn.GroupNorm(_GROUPS, before), nn.SiLU(), last_layer)

    def _level(self, channels: int, width: int, level: int) -> nn.ModuleList:
        config = self.config
        block = nn.ModuleList([ResBlock(channels, 4 * config.base, width, config.dropout)])
        if level in config.attention:
            block.append(AttentionBlock(width, config.head, config.token))
        return block

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.out[2].weight.dtype  # type: ignore[return-value]

    def forward(self, x: Tensor, time: Tensor, added: Tensor, tokens: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: ``(B, 3, S, S)``.
            time: ``(B,)``, 0 to 999.
            added: is added to the time embedding, ``(B, 4 base)``.
            tokens: for the attention, ``(B, N, T)``.
        """
        embedding = self.time_embed(sinusoid(time, self.config.base).to(x.dtype)) + added
        skips: list[Tensor] = []
        for block in self.input_blocks:
            x = _run(block, x, embedding, tokens)
            skips.append(x)
        x = _run(self.middle_block, x, embedding, tokens)
        for block in self.output_blocks:
            x = _run(block, torch.cat([x, skips.pop()], 1), embedding, tokens)
        return self.out(x)[:, :3]  # type: ignore[no-any-return]


def _run(block: Any, x: Tensor, embedding: Tensor, tokens: Tensor) -> Tensor:
    for layer in block:
        if isinstance(layer, ResBlock):
            x = layer(x, embedding)
        elif isinstance(layer, AttentionBlock):
            x = layer(x, tokens)
        else:
            x = layer(x)
    return x


def sinusoid(time: Tensor, width: int) -> Tensor:
    """Guided diffusion's embedding of time steps ``(B,)``: ``(B, width)``, cosines first."""
    half = width // 2
    rates = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(half, device=time.device) / half)
    angles = time[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def small_config(size: int, base: int) -> UNetConfig:
    """The same design at another size: halved until 7 or 8 pixels are left, with attention there."""
    sides = [size]
    while sides[-1] % 2 == 0 and sides[-1] // 2 >= 7:
        sides.append(sides[-1] // 2)
    multiples: Sequence[int] = [1, 1, 2, 2, 4, 4, 4, 4][: len(sides)]
    return UNetConfig(size, base, (*multiples, 4), sides[-1], (len(sides) - 1,))
