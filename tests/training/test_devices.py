"""Training in several processes, as ``torchrun`` and ``accelerate launch`` start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = """
import sys
from pathlib import Path
import torch
from torch import nn
from faceveil.pipelines.training import devices
from faceveil.pipelines.training.devices import Run, Settings, fit, is_first_process

folder, stop = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)

class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x):
        return (self.layer(x) - x.sum(1, keepdim=True)).square().mean()

drawn = []

def draw(generator):
    batch = torch.randn(8, 3, generator=generator)
    drawn.append(batch.sum())
    return (batch,)

objective = Objective()
with devices.first_process_first():
    pass
run = Run(folder / "state", stop_after=stop or None, save_every=7)
done = fit(objective, draw, Settings(steps=30, rate=0.1, ema=0.5), run, "test", "training")
from accelerate import PartialState

state = PartialState()
torch.save({"done": done, "weight": objective.layer.weight.detach(), "drawn": torch.stack(drawn),
            "first": is_first_process(), "processes": state.num_processes}, folder / f"{state.process_index}.pt")
devices.leave_processes()
"""


def trained(folder: Path, processes: int, stop: int = 0) -> list[dict]:
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    # Each process writes its file after the training, so the files tell whether it went well.
    for file in folder.glob("*.pt"):
        file.unlink()
    subprocess.run([*launch, str(script), str(folder), str(stop)], check=False, timeout=240, env=environment)
    return [torch.load(folder / f"{i}.pt", weights_only=True) for i in range(processes)]


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "two", 2)
    assert first["processes"] == second["processes"] == 2
    assert (first["first"], second["first"]) == (True, False)
    assert first["done"] and torch.equal(first["weight"], second["weight"])
    # Each sees other data, and all of it counts: the weights are near the truth, and not those of one process.
    assert not torch.isin(first["drawn"], second["drawn"]).any()
    (alone,) = trained(tmp_path / "one", 1)
    assert not torch.equal(alone["weight"], first["weight"])
    assert (first["weight"] - 1).abs().max() < 0.4


@pytest.mark.slow
def test_two_stopped_processes_go_on_exactly(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", 2)
    stopped, _ = trained(tmp_path / "stopped", 2, stop=12)
    assert not stopped["done"]
    again = trained(tmp_path / "stopped", 2)
    assert all(torch.equal(part["weight"], whole["weight"]) for part in again)
