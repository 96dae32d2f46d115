"""A cluster does the same as one process, and a killed worker loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.progress import silent
from faceveil.pipelines.jobs.cluster import Cluster, ClusterWorkers, on_cluster
from PIL import Image

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

KILL_ONCE = """
import os, pathlib, signal, sys
marker = pathlib.Path(sys.argv[1])
if sys.argv[2] == "1" and not marker.exists():
    marker.touch()
    os.kill(os.getppid(), signal.SIGKILL)
print(sys.argv[2])
"""


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    jobs = [([sys.executable, "-c", KILL_ONCE, str(tmp_path / "killed"), str(i)],) for i in range(4)]
    seen: list[int] = []
    results = on_cluster(subprocess.check_output, jobs, Cluster(2), lambda done, *_: seen.append(done), "testing")
    assert [int(r) for r in results] == [0, 1, 2, 3]
    assert (tmp_path / "killed").exists()
    assert seen == [0, 1, 2, 3, 4]
    assert not ray.is_initialized()


def test_two_workers_equal_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"none")
    for name, flags in (("one", ["--jobs", "1"]), ("two", ["--cluster", "--jobs", "2"])):
        output = str(tmp_path / name)
        assert main(["anonymize", str(tmp_path / "in"), "-o", output, "--method", "solid", *flags]) == SOME_FAILED
        assert "bad.png" in capsys.readouterr().err
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).glob("*.png")} for n in ("one", "two"))
    assert one == two and len(one) == 5
    (tmp_path / "in" / "bad.png").unlink()
    (tmp_path / "two" / "3.png").unlink()
    command = ["anonymize", str(tmp_path / "in"), "-o", str(tmp_path / "two"), "--method", "solid"]
    assert main([*command, "--cluster", "--jobs", "2", "--resume"]) == OK
    assert {p.name: p.read_bytes() for p in (tmp_path / "two").glob("*.png")} == one


def test_no_cluster_is_one_sentence() -> None:
    with pytest.raises(InputError, match="no Ray cluster could be reached"):
        list(on_cluster(str, [(1,)], Cluster(1, "127.0.0.1:1"), silent, "testing"))


def test_workers_of_a_video_survive_a_kill_and_hand_on_errors(tmp_path: Path) -> None:
    with ClusterWorkers(Cluster(2)) as workers:
        command = [sys.executable, "-c", KILL_ONCE, str(tmp_path / "killed")]
        futures = [workers.submit(subprocess.check_output, [*command, str(i)]) for i in range(4)]
        assert [int(f.result()) for f in futures] == [0, 1, 2, 3]
        assert (tmp_path / "killed").exists()
        with pytest.raises(ZeroDivisionError):
            workers.submit(divmod, 1, 0).result()
        assert list(workers.map(divmod, [(7, 2), (9, 4)], 1)) == [(3, 1), (2, 1)]
    assert not ray.is_initialized()
