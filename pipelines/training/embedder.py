"""Distill the built-in recognizer from a teacher: ``faceveil train embedder``.

The teacher embeds views of faces: crops with disturbed alignment, color, sharpness and noise, and mixtures of two
faces. The student learns the teacher's embeddings, and the teacher's similarities between the faces of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..core.progress import Progress, silent
from ..faces.align import arcface_transform, crop, five_points, similarity
from ..imaging.resample import blur, resize
from ..recognition.embedder import ARCFACE_SIZE, DIMENSION, EmbedderNetwork
from .loop import Plan, Trainer, subject_of

SHIFT, SCALE, ROLL = 0.05, 0.06, 4.0
"""Largest disturbance of the alignment: shift and scale in inter-ocular distances, roll in degrees."""
MIXED = 0.4
"""Share of the views that are mixtures of two faces."""
SIMILARITY_WEIGHT = 2.0
"""Weight of the similarities' loss against that of the embeddings."""
_STEP_SEEDS = 1_000_003


@dataclass(frozen=True)
class Teacher:
    """A recognizer that a student is distilled from.

    Attributes:
        embed: crops ``(N, 3, size, size)``, RGB in [0, 1], to vectors ``(N, 256)``.
        template: its five points in pixels of the crop, ``(5, 2)``.
        size: side of its crop in pixels.
    """

    embed: Callable[[Tensor], Tensor]
    template: np.ndarray
    size: int


@dataclass(frozen=True)
class Views:
    """Training data, one row per view.

    Attributes:
        crops: of the student, ``(N, 3, 112, 112)``, uint8.
        vectors: unit vectors of the teacher, ``(N, 256)``.
    """

    crops: Tensor
    vectors: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Views]) -> Views:
        """Concatenate views."""
        return cls(torch.cat([p.crops for p in parts]), torch.cat([p.vectors for p in parts]))


@dataclass(frozen=True)
class Recipe:
    """How the student is trained."""

    steps: int = 1500
    batch: int = 96
    rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup: int = 100
    ema: float = 0.995
    seed: int = 0


def make_views(
    faces: Sequence[tuple[Tensor, np.ndarray]], teacher: Teacher, count: int, generator: torch.Generator
) -> Views:
    """Make ``count`` disturbed views of each face, and let the teacher embed them.

    Args:
        faces: image ``(1, 3, H, W)`` and landmarks ``(68, 2)`` of each face.
    """
    if not faces:
        return Views(torch.zeros(0, 3, ARCFACE_SIZE, ARCFACE_SIZE, dtype=torch.uint8), torch.zeros(0, DIMENSION))
    students: list[Tensor] = []
    teachers: list[Tensor] = []
    for image, points in faces:
        for _ in range(count):
            flipped = _random(generator) < 0.5
            disturbed = _disturb(image, generator)
            moved = _disturb_alignment(points, generator)
            crops = (
                crop(disturbed, arcface_transform(moved), ARCFACE_SIZE),
                crop(disturbed, similarity(five_points(moved), teacher.template), teacher.size),
            )
            for crops_of, one in zip((students, teachers), crops, strict=True):
                crops_of.append(one.flip(-1) if flipped else one)
    for_student, for_teacher = torch.cat(students), torch.cat(teachers)
    partner = torch.randperm(len(for_student), generator=generator)
    mixed = torch.rand(len(for_student), generator=generator) < MIXED
    share = torch.where(mixed, 0.3 + 0.4 * torch.rand(len(for_student), generator=generator), 1.0)[:, None, None, None]
    for_student, for_teacher = (torch.lerp(x[partner], x, share) for x in (for_student, for_teacher))
    with torch.no_grad():
        vectors = torch.cat([teacher.embed(part) for part in for_teacher.split(32)])
    return Views((for_student.clamp(0, 1) * 255).round().byte(), functional.normalize(vectors.float()))


def train_embedder(
    views: Views,
    recipe: Recipe,
    start: EmbedderNetwork | None = None,
    state: Path | None = None,
    logs: Path | None = None,
    stop_after: int | None = None,
    progress: Progress = silent,
) -> EmbedderNetwork:
    """Train a student on ``views``.

    Args:
        start: a trained student to go on with; it is changed. A new one when omitted.
        state: file that a stopped training continues from, exactly; remove it when the student is saved.
        logs: folder for TensorBoard.
        stop_after: stop after this many steps and return the student as it is then.

    Raises:
        InputError: the state is damaged, or belongs to another training.
    """
    torch.manual_seed(recipe.seed)
    network: EmbedderNetwork = (start or EmbedderNetwork()).to(memory_format=torch.channels_last).train()
    network.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))

    def loss(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(recipe.seed * _STEP_SEEDS + step)
        rows = torch.randint(len(views.crops), (recipe.batch,), generator=generator)
        crops = _augment(views.crops[rows].float() / 255, generator).contiguous(memory_format=torch.channels_last)
        wanted, found = views.vectors[rows], network(crops)
        direct = 1 - (found * wanted).sum(1).mean()
        relative = (found @ found.T - wanted @ wanted.T).square().sum(1).mean()
        return direct + SIMILARITY_WEIGHT / recipe.batch**0.5 * relative

    subject = subject_of(views.vectors.numpy(), recipe)
    plan = Plan(recipe.steps, "distilling the recognizer", state, subject, 200, logs, stop_after)
    Trainer(network, schedule, loss, recipe.ema).run(plan, progress)
    return network.eval()


def _rate(step: int, recipe: Recipe) -> float:
    """Share of the learning rate: a linear warm-up, then a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))


def _random(generator: torch.Generator) -> float:
    return float(torch.rand(1, generator=generator))


def _disturb_alignment(points: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Landmarks as another landmark model would find them: shifted, scaled and rolled a little as a whole."""
    shift, (scale, roll) = (
        torch.rand(2, generator=generator).numpy() * 2 - 1,
        torch.rand(2, generator=generator) * 2 - 1,
    )
    left, right = points[36:42].mean(0), points[42:48].mean(0)
    iod = float(np.linalg.norm(right - left))
    angle = math.radians(ROLL * float(roll))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    center = points.mean(0)
    return np.asarray((points - center) @ turn.T * (1 + SCALE * float(scale)) + center + SHIFT * iod * shift)


def _disturb(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change exposure, contrast, color balance, sharpness and noise of an image."""
    gamma = math.exp(0.5 * (_random(generator) - 0.5))
    gains = 1 + 0.3 * (torch.rand(1, 3, 1, 1, generator=generator) - 0.5)
    changed = (image.clamp(1e-4, 1) ** gamma * gains).clamp(0, 1)
    if _random(generator) < 0.15:
        changed = changed.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    choice = _random(generator)
    if choice < 0.25:
        changed = blur(changed, 0.5 + 1.5 * _random(generator))
    elif choice < 0.45:
        height, width = image.shape[-2:]
        factor = 0.25 + 0.5 * _random(generator)
        changed = resize(resize(changed, max(8, int(height * factor)), max(8, int(width * factor))), height, width)
    if _random(generator) < 0.4:
        changed = changed + 0.04 * _random(generator) * torch.randn(changed.shape, generator=generator)
    return changed.clamp(0, 1)


def _augment(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast of crops ``(N, 3, S, S)``, and gray out a rectangle in some."""
    count = len(crops)
    contrast, brightness = (
        amount * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1) for amount in (0.15, 0.08)
    )
    crops = (crops * (1 + contrast) + brightness).clamp(0, 1)
    for i in torch.nonzero(torch.rand(count, generator=generator) < 0.15).flatten().tolist():
        height, width, y, x = (int(v) for v in torch.randint(12, 40, (4,), generator=generator))
        crops[i, :, 2 * y : 2 * y + height, 2 * x : 2 * x + width] = 0.5
    return crops


def agreement(network: EmbedderNetwork, views: Views) -> tuple[float, float]:
    """Compare a student with its teacher on views: mean cosine, and correlation of the similarities of all pairs."""
    with torch.no_grad():
        found = torch.cat([network(part.float() / 255) for part in views.crops.split(64)])
    upper = np.triu_indices(len(found), 1)
    ours, theirs = ((v @ v.T).numpy()[upper] for v in (found, views.vectors))
    return float((found * views.vectors).sum(1).mean()), float(np.corrcoef(ours, theirs)[0, 1])
