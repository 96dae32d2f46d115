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

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
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
from ...training.loop import Plan, Trainer, subject_of
from .network import Conditions, Denoiser, NetworkConfig
from .perceptual import EmbedderFeatures, Features, Vgg16, feature_loss
from .pipeline import Checkpoint

NOISE_WEIGHT = 10.0
"""Weight of L_d in Eq. 11."""
LATCH, LATCH_DECAY = 0.05, 0.99
"""L_rec and L_per are used from when the moving average of L_d is below this, with this decay."""
SMALL = 32
"""Texture attention works at up to this many pixels."""
_STEP_SEEDS = 1_000_003
"""Prime that keeps the random streams of different seeds apart."""
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


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
        precision: ``no``, ``bf16`` or ``fp16``.
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
        weight = alpha.flatten()
        loss_rec = (weight * (clean - images).abs().mean((1, 2, 3))).mean()
        loss_per = (weight * feature_loss(self._features[0], clean, images)).mean()
        return NOISE_WEIGHT * loss_d + loss_rec + loss_per


@dataclass(frozen=True)
class Run:
    """When a training ends, and what it writes on the way.

    Attributes:
        state: file that a stopped training continues from, exactly.
        max_minutes: stop after this time; the state is saved.
        stop_after: stop after this many steps, for tests.
        save_every: steps between two states.
        show_every: steps between two calls of ``show``.
        show: gets the checkpoint as it is then.
        vgg: file of VGG16 for L_per; our own recognizer's features when omitted.
        logs: folder for TensorBoard.
    """

    state: Path
    max_minutes: float | None = None
    stop_after: int | None = None
    save_every: int = 1000
    show_every: int = 0
    show: Callable[[Checkpoint], None] | None = None
    vgg: Path | None = None
    logs: Path | None = None


def train(data: TrainingSet, recipe: Recipe, run: Run, progress: Progress = silent) -> tuple[Checkpoint, bool]:
    """Train from the beginning or from the saved state on; with ``accelerate launch`` on several devices.

    Returns:
        The checkpoint with averaged weights, and whether the training is complete.

    Raises:
        InputError: a setting is unknown, or the state is damaged or of another training.
        KeyboardInterrupt: a signal stopped the training; its state was saved.
    """
    from accelerate import Accelerator

    if recipe.precision not in PRECISIONS:
        raise InputError(f"precision {recipe.precision!r} is not one of {', '.join(PRECISIONS)}")
    accelerator = Accelerator()
    config = network_config(data.size, data.identity_size, data.coefficient_size, recipe, data.window)
    torch.manual_seed(recipe.seed)
    # Convolutions are twice as fast with this memory format, on CPUs as well.
    network = Denoiser(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features: Features = EmbedderFeatures() if run.vgg is None else Vgg16(run.vgg)
    if isinstance(features, nn.Module):
        features.to(accelerator.device)
    objective = Objective(network, features)
    optimizer = torch.optim.Adam(objective.parameters(), lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
    )
    prepared = accelerator.prepare(objective)

    def loss(step: int) -> Tensor:
        # Each process draws other faces; all numbers depend on seed, step and process only.
        place = step * accelerator.num_processes + accelerator.process_index
        generator = torch.Generator().manual_seed(recipe.seed * _STEP_SEEDS + place)
        images, conditions, noise, time = draw(data, recipe, generator)
        device = accelerator.device
        with autocast(device, recipe.precision):
            return prepared(  # type: ignore[no-any-return]
                images.to(device), conditions.to(device, torch.float32), noise.to(device), time.to(device)
            )

    trainer = Trainer(prepared, schedule, loss, recipe.ema)
    subject = subject_of(data.fingerprint, recipe, run.vgg and run.vgg.name, accelerator.num_processes)

    def checkpoint() -> Checkpoint:
        return Checkpoint(network, data.standardizer, MODEL, data.space)

    def show(step: int) -> None:
        if run.show is not None and accelerator.is_main_process:
            with trainer.averaged():
                run.show(checkpoint())

    plan = Plan(
        recipe.steps,
        "training DiffDeID",
        run.state,
        subject,
        run.save_every,
        run.logs,
        run.stop_after,
        run.max_minutes,
        show,
        run.show_every,
    )
    complete = trainer.run(plan, progress)
    if not complete:
        trainer.use_average()
    network.eval().requires_grad_(False)
    return checkpoint(), complete


def draw(data: TrainingSet, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Conditions, Tensor, Tensor]:
    """A batch: images, conditions, noise and time steps."""
    images, conditions = data.draw(recipe.batch, recipe.drop, generator)
    noise = torch.randn(images.shape, generator=generator)
    time = torch.randint(0, len(alphas_cumprod()), (recipe.batch,), generator=generator)
    return images, conditions, noise, time


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context of mixed precision."""
    dtype = PRECISIONS[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
