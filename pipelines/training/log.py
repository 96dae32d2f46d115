"""Write a training's loss and learning rate for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from ..core.errors import InputError


class TrainingLog:
    """Scalars by step; without a folder nothing is written.

    Raises:
        InputError: a folder is given, but TensorBoard is not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("logs need TensorBoard; install it with: pip install 'faceveil[train]'") from None
        self._writer = SummaryWriter(str(folder))

    def write(self, step: int, **scalars: float) -> None:
        """Add one value of each scalar."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name.replace("_", " "), value, step)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
