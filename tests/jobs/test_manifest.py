"""A stopped run is resumed: what is finished is left alone, and nothing else is trusted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from faceveil.pipelines.cli import main, parser
from faceveil.pipelines.cli.resume import id_of
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.jobs.manifest import NAME, Manifest
from faceveil.pipelines.jobs.tasks import Task, plan_tasks
from PIL import Image

SOLID = ["--method", "solid", "--jobs", "1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "deep/c.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / name)
    return tmp_path


def run(folder: Path, *flags: str) -> int:
    return main(["anonymize", str(folder / "in"), "-o", str(folder / "out"), *SOLID, *flags])


def test_finished_files_are_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == OK
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder / "out").rglob("*.png")}
    assert len(before) == 3
    assert run(folder) == SOME_FAILED
    assert "exists already" in capsys.readouterr().err
    (folder / "out" / "b.png").unlink()
    report = folder / "r.json"
    assert run(folder, "--resume", "--report", str(report)) == OK
    for path, (data, time) in before.items():
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == time) == (path.name != "b.png")
    assert len(json.loads(report.read_text())) == 3
    assert "finished by an earlier run" in capsys.readouterr().out


def test_an_unfinished_output_is_made_again(folder: Path) -> None:
    assert run(folder) == OK
    whole = (folder / "out" / "a.png").read_bytes()
    lines = (folder / "out" / NAME).read_text().splitlines()
    kept = [line for line in lines if not ('"a.png"' in line and '"done"' in line)]
    # As if the power had failed in the middle of the last line.
    (folder / "out" / NAME).write_text("\n".join(kept) + '\n{"id": "0123')
    assert run(folder, "--resume") == OK
    assert (folder / "out" / "a.png").read_bytes() == whole
    # An output of an unfinished file that is not ours stays.
    (folder / "out" / NAME).write_text("\n".join(kept) + "\n")
    (folder / "out" / "a.png").write_bytes(b"the user's")
    assert run(folder, "--resume") == SOME_FAILED
    assert (folder / "out" / "a.png").read_bytes() == b"the user's"
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a.png", "b.png", "deep", NAME]


def test_files_of_others_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "a.png").write_bytes(b"mine")
    assert run(folder, "--resume") == SOME_FAILED
    assert (folder / "out" / "a.png").read_bytes() == b"mine"
    assert "exists already" in capsys.readouterr().err


def test_other_settings_and_changed_results_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == OK
    assert run(folder, "--resume", "--shape", "box") == SOME_FAILED
    assert "other settings" in capsys.readouterr().err
    (folder / "out" / "b.png").write_bytes(b"edited by the user")
    assert run(folder, "--resume") == SOME_FAILED
    assert (folder / "out" / "b.png").read_bytes() == b"edited by the user"
    assert run(folder, "--resume", "--overwrite") == OK
    assert Image.open(folder / "out" / "b.png").size == (64, 48)


def test_a_bad_file_is_tried_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = folder / "in" / "b.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:50])
    assert run(folder) == SOME_FAILED
    assert not (folder / "out" / "b.png").exists()
    entries = [json.loads(line) for line in (folder / "out" / NAME).read_text().splitlines()]
    assert {e["output"]: e["status"] for e in entries} == {"a.png": "done", "b.png": "failed", "deep/c.png": "done"}
    assert next(e["reason"] for e in entries if e["status"] == "failed") == "InputError"
    assert str(folder) not in (folder / "out" / NAME).read_text()
    bad.write_bytes(whole)
    assert run(folder, "--resume") == OK
    assert (folder / "out" / "b.png").exists()


def test_resume_still_protects_inputs_and_refuses_duplicates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == OK
    result = str(folder / "out" / "a.png")
    before = Path(result).read_bytes()
    command = [
        "anonymize",
        result,
        str(folder / "in" / "b.png"),
        "-o",
        str(folder / "out"),
        *SOLID,
        "--resume",
        "--overwrite",
    ]
    assert main(command) == SOME_FAILED
    assert "is an input" in capsys.readouterr().err and Path(result).read_bytes() == before
    inputs = [str(folder / "in" / "a.png"), str(folder / "in" / "deep" / "c.png")]
    (folder / "in" / "deep" / "c.png").rename(folder / "in" / "deep" / "a.png")
    inputs[1] = str(folder / "in" / "deep" / "a.png")
    assert main(["anonymize", *inputs, "-o", str(folder / "out"), *SOLID, "--resume", "--overwrite"]) == SOME_FAILED
    assert "would both be written to a.png" in capsys.readouterr().err


def test_resume_needs_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(folder / "in" / "a.png")
    assert main(["anonymize", source, "-o", str(folder / "x.png"), *SOLID, "--resume"]) == SOME_FAILED
    assert "name one with -o" in capsys.readouterr().err


def test_a_line_that_was_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"id": "0123')
    Manifest(tmp_path).start("a", tmp_path / "x.png")
    assert Manifest(tmp_path).knows(tmp_path / "x.png")


def test_damaged_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'\xff\xfe\n[]\n{"x": 1}\n{"id": "i", "output": "o", "status": "done"}\n{"id"')
    manifest = Manifest(tmp_path)
    assert manifest.knows(tmp_path / "o") and not manifest.knows(tmp_path / "x")
    assert manifest.finished("i", tmp_path / "o") is None


@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "diffdeid"],
        ["--method", "referencenet", "--referencenet-checkpoint", "weights"],
        ["--method", "solid", "--verify", "adaface:weights/a.onnx"],
    ],
    ids=["a checkpoint where it is looked for", "a folder", "a recognizer"],
)
def test_other_weights_are_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    files = [Path("models/faceveil/diffdeid.safetensors"), Path("weights/a.onnx")]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_bytes(b"one")
    options = parser().parse_args(["anonymize", "a.png", "-o", "out", *flags])
    task = Task(Path("a.png"), Path("out/a.png"))
    before = id_of(options, task)
    assert id_of(options, task) == before
    for file in files:
        file.write_bytes(b"other")
    assert id_of(options, task) != before


def test_videos_that_differ_in_the_suffix_get_different_names(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mpg", "other.wmv"):
        (tmp_path / name).touch()
    tasks = plan_tasks([str(tmp_path)], str(tmp_path / "out"))
    assert {t.source.name: t.target.name for t in tasks} == {
        "clip.mp4": "clip.mp4",
        "clip.mpg": "clip_mpg.mp4",
        "other.wmv": "other.mp4",
    }
