"""Anonymize aligned faces by inversion, with networks of diffusers: encode, invert, generate, decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, part_of, silent
from . import nullface, reverse
from .adapter import FaceIdAdapter
from .denoiser import Row, alphas_bar, draw
from .dials import Algorithm, fitting, guidance_of, skip_of
from .text import Text

MULTIPLE = 8
"""Pixels of a latent's cell."""
_MASKED = 0.5


@dataclass(frozen=True)
class Networks:
    """The networks of a checkpoint, with the adapter installed in the UNet.

    Attributes:
        unet: a ``diffusers.UNet2DConditionModel``.
        vae: a ``diffusers.AutoencoderKL``.
        adapter: makes the identity tokens.
        empty: the encoded text "".
        attributes: the encoded attribute prompt; None where there is none.
    """

    unet: Any
    vae: Any
    adapter: FaceIdAdapter
    empty: Text
    attributes: Text | None = None


@dataclass(frozen=True)
class Condition:
    """Of one row.

    Attributes:
        text: the prompt.
        tokens: identity tokens ``(B or 1, T, C)``.
        size: SDXL's size ids ``(1, 6)``; ignored for Stable Diffusion 1.5.
    """

    text: Text
    tokens: Tensor
    size: Tensor


class UNetDenoiser:
    """A ``Denoiser`` of a diffusers UNet with the adapter installed.

    Attributes:
        rows: evaluated so far.
    """

    def __init__(self, unet: Any, conditions: Mapping[Row, Condition]) -> None:
        self._unet, self._conditions, self.rows = unet, conditions, 0

    @torch.no_grad()
    def __call__(self, x: Tensor, t: int, rows: tuple[Row, ...]) -> tuple[Tensor, ...]:
        like = next(self._unet.parameters())
        chosen = [self._conditions[row] for row in rows]
        context = torch.cat([_joined(c, len(x)) for c in chosen]).to(like)
        added = None
        if chosen[0].text.pooled is not None:
            pooled = torch.cat([c.text.pooled.expand(len(x), -1) for c in chosen if c.text.pooled is not None])
            size = torch.cat([c.size.expand(len(x), -1) for c in chosen])
            added = {"text_embeds": pooled.to(like), "time_ids": size.to(like)}
        self.rows += len(rows) * len(x)
        given = torch.cat([x] * len(rows)).to(like)
        eps = self._unet(given, t, context, added_cond_kwargs=added).sample
        return tuple(eps.to(x).chunk(len(rows)))


class InversionPipeline:
    """The pipeline that the module docstring describes.

    Args:
        algorithm: NullFace or Reverse Personalization; the one published for the checkpoint's family when omitted.
        steps: N; the authors use 100.
        id_scale: length of the embedding that the tokens are made from; it acts through a nonlinear network.

    Raises:
        InputError: steps below 1.
    """

    def __init__(
        self, networks: Networks, algorithm: Algorithm | None = None, steps: int = nullface.STEPS, id_scale: float = 1.0
    ) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        self.networks, self.steps, self.id_scale = networks, steps, id_scale
        self.algorithm = algorithm or fitting(networks.adapter.context_size)
        self._alphas_bar = alphas_bar()

    @torch.no_grad()
    def anonymize(
        self,
        images: Tensor,
        embeddings: Tensor,
        strength: float = 1.0,
        seeds: Sequence[int] = (),
        mask: Tensor | None = None,
        progress: Progress = silent,
    ) -> Tensor:
        """Remove the identity from faces.

        Args:
            images: ``(B, 3, H, W)``, RGB in [0, 1], one face each.
            embeddings: of the faces, unit vectors ``(B, D)`` of the adapter's recognizer.
            strength: 0 to 1.5; 0 is the round trip through the VAE.
            seeds: one a face; 0, 1, ... when omitted.
            mask: ``(B or 1, 1, H, W)``, 1 where the face may change; cells with other pixels keep their latents.

        Returns:
            ``(B, 3, H', W')`` with sides rounded down to multiples of 8.

        Raises:
            InputError: another number of embeddings or seeds than of images, or a picture of fewer than 8 pixels.
        """
        chosen = list(seeds) or list(range(len(images)))
        if not len(images) == len(embeddings) == len(chosen):
            raise InputError(
                f"{len(images)} faces need as many embeddings and seeds, got {len(embeddings)} and {len(chosen)}"
            )
        x0 = self.encode(images)
        if strength == 0:
            return self.decode(x0)
        height, width = (side * MULTIPLE for side in x0.shape[-2:])
        cells = None if mask is None else held_mask(mask[..., :height, :width], *x0.shape[-2:])
        return self.decode(self._generated(x0, embeddings, strength, chosen, cells, progress))

    def encode(self, images: Tensor) -> Tensor:
        """Scaled latents ``(B, 4, h, w)``: the mode of the VAE's distribution."""
        vae = self.networks.vae
        height, width = (side - side % MULTIPLE for side in images.shape[-2:])
        if not (height and width):
            raise InputError(f"a picture of {images.shape[-1]} x {images.shape[-2]} pixels is too small")
        pixels = (images[..., :height, :width] * 2 - 1).to(next(vae.parameters()))
        # GroupNorm on the CPU is less exact in the channels_last memory format.
        mode = vae.encode(pixels.contiguous()).latent_dist.mode()
        return (mode * vae.config.scaling_factor).float().contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` in [0, 1], float32 on the CPU."""
        vae = self.networks.vae
        pixels = vae.decode((latents / vae.config.scaling_factor).to(next(vae.parameters()))).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1).cpu()

    def conditions(self, embeddings: Tensor, height: int, width: int) -> dict[Row, Condition]:
        """The rows for faces with these embeddings ``(B, D)``, in pictures of this size in pixels."""
        n = self.networks
        # NullFace moves towards the opposite embedding, Reverse Personalization away from the embedding.
        sign = -1.0 if self.algorithm == "nullface" else 1.0
        nobody = n.adapter.tokens(torch.zeros(1, n.adapter.embedding_size))
        person = n.adapter.tokens(sign * self.id_scale * embeddings)
        size = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        prompted = n.attributes or n.empty
        rows = {
            "nothing": Condition(n.empty.zeros(), nobody, size),
            "empty": Condition(n.empty, nobody, size),
            "identity": Condition(prompted if self.algorithm == "nullface" else n.empty, person, size),
            "attributes": Condition(prompted, nobody, size),
        }
        return rows  # type: ignore[return-value]  # the keys are the rows' names

    def _generated(
        self,
        x0: Tensor,
        embeddings: Tensor,
        strength: float,
        seeds: list[int],
        mask: Tensor | None,
        progress: Progress,
    ) -> Tensor:
        height, width = (side * MULTIPLE for side in x0.shape[-2:])
        denoise = UNetDenoiser(self.networks.unet, self.conditions(embeddings, height, width))
        guidance, skip = (dial(self.algorithm, strength) for dial in (guidance_of, skip_of))
        bars, first, second = self._alphas_bar, part_of(progress, 0, 2), part_of(progress, 1, 2)
        attributes, held = self.networks.attributes is not None, mask is not None
        if self.algorithm == "nullface":
            noises = draw(x0, nullface.depth_of(self.steps, skip), seeds)
            found = nullface.invert(denoise, bars, x0, noises, self.steps, progress=first)
            return nullface.generate(
                denoise, bars, found, guidance, mask=mask, hold=held, attributes=attributes, progress=second
            )
        timesteps = reverse.timesteps_of(self.steps, skip)
        inverted = reverse.invert(denoise, bars, x0, draw(x0, len(timesteps), seeds), timesteps, first)
        return reverse.generate(denoise, bars, inverted, guidance, mask, attributes, second)


def latent_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask ``(B, 1, H, W)`` in pixels as 0 or 1 of each cell ``(B, 1, h, w)``: the nearest pixel is at least 0.5."""
    binary = (mask >= _MASKED).float()
    return torch.nn.functional.interpolate(binary, size=(height, width), mode="nearest")


def held_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask as 0 or 1 of each cell ``(B, 1, h, w)``: 1 where all pixels of the cell are at least 0.5, so that a region
    that stays is never cut, however small it is."""
    kept = (mask < _MASKED).float()
    return 1 - torch.nn.functional.adaptive_max_pool2d(kept, (height, width))


def _joined(condition: Condition, batch: int) -> Tensor:
    """Text tokens, then identity tokens ``(B, 77 + T, C)``."""
    return torch.cat([part.expand(batch, -1, -1) for part in (condition.text.states, condition.tokens)], 1)
