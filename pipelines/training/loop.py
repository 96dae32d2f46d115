"""The training loop of small networks: EMA, resume, signals, logs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..core.threads import fix_threads
from .checkpoints import load_state, save_state
from .interruption import stop_on_signals
from .log import TrainingLog

REPORT_EVERY = 20
"""Steps between two calls of the progress callback."""


@dataclass(frozen=True)
class Plan:
    """When a training ends, and what it keeps on the way.

    Attributes:
        steps: optimizer steps in all.
        what: names the training to the progress callback.
        state: file that a stopped training continues from, exactly; the caller removes it when the
            result is saved.
        subject: digest of the data and the settings; a state of another subject is refused.
        save_every: steps between two saves of the state.
        logs: folder for TensorBoard.
        stop_after: stop after this many steps, as if a signal had come.
        max_minutes: stop after this time, likewise.
        show: called with the number of steps done each ``show_every`` steps, to write samples.
        writes: whether this process writes the state; one of several does.
        agree: makes the wish of this process to stop that of all.
    """

    steps: int
    what: str
    state: Path | None = None
    subject: str = ""
    save_every: int = 1000
    logs: Path | None = None
    stop_after: int | None = None
    max_minutes: float | None = None
    show: Callable[[int], None] | None = None
    show_every: int = 0
    writes: bool = True
    agree: Callable[[bool], bool] = bool


class Trainer:
    """Minimizes a loss.

    Args:
        network: its parameters are trained; after ``run`` it holds their moving average where there is one.
        schedule: of the learning rate; it also holds the optimizer.
        loss: of a step, by its number; it may draw random numbers from that number only, so that a resumed training
            equals an unbroken one.
        ema: decay of the moving average; 0 keeps none.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        loss: Callable[[int], Tensor],
        ema: float = 0.0,
    ) -> None:
        self._network, self._schedule, self._loss = network, schedule, loss
        self._optimizer = schedule.optimizer
        self._ema = EMAModel(network.parameters(), decay=ema) if ema else None

    def run(self, plan: Plan, progress: Progress = silent) -> bool:
        """Train from the beginning or from a saved state on.

        Returns:
            Whether the training is complete; else its state was saved.

        Raises:
            InputError: the saved state is damaged or belongs to another training.
            KeyboardInterrupt: a signal stopped the training; its state was saved.
        """
        fix_threads()
        first = self._resume(plan)
        last = plan.steps if plan.stop_after is None else min(first + plan.stop_after, plan.steps)
        end = math.inf if plan.max_minutes is None else time.monotonic() + 60 * plan.max_minutes
        with stop_on_signals() as stop, TrainingLog(plan.logs) as log:
            for step in range(first, last):
                if plan.agree(stop.requested or time.monotonic() >= end):
                    last = step
                    break
                if step % REPORT_EVERY == 0:
                    progress(step, plan.steps, plan.what)
                loss = self._step(step)
                log.write(step, loss=loss, learning_rate=float(self._schedule.get_last_lr()[0]))
                if (step + 1) % plan.save_every == 0:
                    self._save(plan, step + 1)
                if plan.show is not None and plan.show_every and (step + 1) % plan.show_every == 0:
                    plan.show(step + 1)
        if last < plan.steps:
            self._save(plan, last)
            if stop.requested:
                raise KeyboardInterrupt
            progress(last, plan.steps, plan.what)
            return False
        progress(last, plan.steps, plan.what)
        # The result is not written yet: until it is, a run that is cut off continues from here.
        self._save(plan, last)
        self.use_average()
        return True

    def use_average(self) -> None:
        """Give the network its averaged weights, where there are any."""
        if self._ema is not None:
            self._ema.copy_to(self._network.parameters())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network has its averaged weights inside the context."""
        if self._ema is None:
            yield
            return
        self._ema.store(self._network.parameters())
        self.use_average()
        try:
            yield
        finally:
            self._ema.restore(self._network.parameters())

    def _step(self, step: int) -> float:
        loss = self._loss(step)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        if self._ema is not None:
            self._ema.step(self._network.parameters())
        return float(loss.detach())

    def _save(self, plan: Plan, step: int) -> None:
        if plan.state is None or not plan.writes:
            return
        state: dict[str, Any] = {
            "step": step,
            "subject": plan.subject,
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        if self._ema is not None:
            state["ema"] = self._ema.state_dict()
        save_state(plan.state, state)

    def _resume(self, plan: Plan) -> int:
        path = plan.state
        state = None if path is None else load_state(path)
        if state is None or path is None:
            return 0
        try:
            if state["subject"] != plan.subject:
                raise ValueError(plan.subject)
            self._network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            if self._ema is not None:
                self._ema.load_state_dict(state["ema"])
                # The state was read to the CPU.
                self._ema.to(next(self._network.parameters()).device)
            return int(state["step"])
        except (KeyError, ValueError, RuntimeError, TypeError):
            raise InputError(
                f"the training state {path.name} belongs to another training; delete it to start again"
            ) from None


def subject_of(data: np.ndarray, *settings: object) -> str:
    """A digest of the data and the settings of a training."""
    digest = hashlib.sha256(np.ascontiguousarray(data).tobytes())
    digest.update(repr((data.shape, settings)).encode())
    return digest.hexdigest()
