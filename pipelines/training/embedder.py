"""Distill the built-in recognizer from a teacher: ``faceveil train embedder``.

Student and teacher see the same disturbed faces. The student learns the teacher's embeddings, the teacher's
similarities between the faces of a batch, and, as hints (FitNets, Romero et al. 2015), the teacher's feature maps.
With hints, each stage first learns alone, from the teacher's features of the stage before; then all learn together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..faces.align import invert, similarity
from ..recognition.embedder import SIZE, STAGES, TEMPLATE, EmbedderNetwork
from .disturb import disturbed
from .loop import Plan, Trainer, subject_of

MARGIN = 8
"""Pixels around a stored face, for disturbances of the alignment."""
STORED = SIZE + 2 * MARGIN
PORTRAITS = 0.25
"""Share of each batch that are portraits, not random people shown on them, where the two are known apart."""
ALONE = 0.4
"""Share of the steps in which each stage learns alone."""
SIMILARITY_WEIGHT = 2.0
"""Weight of the similarities' loss against that of the embeddings and hints."""
SAME_FRAME = 1.0
"""Largest difference, in pixels, of the teacher's alignment from the student's where feature maps are compared."""
CALIBRATION = 256
"""Faces from which the scale of the teacher's features is measured."""
SAVE_EVERY = 200
"""Steps between two states."""
_STEP_SEEDS = 1_000_003


@dataclass(frozen=True)
class Teacher:
    """A recognizer that a student is distilled from.

    Attributes:
        network: takes crops ``(N, 3, size, size)`` with values from 0 to 255; returns vectors ``(N, 256)``.
        template: its five points in pixels of the crop, ``(5, 2)``.
        size: side of its crop in pixels.
        bgr: the order of its channels.
    """

    network: nn.Module
    template: np.ndarray
    size: int
    bgr: bool

    def embed(self, crops: Tensor) -> Tensor:
        """Vectors ``(N, 256)`` of crops ``(N, 3, size, size)``, RGB in [0, 1]."""
        vectors: Tensor = self.network((crops.flip(1) if self.bgr else crops) * 255)
        return vectors

    def embed_with_hints(self, crops: Tensor, hints: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """The outputs of the modules named ``hints``, and unit vectors ``(N, 256)``."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str) -> torch.utils.hooks.RemovableHandle:
            module = self.network.get_submodule(name)
            return module.register_forward_hook(lambda _, __, output: outputs.update({name: output}))

        handles = [keep(name) for name in hints]
        try:
            with torch.no_grad():
                vectors = functional.normalize(self.embed(crops))
        finally:
            for handle in handles:
                handle.remove()
        return [outputs[name] for name in hints], vectors

    def check_hints(self, hints: Sequence[str]) -> None:
        """Raise where feature maps cannot be compared with the student's.

        Raises:
            InputError: a module does not exist, or has an output of another shape; or the alignment differs.
        """
        if not hints:
            return
        if self.size != SIZE or np.abs(self.template - TEMPLATE).max() > SAME_FRAME:
            raise InputError("hints need a teacher with the student's alignment; train without --hints")
        nothing = torch.zeros(1, 3, SIZE, SIZE, device=next(self.network.parameters()).device)
        try:
            found = [tuple(f.shape[1:]) for f in self.embed_with_hints(nothing, hints)[0]]
        except (AttributeError, KeyError) as error:
            raise InputError(f"the teacher has no module of a name in --hints ({error})") from None
        wanted = [(channels, SIZE // 4 >> i, SIZE // 4 >> i) for i, (channels, _) in enumerate(STAGES)]
        if found != wanted:
            raise InputError(f"hints must have the shapes {wanted}, but these have {found}; name other modules")


@dataclass(frozen=True)
class Recipe:
    """How the student is trained.

    Attributes:
        hints: names of the teacher's modules whose outputs the student's stages imitate; empty for none.
        group: faces that come from one portrait, itself first; 1 where that is unknown.
    """

    steps: int = 2400
    batch: int = 48
    rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup: int = 30
    ema: float = 0.99
    seed: int = 0
    hints: tuple[str, ...] = ()
    group: int = 1

    @classmethod
    def of(cls, steps: int, batch: int, seed: int, hints: tuple[str, ...]) -> Recipe:
        """A recipe whose warm-up and moving average suit the number of steps."""
        ema = max(0.0, min(0.999, 1 - 12 / steps))
        return cls(steps, batch, warmup=min(500, steps // 20), ema=ema, seed=seed, hints=hints)

    def hint_weight(self, step: int) -> float:
        """Weight of the hints at a step: it falls to 0 while all stages learn together."""
        first = ALONE * self.steps
        return 1.0 if step < first else 1 - (step - first) / (self.steps - first)


def train_embedder(
    faces: Tensor,
    teacher: Teacher,
    recipe: Recipe,
    state: Path | None = None,
    logs: Path | None = None,
    stop_after: int | None = None,
    progress: Progress = silent,
    device: torch.device | str = "cpu",
) -> EmbedderNetwork:
    """Train a student.

    Args:
        faces: aligned faces ``(N, 3, 144, 144)``, RGB, uint8: those of the student, with a margin.
        state: file that a stopped training continues from, exactly; remove it when the student is saved.
        logs: folder for TensorBoard.
        stop_after: stop after this many steps and return the student as it is then.
        device: where the student, the teacher and all faces are kept while it trains.

    Returns:
        The student, on the CPU.

    Raises:
        InputError: the state is damaged, or belongs to another training; or the teacher has no such hints.
    """
    teacher.check_hints(recipe.hints)
    torch.manual_seed(recipe.seed)
    network: EmbedderNetwork = EmbedderNetwork().to(memory_format=torch.channels_last).train()
    if recipe.hints:
        _calibrate(network, teacher, recipe, faces)
    device = torch.device(device)
    network.to(device)
    subject = subject_of(faces.numpy(), recipe, device.type)
    shown = faces.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe))
    to_teacher = similarity(TEMPLATE, teacher.template)

    def loss(step: int) -> Tensor:
        generator = torch.Generator(device).manual_seed(recipe.seed * _STEP_SEEDS + step)
        pixels = shown[_rows(len(shown), recipe, generator)].float() / 255
        crops = disturbed(pixels, SIZE, generator).contiguous(memory_format=torch.channels_last)
        hints, wanted = teacher.embed_with_hints(_reframed(crops, to_teacher, teacher.size), recipe.hints)
        alone, weight = step < ALONE * recipe.steps, recipe.hint_weight(step)
        return distillation_loss(network, crops, hints, wanted, alone, weight)

    plan = Plan(recipe.steps, "distilling the recognizer", state, subject, SAVE_EVERY, logs, stop_after)
    with _on(teacher, device), _repeatable():
        Trainer(network, schedule, loss, recipe.ema).run(plan, progress)
    return network.cpu().eval()


def _rows(count: int, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """The faces of a batch, of ``count``; a share of them are portraits themselves."""
    rows = torch.randint(count, (recipe.batch,), generator=generator, device=generator.device)
    if recipe.group == 1:
        return rows
    portraits = torch.rand(recipe.batch, generator=generator, device=generator.device) < PORTRAITS
    return torch.where(portraits, rows - rows % recipe.group, rows)


@contextmanager
def _on(teacher: Teacher, device: torch.device) -> Iterator[None]:
    """The teacher's network is on a device inside the context, and then on the CPU."""
    teacher.network.to(device)
    try:
        yield
    finally:
        teacher.network.cpu()


@contextmanager
def _repeatable() -> Iterator[None]:
    """Convolutions on a GPU add up in one order inside the context: otherwise a resumed training would differ."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def distillation_loss(
    network: EmbedderNetwork,
    crops: Tensor,
    hints: Sequence[Tensor],
    wanted: Tensor,
    alone: bool,
    hint_weight: float = 1.0,
) -> Tensor:
    """The loss of one batch.

    Args:
        crops: faces ``(N, 3, 128, 128)``, RGB in [0, 1].
        hints: the teacher's features for each stage; empty for none.
        wanted: the teacher's unit vectors ``(N, 256)``.
        alone: whether each stage gets the teacher's features of the stage before, where there are hints.
        hint_weight: of the errors of the feature maps.
    """
    x, total = network.normalized(crops), crops.new_zeros(())
    for i, stage in enumerate(network.stages):
        x = stage(x)
        if hints:
            total = total + hint_weight * _relative_error(x, hints[i])
            x = hints[i] if alone else x
    found = network.embedding(x)
    direct = 1 - (found * wanted).sum(1).mean()
    relative = (found @ found.T - wanted @ wanted.T).square().sum(1).mean()
    return total + direct + SIMILARITY_WEIGHT / len(crops) ** 0.5 * relative


def agreement(network: EmbedderNetwork, teacher: Teacher, faces: Tensor) -> tuple[float, float]:
    """Compare a student with its teacher on faces ``(N, 3, 144, 144)``, uint8: mean cosine of the embeddings, and
    correlation of the similarities of all pairs."""
    to_teacher = similarity(TEMPLATE, teacher.template)
    ours, theirs = [], []
    with torch.no_grad():
        for part in faces[..., MARGIN:-MARGIN, MARGIN:-MARGIN].split(64):
            crops = part.float() / 255
            ours.append(network(crops))
            theirs.append(functional.normalize(teacher.embed(_reframed(crops, to_teacher, teacher.size))))
    found, wanted = torch.cat(ours), torch.cat(theirs)
    upper = np.triu_indices(len(found), 1)
    student, other = ((v @ v.T).numpy()[upper] for v in (found, wanted))
    return float((found * wanted).sum(1).mean()), float(np.corrcoef(student, other)[0, 1])


def _calibrate(network: EmbedderNetwork, teacher: Teacher, recipe: Recipe, faces: Tensor) -> None:
    """Give each stage's last normalization the scale of the teacher's features."""
    every = max(1, len(faces) // CALIBRATION)
    crops = faces[::every][:CALIBRATION, :, MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255
    hints, _ = teacher.embed_with_hints(crops, recipe.hints)
    with torch.no_grad():
        for stage, features in zip(network.stages, hints, strict=True):
            last = next(reversed(list(stage.children())))
            assert isinstance(last, nn.BatchNorm2d)
            last.weight.copy_(features.std((0, 2, 3)))
            last.bias.copy_(features.mean((0, 2, 3)))


def _relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of features ``(N, C, h, w)``, as a share of their variance."""
    variance = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().mean()
    return (found - wanted).square().mean() / variance


def _reframed(crops: Tensor, transform: np.ndarray, size: int) -> Tensor:
    """The student's crops ``(N, 3, 128, 128)``, as the teacher would cut them out, ``(N, 3, size, size)``."""
    if size == SIZE and np.abs(transform - np.eye(2, 3)).max() < SAME_FRAME / SIZE:
        return crops
    # Pixel centers in units of affine_grid, where the corners of the image are at -1 and 1.
    back = invert(transform)
    theta = back.copy()
    theta[:, :2] *= size / SIZE
    center = (size - 1) / 2
    theta[:, 2] = (2 * (back[:, :2] @ [center, center] + back[:, 2]) + 1) / SIZE - 1
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(crops).expand(len(crops), -1, -1), [len(crops), 3, size, size], align_corners=False
    )
    return functional.grid_sample(crops, grid, padding_mode="border", align_corners=False)


def _rate(step: int, recipe: Recipe) -> float:
    """Share of the learning rate: a linear warm-up, then a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup))
