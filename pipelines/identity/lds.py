"""The latent-diffusion identity sampler (LDS) of DiffDeID (Eq. 2 and 3): samples synthetic identities.

It is an unconditional diffusion model of standardized vectors: embeddings of a recognizer, identity coefficients of a
morphable model, or both concatenated. The paper samples the two separately, so they may contradict each other; sampled
jointly they are consistent. T = 1000 steps with a linear schedule, a residual MLP that predicts the noise, and
deterministic DDIM in 50 steps.

The paper does not define its ten levels. Here level L adds noise to the original up to t_L = L/10 (T - 1), denoises 64
candidates and keeps the one whose cosine similarity to the original, in the standardized space, is nearest to
0.60 - 0.07 (L - 1). Where all candidates are more similar than that, more noise is added. Level 10 starts from pure
noise.
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

from ...weights.builtin import FOLDER, open_builtin
from ..core.errors import InputError, WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors

FORMAT = "faceveil.lds/2"
REMEDY = "train one with: faceveil train lds --images DIR"
TIMES, STEPS = 1000, 50
BETAS = (1e-4, 0.02)
LEVELS, CANDIDATES = 10, 64
COSINE_TOLERANCE = 0.05
"""How far a candidate's cosine may exceed the target cosine of its level."""
NOISE_STEP = 50
"""Time steps that are added to t_L where all candidates are too similar to the original."""
Norm = Literal["l2", "l1"]


class Denoiser(nn.Module):
    """Residual MLP that predicts the noise in ``(B, D)`` at time steps ``(B,)``."""

    _noise_std: Tensor

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
        self.register_buffer("_noise_std", (1 - alphas_cumprod()).sqrt(), persistent=False)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        embedded_time = self.time(_sinusoid(time))
        hidden = self.enter(x)
        for block in self.body:
            hidden = hidden + block(hidden + embedded_time)
        # The first term is the exact noise prediction for white Gaussian vectors; the network learns the deviation.
        return self._noise_std[time][:, None] * x + self.leave(hidden)


@dataclass(frozen=True)
class Samples:
    """Sampled vectors.

    Attributes:
        vectors: ``(N, D)``, not standardized.
        cosines: cosine similarity of each to the original in the standardized space, ``(N,)``; nan without an original.
        candidates: how many vectors were sampled in total.
        rejected: how many of them were too similar to the original.
        excess: how far the cosine of a returned vector exceeds what was asked for; 0 where none does.
        choice: round and row of the noise that a level was sampled from; with it, ``level_again`` gives the same person
            for another photo.
    """

    vectors: np.ndarray
    cosines: np.ndarray
    candidates: int
    rejected: int
    excess: float = 0.0
    choice: tuple[int, int] = (0, 0)


class IdentitySampler:
    """A trained sampler of identities.

    Args:
        denoiser: the trained network.
        mean: of the training vectors, ``(D,)``.
        std: standard deviation of the training vectors, ``(D,)``.
        space: name of the recognizer's space or of the morphable model, or both joined by ``+``.
        unit: how many leading elements form a unit vector: D for embeddings, 0 for coefficients of a morphable model.
    """

    def __init__(self, denoiser: Denoiser, mean: np.ndarray, std: np.ndarray, space: str, unit: int) -> None:
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.mean, self.std, self.space, self.unit = mean, std, space, unit
        self._alphas_cumprod = alphas_cumprod()

    def standardize(self, vectors: np.ndarray) -> np.ndarray:
        """Subtract the mean and divide by the standard deviation of the training vectors, ``(..., D)``."""
        return (vectors - self.mean) / self.std

    def cosine(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Compute cosine similarities in the standardized space, ``(N, M)``: 1 is the same person, about 0 different
        people.

        Without standardization all dlib embeddings have similar directions, so their cosines say little.
        """
        u, v = (self.standardize(np.atleast_2d(x)) for x in (a, b))
        return (u / np.linalg.norm(u, axis=1, keepdims=True)) @ (v / np.linalg.norm(v, axis=1, keepdims=True)).T

    def sample(self, count: int, seed: int) -> Samples:
        """Sample ``count`` identities."""
        return Samples(self._generate(count, torch.Generator().manual_seed(seed)), np.full(count, np.nan), count, 0)

    def away_from(
        self, original: np.ndarray, seed: int, max_cosine: float = 0.28, count: int = 1, max_rounds: int = 20
    ) -> Samples:
        """Sample identities that differ from an original (the posterior filter of DiffDeID).

        Args:
            original: ``(D,)``, not standardized.
            max_cosine: maximum cosine similarity to the original, in the standardized space.
            count: how many identities are returned.
            max_rounds: how many times 64 candidates are sampled at most.

        Raises:
            InputError: fewer than ``count`` candidates were accepted after ``max_rounds`` rounds.
        """
        kept, cosines, sampled, rejected = [], [], 0, 0
        generator = torch.Generator().manual_seed(seed)
        for _ in range(max_rounds):
            found = self._generate(CANDIDATES, generator)
            similarity = self.cosine(found, original)[:, 0]
            sampled, rejected = sampled + len(found), rejected + int((similarity > max_cosine).sum())
            kept += [v for v, c in zip(found, similarity, strict=True) if c <= max_cosine]
            cosines += [c for c in similarity if c <= max_cosine]
            if len(kept) >= count:
                return Samples(np.stack(kept[:count]), np.array(cosines[:count]), sampled, rejected)
        raise InputError(
            f"{len(kept)} of {sampled} sampled identities have a cosine of at most {max_cosine:g}, but {count} are"
            " needed; raise the maximum cosine"
        )

    def level(self, original: np.ndarray, level: int, seed: int, candidates: int = CANDIDATES) -> Samples:
        """Sample one identity at a level from 1 (similar to the original) to 10 (unrelated to it).

        Args:
            original: ``(D,)``, not standardized.
            candidates: how many are sampled at a time; the one nearest to the level's target cosine is returned. Where
                even candidates from pure noise are too similar, the least similar one is, and ``excess`` says by how
                much it misses the level.

        Raises:
            InputError: the level is not 1 to 10, or the original has another size.
        """
        if not 1 <= level <= LEVELS:
            raise InputError(f"the level must be 1 to {LEVELS}, got {level}")
        if original.shape != self.mean.shape:
            raise InputError(f"this sampler needs a vector of shape {self.mean.shape}, got {original.shape}")
        target = target_cosine(level)
        generator = torch.Generator().manual_seed(seed)
        sampled = rejected = tried = 0
        for start in _starts(level):
            tried += 1
            noise = torch.randn(candidates, len(self.mean), generator=generator)
            found = self._from(original, noise, start)
            cosines = self.cosine(found, original)[:, 0]
            allowed = cosines <= target + COSINE_TOLERANCE
            sampled, rejected = sampled + candidates, rejected + int((~allowed).sum())
            if allowed.any():
                break
        distances = np.where(allowed, np.abs(cosines - target), np.inf)
        best = int(distances.argmin()) if allowed.any() else int(cosines.argmin())
        excess = max(0.0, float(cosines[best]) - target - COSINE_TOLERANCE)
        return Samples(found[best : best + 1], cosines[best : best + 1], sampled, rejected, excess, (tried - 1, best))

    def level_again(
        self, original: np.ndarray, level: int, seed: int, choice: tuple[int, int], candidates: int = CANDIDATES
    ) -> Samples:
        """The person of ``level`` with this ``choice`` for another photo: the same noise, so a similar result.

        Args:
            original: of the other photo, ``(D,)``.
            choice: of ``Samples``, for the same level, seed and number of candidates.
        """
        generator = torch.Generator().manual_seed(seed)
        for _ in range(choice[0] + 1):
            noise = torch.randn(candidates, len(self.mean), generator=generator)
        found = self._from(original, noise[choice[1] : choice[1] + 1], _starts(level)[choice[0]])
        cosines = self.cosine(found, original)[:, 0]
        excess = max(0.0, float(cosines[0]) - target_cosine(level) - COSINE_TOLERANCE)
        return Samples(found, cosines, 1, int(excess > 0), excess, choice)

    def _from(self, original: np.ndarray, noise: Tensor, start: int) -> np.ndarray:
        """Add noise ``(N, D)`` to the original up to time step ``start``, and denoise; at the last step, only noise."""
        clean = torch.from_numpy(self.standardize(original)).float()
        a = self._alphas_cumprod[start]
        noisy = noise if start == TIMES - 1 else a.sqrt() * clean + (1 - a).sqrt() * noise
        return self._restore(self._denoise(noisy, start))

    def _generate(self, count: int, generator: torch.Generator) -> np.ndarray:
        """Sample ``count`` vectors ``(count, D)`` from pure noise."""
        return self._restore(self._denoise(torch.randn(count, len(self.mean), generator=generator), TIMES - 1))

    def _denoise(self, x: Tensor, start: int) -> Tensor:
        """Denoise from time step ``start`` to 0 with deterministic DDIM (eta = 0)."""
        times = np.unique(np.linspace(0, start, max(2, round(STEPS * (start + 1) / TIMES))).round().astype(int))[::-1]
        with torch.no_grad():
            for t, following in zip(times, [*times[1:], -1], strict=True):
                noise = self.denoiser(x, torch.full((len(x),), int(t)))
                a = self._alphas_cumprod[int(t)]
                b = self._alphas_cumprod[int(following)] if following >= 0 else torch.tensor(1.0)
                clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
                x = b.sqrt() * clean + (1 - b).sqrt() * noise
        return x

    def _restore(self, standard: Tensor) -> np.ndarray:
        """Undo the standardization and normalize the leading unit vector."""
        vectors = standard.double().numpy() * self.std + self.mean
        vectors[:, : self.unit] /= np.linalg.norm(vectors[:, : self.unit], axis=1, keepdims=True) if self.unit else 1.0
        return vectors


def _starts(level: int) -> list[int]:
    """Time steps that a level is sampled from, one after the other."""
    return [*range(round(level / LEVELS * (TIMES - 1)), TIMES - 1, NOISE_STEP), TIMES - 1]


def target_cosine(level: int) -> float:
    """Cosine similarity to the original, in the standardized space, that level 1 to 10 aims at: 0.60 to -0.03."""
    return 0.60 - 0.07 * (level - 1)


def alphas_cumprod() -> Tensor:
    """Compute the cumulative product of ``1 - beta_t``: the share of the signal's variance at each step, ``(T,)``."""
    return torch.cumprod(1 - torch.linspace(*BETAS, TIMES, dtype=torch.float64), 0).float()


def _sinusoid(time: Tensor) -> Tensor:
    rates = torch.exp(-math.log(10_000) * torch.arange(32, device=time.device) / 32)
    angles = time[:, None].float() * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def sampler_tensors(sampler: IdentitySampler) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the contents of a sampler's file: weights in half precision, and metadata with the network's sizes."""
    net = sampler.denoiser
    tensors = {f"denoiser.{k}": v.half() for k, v in net.state_dict().items()}
    tensors |= {"mean": torch.from_numpy(sampler.mean).float(), "std": torch.from_numpy(sampler.std).float()}
    shape = {"dimensions": net.dimensions, "width": net.width, "blocks": net.blocks}
    return tensors, {"format": FORMAT, "space": sampler.space, "unit": str(sampler.unit), "denoiser": json.dumps(shape)}


def save_sampler(path: Path, sampler: IdentitySampler) -> None:
    """Write a sampler as a safetensors file.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.torch import save

    tensors, metadata = sampler_tensors(sampler)
    write_whole(path, save(tensors, metadata))


def load_sampler(path: Path) -> IdentitySampler:
    """Open a trained sampler.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or contains values that are not finite.
    """
    tensors, metadata = read_safetensors(path, "identity sampler", REMEDY)
    return _build(tensors, metadata, path.name)


@lru_cache(maxsize=4)
def builtin_sampler(space: str) -> IdentitySampler:
    """Open a sampler that comes with the package.

    Args:
        space: ``dlib``, or ``appearance-shape`` for the built-in morphable model.

    Raises:
        WeightsError: the package has no sampler for this space.
    """
    name = f"lds_{space}.safetensors"
    if not (FOLDER / name).is_file():
        raise WeightsError(f"the package has no identity sampler for {space}; {REMEDY}")
    tensors, metadata = open_builtin(name)
    return _build(tensors, metadata, name)


def _build(tensors: dict[str, Tensor], metadata: dict[str, Any], name: str) -> IdentitySampler:
    if metadata.get("format") != FORMAT:
        raise WeightsError(f"{name} is not an identity sampler of format {FORMAT}; {REMEDY}")
    if not all(bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise WeightsError(f"{name} contains values that are not finite; train or download it again")
    try:
        denoiser = Denoiser(**json.loads(metadata["denoiser"]))
        denoiser.load_state_dict(
            {k.removeprefix("denoiser."): v.float() for k, v in tensors.items() if k.startswith("denoiser.")}
        )
        mean, std = (tensors[k].double().numpy() for k in ("mean", "std"))
        return IdentitySampler(denoiser, mean, std, metadata["space"], int(metadata["unit"]))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{name} is incomplete or of another version ({type(error).__name__}); train or download it again"
        ) from None
