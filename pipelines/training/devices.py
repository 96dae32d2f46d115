"""Train a network on one device or, with ``accelerate launch``, on several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.progress import Progress, silent
from .loop import Plan, Trainer

PRECISIONS = {"no": None, "bf16": torch.bfloat16}
_STEP_SEEDS = 1_000_003
"""Prime that keeps the random streams of different seeds apart."""


@dataclass(frozen=True)
class Settings:
    """What the optimizer does.

    Attributes:
        warmup: steps in which the rate rises.
        ema: decay of the weights' moving average, which is what is kept.
        precision: ``no`` or ``bf16``.
        halvings: steps at which the rate is halved.
    """

    steps: int
    rate: float
    warmup: int = 0
    ema: float = 0.9999
    precision: str = "no"
    seed: int = 0
    weight_decay: float = 0.0
    halvings: tuple[int, ...] = ()

    def factor(self, step: int) -> float:
        """What the rate is multiplied by at a step."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return warm * 0.5 ** sum(step >= halving for halving in self.halvings)


@dataclass(frozen=True)
class Run:
    """When a training ends, and what it writes on the way.

    Attributes:
        state: file that a stopped training continues from, exactly.
        max_minutes: stop after this time; the state is saved.
        stop_after: stop after this many steps, for tests.
        save_every: steps between two states.
        show_every: steps between two calls of ``show``.
        show: called while the network has its averaged weights.
        logs: folder for TensorBoard.
    """

    state: Path
    max_minutes: float | None = None
    stop_after: int | None = None
    save_every: int = 1000
    show_every: int = 0
    show: Callable[[], None] | None = None
    logs: Path | None = None


def fit(
    objective: nn.Module,
    draw: Callable[[torch.Generator], tuple[Any, ...]],
    settings: Settings,
    run: Run,
    subject: str,
    what: str,
    progress: Progress = silent,
) -> bool:
    """Minimize what ``objective`` returns for the batches that ``draw`` gives; then it has its averaged weights.

    Args:
        draw: makes a batch of tensors, or of objects with ``to(device, dtype)``, from a generator.
        subject: digest of the data and the settings.
        what: names the training to ``progress``.

    Returns:
        Whether the training is complete; else its state was saved.

    Raises:
        InputError: the precision is unknown, or the state is damaged or of another training.
        KeyboardInterrupt: a signal stopped the training; its state was saved.
    """
    from accelerate import Accelerator
    from accelerate.utils import broadcast

    if settings.precision not in PRECISIONS:
        raise InputError(f"precision {settings.precision!r} is not one of {', '.join(PRECISIONS)}")
    accelerator = Accelerator()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, settings.factor)
    prepared = accelerator.prepare(objective)

    def loss(step: int) -> Tensor:
        # Each process draws other images; all numbers depend on seed, step and process only.
        place = step * accelerator.num_processes + accelerator.process_index
        seed = settings.seed * _STEP_SEEDS + place
        # Dropout draws from torch's own stream.
        torch.manual_seed(seed)
        batch = draw(torch.Generator().manual_seed(seed))
        with autocast(accelerator.device, settings.precision):
            return prepared(*(_moved(part, accelerator.device) for part in batch))  # type: ignore[no-any-return]

    def agree(stop: bool) -> bool:
        """What the first process wants, so that none waits for another."""
        if accelerator.num_processes == 1:
            return stop
        return bool(broadcast(torch.tensor(float(stop), device=accelerator.device)))

    trainer = Trainer(prepared, schedule, loss, settings.ema)

    def show(step: int) -> None:
        if run.show is not None and accelerator.is_main_process:
            with trainer.averaged():
                run.show()

    plan = Plan(
        settings.steps,
        what,
        run.state,
        f"{subject} {accelerator.num_processes}",
        run.save_every,
        run.logs if accelerator.is_main_process else None,
        run.stop_after,
        run.max_minutes,
        show,
        run.show_every,
        accelerator.is_main_process,
        agree,
    )
    complete = trainer.run(plan, progress if accelerator.is_main_process else silent)
    if not complete:
        trainer.use_average()
    objective.eval().requires_grad_(False)
    return complete


def first_process_first() -> contextlib.AbstractContextManager[None]:
    """A context that the first process of a training leaves before the others enter it."""
    return _processes().main_process_first()  # type: ignore[no-any-return]


def is_first_process() -> bool:
    """Whether this process writes results."""
    return bool(_processes().is_main_process)


def leave_processes() -> None:
    """Wait for the other processes of a training, and end the connections to them.

    A process that ends with open connections may abort, and its launcher then stops those that are not ready.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _processes() -> Any:
    """The processes of this training."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Without this, processes on CPUs would not find each other, and each would train a network of its own.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """The context of mixed precision."""
    dtype = PRECISIONS[precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def _moved(part: Any, device: torch.device) -> Any:
    return part.to(device) if isinstance(part, Tensor) else part.to(device, torch.float32)
