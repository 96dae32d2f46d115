"""Train IDDiffuse's denoiser (section 3.3, Eq. 7): ``faceveil train iddiffuse``.

A pair is a face X and the synthetic person X^ that the mapping gives for it. The network denoises X with the texture of
X and the identity of X^.

    L_mse  squared error of the noise
    L_an   g_t D(F(X), F(X_0)) + (1 - g_t) D(F(X^), F(X_0))
    L_tex  difference of E_t's patch statistics of X and X_0
    L      L_mse + 0.05 (L_an + lambda L_tex)

Eq. 7 says CS, the cosine similarity, which would repel both identities if it were minimized; D = 1 - CS is what the
text describes. Its third term repeats the first; the text calls it texture, so it compares textures here. X_0 is the
image that the predicted noise implies, clipped to [-1, 1].
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...identity.lds import TIMES, alphas_cumprod
from ...recognition.embedder import SIZE as JUDGE_SIZE
from ...recognition.embedder import EmbedderNetwork, built_in_embedder
from ...training.devices import Run, Settings, fit
from ...training.loop import subject_of
from .conditions import SIZE, patch_statistics
from .network import Denoiser, NetworkConfig
from .pairs import Pairs
from .pipeline import Checkpoint
from .unet import UNetConfig, small_config

SCHEDULES = ("paper", "dcface", "constant")
WEIGHT = 0.05
"""Weight of everything but L_mse; DCFace's."""


@dataclass(frozen=True)
class Recipe:
    """How the network is trained; the defaults are DCFace's, whose network it starts from.

    Attributes:
        base: channels of the U-Net at the full resolution.
        grid: m, texture patches in each direction.
        schedule: of gamma: ``paper`` t / T, ``dcface`` 1 - t / T, or ``constant``.
        gamma: of the schedule ``constant``: 1 draws X, 0 draws X^.
        texture: lambda, the weight of L_tex.
        flip: share of faces that are mirrored.
    """

    base: int = 128
    grid: int = 5
    steps: int = 80_000
    batch: int = 128
    rate: float = 1e-4
    ema: float = 0.9999
    precision: str = "no"
    schedule: str = "paper"
    gamma: float = 0.5
    texture: float = 0.1
    flip: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InputError(f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if not 0 <= self.gamma <= 1:
            raise InputError(f"gamma must be between 0 and 1, got {self.gamma:g}")


def gamma_of(time: Tensor, schedule: str, constant: float) -> Tensor:
    """g_t of Eq. 7, the weight of the real identity at time steps ``(B,)``.

    ``paper``: noisy steps draw the real identity, late ones the synthetic one. DCFace does the opposite.
    """
    share = time.float() / (TIMES - 1)
    if schedule == "constant":
        return torch.full_like(share, constant)
    return share if schedule == "paper" else 1 - share


class Objective(nn.Module):
    """The loss of a batch.

    Args:
        judge: F, frozen.
    """

    _alphas: Tensor

    def __init__(self, network: Denoiser, judge: EmbedderNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe
        # In a tuple, so that its weights are neither trained nor saved.
        self._judge = (judge,)
        self.register_buffer("_alphas", alphas_cumprod(), persistent=False)

    def forward(self, images: Tensor, synthetic: Tensor, vectors: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """The loss.

        Args:
            images: X ``(B, 3, S, S)`` in [-1, 1].
            synthetic: X^ ``(B, 3, 112, 112)`` in [-1, 1].
            vectors: E_I(X^), unit vectors ``(B, D)``.
            noise: ``(B, 3, S, S)``.
            time: ``(B,)``.
        """
        small = resized(images, SIZE)
        alpha = self._alphas[time].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * images + (1 - alpha).sqrt() * noise
        tokens = self.network.identity(synthetic, vectors), self.network.texture(small)
        predicted = self.network(noisy, time, *tokens).float()
        clean = ((noisy - (1 - alpha).sqrt() * predicted) / alpha.sqrt()).clamp(-1, 1)
        gamma = gamma_of(time, self._recipe.schedule, self._recipe.gamma)
        with torch.no_grad():
            real, other = self._embedded(small), self._embedded(synthetic)
        drawn = self._embedded(resized(clean, SIZE))
        to_real, to_synthetic = (1 - (drawn * goal).sum(1) for goal in (real, other))
        loss_an = (gamma * to_real + (1 - gamma) * to_synthetic).mean()
        loss_tex = self._texture(resized(clean, SIZE), small)
        mse = (predicted - noise).square().mean()
        return mse + WEIGHT * (loss_an + self._recipe.texture * loss_tex)

    def _embedded(self, faces: Tensor) -> Tensor:
        """Unit vectors of ``(B, 3, 112, 112)`` in [-1, 1]."""
        judge = self._judge[0].to(faces.device)
        return judge((resized(faces, JUDGE_SIZE) + 1) / 2)  # type: ignore[no-any-return]

    def _texture(self, drawn: Tensor, true: Tensor) -> Tensor:
        encoder = self.network.texture
        with torch.no_grad():
            goals = self._statistics(encoder.stage(true))
        return (self._statistics(encoder.stage(drawn)) - goals).abs().mean()

    def _statistics(self, features: Tensor) -> Tensor:
        grid = self.network.texture.grid
        side = features.shape[-1] // grid * grid
        return torch.cat(patch_statistics(features[..., :side, :side], grid), 2)


def resized(images: Tensor, size: int) -> Tensor:
    """Resize squares ``(B, 3, S, S)``, differentiable."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


@dataclass(frozen=True)
class Start:
    """Weights of a U-Net to start from, and what they predict; see ``NetworkConfig.output``."""

    weights: dict[str, Tensor]
    output: str


def network_config(size: int, identity: int, recipe: Recipe, output: str) -> NetworkConfig:
    """DCFace's sizes at 112 px and 128 channels, and the same design at others.

    Args:
        output: see ``NetworkConfig``.
    """
    unet = UNetConfig(size, recipe.base) if size == SIZE else small_config(size, recipe.base)
    return NetworkConfig(unet, recipe.grid, identity, output)


def train(
    pairs: Pairs, recipe: Recipe, run: Run, start: Start | None = None, progress: Progress = silent
) -> tuple[Checkpoint, bool]:
    """Train from the beginning or from the saved state on.

    Args:
        start: a U-Net to start from, for example DCFace's.

    Returns:
        The checkpoint with averaged weights, and whether the training is complete.

    Raises:
        InputError: a setting is unknown, or the state is damaged or of another training.
        KeyboardInterrupt: a signal stopped the training; its state was saved.
    """
    torch.manual_seed(recipe.seed)
    # A copy: the recognizer itself stays on its device.
    judge = copy.deepcopy(built_in_embedder().network)
    output = "velocity" if start is None else start.output
    network = Denoiser(network_config(pairs.size, pairs.identity_size, recipe, output))
    if start is not None:
        load_start(network, start.weights)
    network.train()
    objective = Objective(network, judge, recipe)
    settings = Settings(recipe.steps, recipe.rate, 0, recipe.ema, recipe.precision, recipe.seed, 1e-2)
    subject = subject_of(pairs.fingerprint, recipe, start is not None)
    complete = fit(objective, partial(draw, pairs, recipe), settings, run, subject, "training IDDiffuse", progress)
    return Checkpoint(network, pairs.space), complete


def load_start(network: Denoiser, weights: dict[str, Tensor]) -> None:
    """Give the U-Net of a new network other weights.

    Raises:
        InputError: they are of another size.
    """
    try:
        network.unet.load_state_dict(weights)
    except RuntimeError:
        raise InputError(
            "the weights to start from are of a U-Net of another size; use 112 px and 128 channels"
        ) from None


def draw(pairs: Pairs, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, ...]:
    """A batch: X, X^, E_I(X^), noise and time steps."""
    images, synthetic, vectors = pairs.draw(recipe.batch, generator)
    mirrored = torch.rand(recipe.batch, 1, 1, 1, generator=generator) < recipe.flip
    images = torch.where(mirrored, images.flip(-1), images)
    noise = torch.randn(images.shape, generator=generator)
    time = torch.randint(0, TIMES, (recipe.batch,), generator=generator)
    return images, synthetic, vectors, noise, time


def start_of(path: Path | None) -> Start | None:
    """The U-Net of an IDDiffuse checkpoint, or of DCFace's."""
    if path is None:
        return None
    if path.suffix == ".safetensors":
        network = Checkpoint.open(path).network
        return Start(dict(network.unet.state_dict()), network.config.output)
    from .dcface import read_dcface

    return Start(read_dcface(path), "noise")
