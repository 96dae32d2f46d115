"""The discriminators of the restorer's training: one for the whole face, two for eyes and mouth."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (32, 64, 128, 192)
_SLOPE = 0.2


class Discriminator(nn.Module):
    """Tells photos from drawings, patch by patch, in squares ``(B, 3, S, S)`` in [0, 1], from 16 px on."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip((3, *_WIDTHS), _WIDTHS, strict=False)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs)
        self.last = nn.Conv2d(_WIDTHS[-1], 1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits ``(B, 1, h, w)``, positive for photos, and the features psi of the first layers."""
        x = images * 2 - 1
        found = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
            found.append(x)
        return self.last(x), found[:2]


def r1_penalty(judge: Discriminator, photos: Tensor) -> Tensor:
    """The squared norm of the judgment's gradient at photos, averaged over them (Mescheder et al. 2018)."""
    given = photos.detach().requires_grad_(True)
    logits = judge(given)[0].mean((1, 2, 3)).sum()
    (gradient,) = torch.autograd.grad(logits, given, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()
