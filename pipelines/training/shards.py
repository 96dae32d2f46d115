"""Prepared training data in files of up to some hundred items, built once and read row by row from disk.

A build that was interrupted goes on where it stopped; a folder that was built from other files is refused.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..core.errors import InputError
from ..core.files import write_whole
from ..core.parallel import parallel
from ..core.progress import Progress

FACTS = "facts.json"
EMPTY = ".empty"
"""Suffix of a file that stands for jobs without items."""
Item = dict[str, np.ndarray]
"""Arrays of one item by name. Arrays, not tensors: a tensor from another process keeps a file open."""


class Shards:
    """The files of a folder as one table: ``rows`` reads some rows of one tensor.

    Raises:
        InputError: there are none, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._files = []
        counts = []
        for path in sorted(folder.glob("*.safetensors")):
            try:
                file = safe_open(str(path), "pt")
                counts.append(file.get_slice(next(iter(file.keys()))).get_shape()[0])
            except (SafetensorError, OSError, StopIteration):
                raise InputError(
                    f"{path.name} in {folder.name} is damaged; remove the folder and prepare it again"
                ) from None
            self._files.append(file)
        self.counts = counts
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def rows(self, name: str, chosen: Sequence[int]) -> Tensor:
        """Rows of a tensor, in the given order; only they are read."""
        return torch.stack([self._row(name, index) for index in chosen])

    def _row(self, name: str, index: int) -> Tensor:
        place = bisect_right(self._ends, index)
        row = index - (self._ends[place - 1] if place else 0)
        return self._files[place].get_slice(name)[row]  # type: ignore[no-any-return]

    def whole(self, name: str) -> Tensor:
        """All rows of a small tensor."""
        return torch.cat([file.get_tensor(name) for file in self._files])


def build(
    work: Callable[..., Sequence[Item]],
    jobs: Sequence[tuple[Any, ...]],
    sources: Sequence[Path],
    folder: Path,
    settings: dict[str, Any],
    per_shard: int,
    workers: int,
    progress: Progress,
    what: str,
) -> None:
    """Let processes compute the items of all jobs, and write a file for each ``per_shard`` jobs.

    Args:
        work: gives the items of one job, none where it has none.
        sources: the file or folder of each job; what was built from others is refused.
        settings: what else the items depend on.

    Raises:
        InputError: the folder holds data of other sources or settings.
    """
    facts = {"sources": _digest(sources), "jobs": len(jobs), **settings}
    known = folder / FACTS
    if known.is_file():
        if json.loads(known.read_text(encoding="utf-8")) != facts:
            raise InputError(
                f"{folder.name} holds training data of other images or settings; remove it, or name another folder"
            )
    elif folder.is_dir() and any(folder.glob("*.safetensors")):
        raise InputError(f"{folder.name} holds other files; name another folder for the training data")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(known, json.dumps(facts).encode())
    chunks = [jobs[start : start + per_shard] for start in range(0, len(jobs), per_shard)]
    paths = [folder / f"{number:06}.safetensors" for number in range(len(chunks))]
    missing = [k for k, path in enumerate(paths) if not (path.is_file() or path.with_suffix(EMPTY).is_file())]
    # One pool for all: its results come in the order of the jobs.
    results = parallel(work, [job for k in missing for job in chunks[k]], workers, progress, what)
    for k in missing:
        _write(paths[k], [item for items in islice(results, len(chunks[k])) for item in items])


def _write(path: Path, items: Sequence[Item]) -> None:
    if not items:
        write_whole(path.with_suffix(EMPTY), b"")
        return
    arrays = {name: np.stack([item[name] for item in items]) for name in items[0]}
    write_whole(path, save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}))


def _digest(sources: Sequence[Path]) -> str:
    """Of names, sizes and times of change."""
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
