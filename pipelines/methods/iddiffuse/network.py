"""The denoiser of IDDiffuse: the U-Net with its two encoders.

identity   E_I: the first token is added to the time embedding, 49 go to the attention
texture    E_t: m^2 + 1 tokens go to the attention (Eq. 8)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...identity.lds import alphas_cumprod
from ...recognition.embedder import built_in_embedder
from .conditions import IDENTITY_TOKENS, IdentityEncoder, TextureEncoder
from .unet import UNet, UNetConfig

OUTPUTS = ("noise", "velocity")
_SCALE = 0.001
"""Start of the factor of the first identity token."""


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the denoiser: of its U-Net, the texture grid m, and the length of the identity's vector.

    Attributes:
        output: what the last layer predicts: the ``noise`` as in DCFace, or the ``velocity``, from which the noise
            follows. With the velocity, a network that starts from random weights draws faces much earlier.
    """

    unet: UNetConfig = UNetConfig()
    grid: int = 5
    identity: int = 256
    output: str = "velocity"

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise InputError(f"the output must be one of {', '.join(OUTPUTS)}, got {self.output!r}")

    def as_dict(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> NetworkConfig:
        """Invert ``as_dict``."""
        return cls(UNetConfig.of(values["unet"]), values["grid"], values["identity"], values["output"])

    @property
    def tokens(self) -> int:
        """Number of tokens that the attention reads: 49 + m^2 + 1."""
        return IDENTITY_TOKENS + self.grid**2 + 1


class Denoiser(nn.Module):
    """Predicts the noise in ``(B, 3, S, S)``. Both encoders start from the feature maps of the built-in recognizer."""

    _alphas: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        recognizer, token = built_in_embedder().network, config.unet.token
        self.unet = UNet(config.unet)
        self.identity = IdentityEncoder(recognizer, config.identity, token)
        self.texture = TextureEncoder(recognizer, config.grid, token)
        self.scale = nn.Parameter(torch.full((1,), _SCALE))
        embedding = 4 * config.unet.base
        # In DCFace both have 512 numbers; a smaller or larger network needs a map.
        self.to_time: nn.Module = nn.Identity() if token == embedding else nn.Linear(token, embedding)
        self.register_buffer("_alphas", alphas_cumprod(), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.unet.dtype

    def forward(self, x: Tensor, time: Tensor, identity: Tensor, texture: Tensor) -> Tensor:
        """Predict the noise.

        Args:
            x: ``(B, 3, S, S)``.
            time: ``(B,)``, 0 to 999.
            identity: tokens of ``identity``, ``(B, 50, T)``.
            texture: tokens of ``texture``, ``(B, m^2 + 1, T)``.
        """
        added = self.to_time(identity[:, 0]) * self.scale
        predicted: Tensor = self.unet(x, time, added, torch.cat([identity[:, 1:], texture], 1))
        if self.config.output == "noise":
            return predicted
        alpha = self._alphas.to(x.device)[time.long()].view(-1, 1, 1, 1).to(x.dtype)
        return alpha.sqrt() * predicted + (1 - alpha).sqrt() * x  # type: ignore[no-any-return]
