"""The latent-diffusion identity sampler (LDS) of DiffDeID (Eq. 2 and 3): draws people who do not exist.

An unconditional diffusion over standardized vectors, of any recognizer's space, of a morphable model's identity
coefficients, or of both side by side. The paper draws the two apart, so that they may contradict each other; drawn
jointly they belong
together. T = 1000 linear steps, a residual MLP that predicts the noise, deterministic DDIM in 50 steps. The paper does
not define
its ten levels; here level L noises the original to t_L = L/10 (T - 1), denoises 64 candidates and keeps the one whose
cosine to
the original, in the standardized space, is nearest to 0.60 - 0.07 (L - 1). Level 10 starts from pure noise.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...weights.builtin import open_builtin
from ..core.errors import InputError, WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors

FORMAT = "faceveil.lds/2"
REMEDY = "train one with: faceveil train lds --images DIR"
TIMES, STEPS = 1000, 50
BETAS = (1e-4, 0.02)
LEVELS, CANDIDATES = 10, 64
SLACK = 0.05
"""How far above its level's cosine a candidate may lie."""
Norm = Literal["l2", "l1"]


class Denoiser(nn.Module):
    """Residual MLP; predicts the noise in ``(B, D)`` at times ``(B,)``."""

    _rest: Tensor

    def __init__(self, dimensions: int, width: int = 384, blocks: int = 6) -> None:
        super().__init__()
        self.dimensions, self.width, self.blocks = dimensions, width, blocks
        self.enter = nn.Linear(dimensions, width)
        self.time = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.body = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        last = nn.Linear(width, dimensions)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        self.register_buffer("_rest", (1 - alphas()).sqrt(), persistent=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        when = self.time(_sinusoid(time))
        hidden = self.enter(x)
        for block in self.body:
            hidden = hidden + block(hidden + when)
        # For white Gaussian vectors the first term is the whole answer: the network learns how people differ from that.
        return self._rest[time][:, None] * x + self.leave(hidden)


@dataclass(frozen=True)
class Sampled:
    """What was drawn.

    Attributes:
        vectors: ``(N, D)`` in the space's own units.
        cosines: of each to the original in the standardized space; nan without one.
        drawn, rejected: how many vectors were looked at and how many the posterior filter refused.
    """

    vectors: np.ndarray
    cosines: np.ndarray
    drawn: int
    rejected: int


class IdentitySampler:
    """A trained sampler.

    Args:
        mean, std: ``(D,)``, of the training vectors.
        space: name of the recognizer's space or of the morphable model, or both joined by ``+``.
        unit: how many of the leading numbers are a unit vector: all of a recognizer's, none of a morphable model's.
    """

    def __init__(self, denoiser: Denoiser, mean: np.ndarray, std: np.ndarray, space: str, unit: int) -> None:
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.mean, self.std, self.space, self.unit = mean, std, space, unit
        self._kept = alphas()

    def standardize(self, vectors: np.ndarray) -> np.ndarray:
        return (vectors - self.mean) / self.std

    def cosine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosine in the standardized space, ``(N, M)``: 1 the same person, 0 strangers. Raw dlib vectors all point one
        way."""
        u, v = (self.standardize(np.atleast_2d(x)) for x in (a, b))
        return (u / np.linalg.norm(u, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T

    def sample(self, count: int, seed: int) -> Sampled:
        """Draw ``count`` people."""
        return Sampled(self._draw(count, torch.Generator().manual_seed(seed)), np.full(count, np.nan), count, 0)

    def away_from(
        self, original: np.ndarray, seed: int, most: float = 0.28, count: int = 1, tries: int = 20
    ) -> Sampled:
        """Draw people whose cosine to ``original`` ``(D,)`` is at most ``most`` (the paper's posterior filter).

        Raises:
            InputError: after ``tries`` rounds of 64 there are too few.
        """
        kept, cosines, drawn, rejected = [], [], 0, 0
        generator = torch.Generator().manual_seed(seed)
        for _ in range(tries):
            found = self._draw(CANDIDATES, generator)
            near = self.cosine(found, original)[:, 0]
            drawn, rejected = drawn + len(found), rejected + int((near > most).sum())
            kept += [v for v, c in zip(found, near, strict=True) if c <= most]
            cosines += [c for c in near if c <= most]
            if len(kept) >= count:
                return Sampled(np.stack(kept[:count]), np.array(cosines[:count]), drawn, rejected)
        raise InputError(
            f"no {count} identities with a cosine of at most {most:g} were found in {drawn} draws; allow a higher one"
        )

    def level(self, original: np.ndarray, level: int, seed: int, candidates: int = CANDIDATES) -> Sampled:
        """One person at a level from 1 (akin) to 10 (a stranger).

        Raises:
            InputError: the level is not 1 to 10, or the original has another size.
        """
        if not 1 <= level <= LEVELS:
            raise InputError(f"the level must be 1 to {LEVELS}, got {level}")
        if original.shape != self.mean.shape:
            raise InputError(f"this sampler works on vectors of {len(self.mean)} numbers, got {original.shape}")
        start, wanted = round(level / LEVELS * (TIMES - 1)), 0.60 - 0.07 * (level - 1)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(candidates, len(self.mean), generator=generator)
        clean = torch.from_numpy(self.standardize(original)).float()
        a = self._kept[start]
        noisy = noise if level == LEVELS else a.sqrt() * clean + (1 - a).sqrt() * noise
        found = self._restore(self._denoise(noisy, start))
        near = self.cosine(found, original)[:, 0]
        allowed = near <= wanted + SLACK
        best = int(np.where(allowed, np.abs(near - wanted), np.inf).argmin()) if allowed.any() else int(near.argmin())
        return Sampled(found[best : best + 1], near[best : best + 1], candidates, int((~allowed).sum()))

    def _draw(self, count: int, generator: torch.Generator) -> np.ndarray:
        """People ``(count, D)`` from pure noise."""
        return self._restore(self._denoise(torch.randn(count, len(self.mean), generator=generator), TIMES - 1))

    def _denoise(self, x: Tensor, start: int) -> Tensor:
        """Deterministic DDIM (eta 0) from time ``start`` to 0."""
        times = np.unique(np.linspace(0, start, max(2, round(STEPS * (start + 1) / TIMES))).round().astype(int))[::-1]
        with torch.no_grad():
            for t, following in zip(times, [*times[1:], -1], strict=True):
                noise = self.denoiser(x, torch.full((len(x),), int(t)))
                a, b = self._kept[int(t)], self._kept[int(following)] if following >= 0 else torch.tensor(1.0)
                clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
                x = b.sqrt() * clean + (1 - b).sqrt() * noise
        return x

    def _restore(self, standard: Tensor) -> np.ndarray:
        vectors = standard.double().numpy() * self.std + self.mean
        vectors[:, : self.unit] /= np.linalg.norm(vectors[:, : self.unit], axis=1, keepdims=True) if self.unit else 1.0
        return vectors


def alphas() -> Tensor:
    """Share of the signal's variance that is kept at each time, ``(T,)``."""
    return torch.cumprod(1 - torch.linspace(*BETAS, TIMES, dtype=torch.float64), 0).float()


def _sinusoid(time: Tensor) -> Tensor:
    rates = torch.exp(-math.log(10_000) * torch.arange(32, device=time.device) / 32)
    angles = time[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def tensors_of(sampler: IdentitySampler) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a file of the sampler holds: half-precision weights, and how to build it."""
    net = sampler.denoiser
    tensors = {f"denoiser.{k}": v.half() for k, v in net.state_dict().items()}
    tensors |= {"mean": torch.from_numpy(sampler.mean).float(), "std": torch.from_numpy(sampler.std).float()}
    shape = {"dimensions": net.dimensions, "width": net.width, "blocks": net.blocks}
    return tensors, {"format": FORMAT, "space": sampler.space, "unit": str(sampler.unit), "denoiser": json.dumps(shape)}


def save_sampler(path: Path, sampler: IdentitySampler) -> None:
    """Write a sampler as safetensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors, metadata = tensors_of(sampler)
    write_whole(path, save(tensors, metadata))


def load_sampler(path: Path) -> IdentitySampler:
    """Open a trained sampler.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or holds values that are not finite.
    """
    tensors, metadata = read_safetensors(path, "identity sampler", REMEDY)
    return _build(tensors, metadata, path.name)


@lru_cache(maxsize=4)
def builtin_sampler(space: str) -> IdentitySampler:
    """The sampler that comes with the package: ``dlib``, or ``appearance-shape`` for the built-in morphable model.

    Raises:
        WeightsError: there is none for this space.
    """
    name = f"lds_{space}.safetensors"
    try:
        tensors, metadata = open_builtin(name)
    except FileNotFoundError:
        raise WeightsError(f"no identity sampler for {space} comes with the package; {REMEDY}") from None
    return _build(tensors, metadata, name)


def _build(tensors: dict[str, Tensor], metadata: dict[str, Any], name: str) -> IdentitySampler:
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{name} is not an identity sampler of format {FORMAT}; {REMEDY}")
    if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise WeightsError(f"{name} holds values that are not finite; train or fetch it again")
    try:
        denoiser = Denoiser(**json.loads(metadata["denoiser"]))
        denoiser.load_state_dict(
            {k.removeprefix("denoiser."): v.float() for k, v in tensors.items() if k.startswith("denoiser.")}
        )
        mean, std = (tensors[k].double().numpy() for k in ("mean", "std"))
        return IdentitySampler(denoiser, mean, std, metadata["space"], int(metadata["unit"]))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{name} was cut off or made by another version ({type(error).__name__}); train or fetch it again"
        ) from None
