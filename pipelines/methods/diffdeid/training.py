"""Train DiffDeID's denoiser (section 3.3, Eq. 8 to 11): ``faceveil train diffdeid``.

The network learns to draw a face again from what stays and from its own identity and geometry. De-identification is not
trained: it is what another identity and geometry do.

    L_d    Eq. 8   mean squared error of the noise
    L_rec  Eq. 9   mean |Z_0 - I|
    L_per  Eq. 10  squared difference of features
    L      Eq. 11  10 L_d + L_rec + L_per; only L_d until its moving average is below 0.05

Z_0 is the image that the predicted noise implies. Its error is that of the noise times sqrt((1 - abar) / abar), 157 at
t = 999, so it is clipped, and its losses are weighted by abar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...geometry.builtin import NAME as MODEL
from ...geometry.coefficients import Standardizer
from ...identity.lds import alphas_cumprod
from ...training.devices import Run, Settings, fit
from ...training.loop import subject_of
from ...training.perceptual import EmbedderFeatures, Features, Vgg16, feature_loss
from .network import Conditions, Denoiser, NetworkConfig
from .pipeline import Checkpoint

NOISE_WEIGHT = 10.0
"""Weight of L_d in Eq. 11."""
LATCH, LATCH_DECAY = 0.05, 0.99
"""L_rec and L_per are used from when the moving average of L_d is below this, with this decay."""
SMALL = 32
"""Texture attention works at up to this many pixels."""


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the defaults are the paper's where it gives any.

    Attributes:
        width: channels at the full resolution; the levels have 1, 2, 4, 8 and 8 times as many.
        blocks: residual blocks of each level.
        rate: learning rate. The paper's exponent is illegible; 2e-5 is DDPM's for pixels of 256 px.
        warmup: steps in which the rate rises.
        drop: share of faces that are drawn without their identity, for classifier-free guidance.
        ema: decay of the weights' moving average, which is what is kept.
        precision: ``no`` or ``bf16``.
        residual: see ``NetworkConfig``.
    """

    width: int = 64
    blocks: int = 2
    steps: int = 200_000
    batch: int = 8
    rate: float = 2e-5
    warmup: int = 0
    drop: float = 0.1
    ema: float = 0.9999
    precision: str = "no"
    residual: str = "noise"
    seed: int = 0


def network_config(size: int, identity: int, coefficients: int, recipe: Recipe, window: int = 1) -> NetworkConfig:
    """Five levels, so a ratio of 16; C is as long as the widest level."""
    levels = (1, 2, 4, 8, 8)
    return NetworkConfig(
        size=size,
        channels=tuple(recipe.width * k for k in levels),
        blocks=recipe.blocks,
        attention=tuple(i for i in range(len(levels)) if size >> i <= SMALL),
        condition=recipe.width * levels[-1],
        identity=identity,
        coefficients=coefficients,
        window=window,
        residual=recipe.residual,
    )


class TrainingSet(Protocol):
    """Faces or frames with their conditions: ``shards.Faces`` and ``clips.Clips``.

    Attributes:
        space: of the identities; empty where there are none.
        window: frames of coefficients.
    """

    space: str
    window: int
    standardizer: Standardizer

    def __len__(self) -> int: ...

    @property
    def size(self) -> int:
        """Side of the images in pixels."""

    @property
    def identity_size(self) -> int:
        """Length of z_id; 0 where there is none."""

    @property
    def coefficient_size(self) -> int:
        """Length of p."""

    @property
    def fingerprint(self) -> np.ndarray:
        """Numbers that tell one set from another."""

    def draw(self, count: int, drop: float, generator: torch.Generator) -> tuple[Tensor, Conditions]:
        """Random images ``(count, 3, S, S)`` in [-1, 1] and their conditions; a share ``drop`` gets no identity."""


class Objective(nn.Module):
    """Eq. 11, with the network and the state of its schedule.

    Attributes:
        average: moving average of L_d.
        latched: 1 from when all losses are used.
    """

    average: Tensor
    latched: Tensor
    _alphas: Tensor

    def __init__(self, network: Denoiser, features: Features) -> None:
        super().__init__()
        self.network = network
        # In a tuple, so that its weights are neither trained nor saved.
        self._features = (features,)
        self.register_buffer("average", torch.ones(()))
        self.register_buffer("latched", torch.zeros(()))
        self.register_buffer("_alphas", alphas_cumprod(), persistent=False)

    def forward(self, images: Tensor, conditions: Conditions, noise: Tensor, time: Tensor) -> Tensor:
        """The loss of a batch ``(B, 3, S, S)`` in [-1, 1] with its noise at time steps ``(B,)``."""
        alpha = self._alphas[time].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
        predicted = self.network(noisy, time, *conditions.parts()).float()
        loss_d = (predicted - noise).square().mean()
        with torch.no_grad():
            self.average.lerp_(loss_d, 1 - LATCH_DECAY)
            self.latched.copy_(torch.maximum(self.latched, (self.average < LATCH).float()))
        if not bool(self.latched):
            return NOISE_WEIGHT * loss_d
        clean = ((noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()).clamp(-1, 1)
        weight, features = alpha.flatten(), self._features[0]
        if isinstance(features, nn.Module):
            features.to(images.device)
        loss_rec = (weight * (clean - images).abs().mean((1, 2, 3))).mean()
        loss_per = (weight * feature_loss(features, clean, images)).mean()
        return NOISE_WEIGHT * loss_d + loss_rec + loss_per


def train(
    data: TrainingSet,
    recipe: Recipe,
    run: Run,
    vgg: Path | None = None,
    show: Callable[[Checkpoint], None] | None = None,
    start: Checkpoint | None = None,
    progress: Progress = silent,
) -> tuple[Checkpoint, bool]:
    """Train from the beginning or from the saved state on.

    Args:
        vgg: file of VGG16 for L_per; our own recognizer's features when omitted.
        show: gets the checkpoint each ``run.show_every`` steps.
        start: weights to start from, for example those for images in a training for video.

    Returns:
        The checkpoint with averaged weights, and whether the training is complete.

    Raises:
        InputError: a setting is unknown, or the state is damaged or of another training.
        KeyboardInterrupt: a signal stopped the training; its state was saved.
    """
    config = network_config(data.size, data.identity_size, data.coefficient_size, recipe, data.window)
    torch.manual_seed(recipe.seed)
    # Convolutions are twice as fast with this memory format, on CPUs as well.
    network = Denoiser(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if start is not None:
        load_start(network, start.network)
    objective = Objective(network, EmbedderFeatures() if vgg is None else Vgg16(vgg))
    checkpoint = Checkpoint(network, data.standardizer, MODEL, data.space)
    if show is not None:
        run = replace(run, show=lambda: show(checkpoint))
    settings = Settings(recipe.steps, recipe.rate, recipe.warmup, recipe.ema, recipe.precision, recipe.seed)
    subject = subject_of(data.fingerprint, recipe, vgg and vgg.name, start is not None)
    draws = partial(draw, data, recipe)
    complete = fit(objective, draws, settings, run, subject, "training DiffDeID", progress)
    return checkpoint, complete


def load_start(network: Denoiser, start: Denoiser) -> None:
    """Give a new network the weights of another one, where they are of the same size.

    Raises:
        InputError: the encoders and the decoder are of other sizes.
    """
    own, other = network.state_dict(), start.state_dict()
    shared = {name: value for name, value in other.items() if name in own and own[name].shape == value.shape}
    if not all(name in shared for name in own if name.startswith(("encoder.", "texture_encoder.", "decoder."))):
        raise InputError("the checkpoint to start from is of a network of another size; use its size, width and blocks")
    network.load_state_dict(shared, strict=False)


def draw(data: TrainingSet, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Conditions, Tensor, Tensor]:
    """A batch: images, conditions, noise and time steps."""
    images, conditions = data.draw(recipe.batch, recipe.drop, generator)
    noise = torch.randn(images.shape, generator=generator)
    time = torch.randint(0, len(alphas_cumprod()), (recipe.batch,), generator=generator)
    return images, conditions, noise, time
