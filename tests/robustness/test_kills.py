"""``kill -9`` at any moment: files are whole, nothing is lost, and the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from clips import write_clip
from faceveil.pipelines.cli import main
from faceveil.pipelines.core.errors import FaceVeilError
from faceveil.pipelines.core.files import PART_PREFIX, PART_SUFFIX
from faceveil.pipelines.identity.bank import load_bank
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.pseudonym import Pseudonyms
from faceveil.pipelines.imaging.load import load_image
from PIL import Image
from safetensors.torch import load_file

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX's")]

KILLS = 5
"""Of each kind; 20 of each were run before the release (benchmarks/RESULTS.md)."""
PATIENCE = 120.0
"""Seconds until a process has begun."""


def killed(script: str, arguments: list[str], begun: Path, pattern: str, after: float) -> None:
    """Start Python, wait for a first file that matches a pattern, and kill the process ``after`` seconds later."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stderr=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while process.poll() is None and not any(begun.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.002)
    time.sleep(after)
    workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    # They notice, but may finish a file before.
    while not all(map(_has_ended, workers)):
        assert time.monotonic() < end
        time.sleep(0.01)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def moments(longest: float) -> list[float]:
    """Seconds after the start of the work, up to its approximate length."""
    return [round(float(v), 4) for v in np.random.default_rng(0).uniform(0, longest, KILLS)]


FOLDER = "import sys; from faceveil.pipelines.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures without faces, and what becomes of them when nothing goes wrong."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "in").mkdir()
    for seed in range(12):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "in" / f"{seed:02}.png")
    assert main(["anonymize", str(root / "in"), "-o", str(root / "out"), "--method", "solid"]) == 0
    return root


@pytest.mark.parametrize("after", moments(0.8))
def test_a_folder_job(pictures: Path, tmp_path: Path, after: float) -> None:
    sources = {p.name: p.read_bytes() for p in (pictures / "in").iterdir()}
    whole = {p.name: p.read_bytes() for p in (pictures / "out").glob("*.png")}
    out = tmp_path / "out"
    out.mkdir()
    command = ["anonymize", str(pictures / "in"), "-o", str(out), "--method", "solid"]
    killed(FOLDER, command, out, "*.png", after)
    for path in out.glob("*.png"):
        assert path.read_bytes() == whole[path.name]
        load_image(path)
    left = list(out.glob(f"{PART_PREFIX}*{PART_SUFFIX}"))
    for path in left:
        # As if the next run came an hour later.
        os.utime(path, (0, 0))
    assert main([*command, "--overwrite"]) == 0
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == whole
    assert not list(out.glob(f"{PART_PREFIX}*"))
    assert {p.name: p.read_bytes() for p in (pictures / "in").iterdir()} == sources


ENROLL = """
import sys
from pathlib import Path
import numpy as np
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.pseudonym import Pseudonyms

folder = Path(sys.argv[1])
pseudonyms = Pseudonyms.open(folder, "shared")
for row, vector in enumerate(np.load(folder / "people.npy")[int(sys.argv[2]) :: 2]):
    number, _ = pseudonyms.assign(Identity(vector, "dlib"))
    with (folder / f"said-{sys.argv[2]}.txt").open("a") as said:
        said.write(f"{row} {number}\\n")
"""


@pytest.mark.parametrize("after", moments(0.6))
def test_two_processes_on_one_ledger(tmp_path: Path, after: float) -> None:
    """One of two is killed; what it said it had stored is there, and the other lost nothing."""
    from faceveil.pipelines.identity.lds import builtin_sampler

    sampler = builtin_sampler("dlib")
    rng = np.random.default_rng(1)
    people = rng.normal(size=(60, len(sampler.mean))) * sampler.std + sampler.mean
    np.save(tmp_path / "people.npy", people)
    other = subprocess.Popen([sys.executable, "-c", ENROLL, str(tmp_path), "1"])
    killed(ENROLL, [str(tmp_path), "0"], tmp_path, "said-0.txt", after)
    assert other.wait(timeout=PATIENCE) == 0
    entries = json.loads((tmp_path / "shared.ledger.json").read_text())["entries"]
    assert len({entry["number"] for entry in entries}) == len(entries) >= len(people) / 2
    pseudonyms = Pseudonyms.open(tmp_path, "shared")
    for half in (0, 1):
        lines = (tmp_path / f"said-{half}.txt").read_text().splitlines()
        for line in lines[: 30 if half else -1]:
            row, number = map(int, line.split())
            assert pseudonyms.assign(Identity(people[2 * row + half], "dlib"))[0] == number
    # The killed process goes on: everybody has a number of his own.
    numbers = [pseudonyms.assign(Identity(person, "dlib"))[0] for person in people]
    assert len(set(numbers)) == len(people)


BANK = """
import sys
from pathlib import Path
import numpy as np
import torch
from faceveil.pipelines.identity.bank import build_bank

rng = np.random.default_rng(0)
faces = [(v / np.linalg.norm(v), torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(i)))
         for i, v in enumerate(rng.normal(size=(20, 128)))]
build_bank(Path(sys.argv[1]), iter(faces), "dlib", 0.4)
"""


@pytest.mark.parametrize("after", moments(1.5))
def test_a_bank(tmp_path: Path, after: float) -> None:
    """A half-built bank does not open, and building it again gives the whole one."""
    bank = tmp_path / "bank"
    killed(BANK, [str(bank)], bank, "00000.webp", after)
    finished = (bank / "bank.safetensors").is_file() and not (bank / "unfinished").exists()
    if (bank / "bank.safetensors").is_file():
        assert len(load_bank(bank)) == 20
    else:
        with pytest.raises(FaceVeilError):
            load_bank(bank)
    if not finished:
        assert subprocess.run([sys.executable, "-c", BANK, str(bank)], check=False).returncode == 0
    assert len(load_bank(bank)) == 20
    assert len(list(bank.glob("*.webp"))) == 20
    load_bank(bank).portrait(19)


TRAINING = """
import sys
from pathlib import Path
import numpy as np
from faceveil.pipelines.identity.lds import save_sampler
from faceveil.pipelines.training import loop
from faceveil.pipelines.training.sampler import Recipe, train_sampler

original = loop.Plan.__init__
def often(self, *a, **k):
    original(self, *a, **k)
    object.__setattr__(self, "save_every", 5)
loop.Plan.__init__ = often
folder = Path(sys.argv[1])
vectors = np.random.default_rng(0).normal(size=(240, 128))
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
recipe = Recipe(width=32, blocks=2, steps=60, batch=16)
save_sampler(folder / "out.safetensors", train_sampler(vectors, "dlib", 128, recipe, folder / "out.state"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("trained")
    subprocess.run([sys.executable, "-c", TRAINING, str(folder)], check=True)
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("after", moments(0.4))
def test_a_training(trained: dict[str, torch.Tensor], tmp_path: Path, after: float) -> None:
    """It continues from its last whole state and ends with the same weights."""
    killed(TRAINING, [str(tmp_path)], tmp_path, "out.state", after)
    assert not (tmp_path / "out.safetensors").exists() or _same(tmp_path / "out.safetensors", trained)
    subprocess.run([sys.executable, "-c", TRAINING, str(tmp_path)], check=True)
    assert _same(tmp_path / "out.safetensors", trained)


def _same(path: Path, trained: dict[str, torch.Tensor]) -> bool:
    found = load_file(path)
    return found.keys() == trained.keys() and all(torch.equal(found[key], trained[key]) for key in trained)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures and a video without faces, and what becomes of them when nothing goes wrong."""
    root = tmp_path_factory.mktemp("mixed")
    (root / "in").mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "in" / f"{seed:02}.png")
    noise = np.random.default_rng(9)
    write_clip(root / "in" / "clip.mp4", (noise.integers(0, 99, (96, 128, 3)).astype(np.uint8) for _ in range(40)))
    assert main(["anonymize", str(root / "in"), "-o", str(root / "out"), "--method", "solid", "--jobs", "1"]) == 0
    return root


@pytest.mark.parametrize("after", moments(3.0))
def test_a_folder_is_resumed(mixed: Path, tmp_path: Path, after: float) -> None:
    """Killed twice, resumed twice: every output is there, valid, and equal to that of an undisturbed run."""
    out = tmp_path / "out"
    out.mkdir()
    command = ["anonymize", str(mixed / "in"), "-o", str(out), "--method", "solid", "--jobs", "1", "--resume"]
    killed(FOLDER, command, out, "*.jsonl", after)
    killed(FOLDER, command, out, "*.jsonl", 2.5)
    assert main(command) == 0
    whole = {p.name: p.read_bytes() for p in (mixed / "out").iterdir() if p.suffix in (".png", ".mp4")}
    made = {p.name: p.read_bytes() for p in out.iterdir() if p.suffix in (".png", ".mp4")}
    assert made == whole
