"""No file of the user is overwritten by surprise: every way that once destroyed one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faceveil.pipelines.cli import anonymize_run, main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED, UNPROTECTED
from faceveil.pipelines.core.errors import OutputError
from faceveil.pipelines.core.files import PART_PREFIX, PART_SUFFIX, check_outputs
from faceveil.pipelines.faces.face import Face, Faces
from PIL import Image

WAYS: dict[str, Callable[[Path], list[str]]] = {
    "a result onto its input": lambda d: ["anonymize", str(d / "a.png"), "-o", str(d / "a.png")],
    "a result onto another input": lambda d: ["anonymize", str(d / "a.png"), "-o", str(d / "b.png")],
    "a folder of results onto inputs beside it": lambda d: ["anonymize", str(d / "sub"), "-o", str(d)],
    "a default name that is another input": lambda d: ["anonymize", str(d / "a.png"), str(d / "a_veiled.png")],
    "an existing result": lambda d: ["anonymize", str(d / "a.png"), "-o", str(d / "old.png")],
    "a hard link to the input": lambda d: ["anonymize", str(d / "a.png"), "-o", str(d / "link.png"), "--overwrite"],
    "a symbolic link to the input": lambda d: ["anonymize", str(d / "a.png"), "-o", str(d / "sym.png"), "--overwrite"],
    "a report onto an input": lambda d: [*_run(d), "--report", str(d / "a.png"), "--overwrite"],
    "a report onto an existing file": lambda d: [*_run(d), "--report", str(d / "old.json")],
    "a preview onto an input": lambda d: [*_run(d), "--preview", str(d / "a.png"), "--overwrite"],
    "a preview onto a reference photo": lambda d: [
        *_run(d), "--exclude", str(d / "b.png"), "--preview", str(d / "b.png"), "--overwrite"
    ],
    "an identity onto an input": lambda d: [*_run(d), "--save-identity", str(d / "a.png"), "--overwrite"],
    "a report onto the plan": lambda d: [
        *_run(d), "--plan", str(d / "plan.json"), "--report", str(d / "plan.json"), "--overwrite"
    ],
    "a report onto the key": lambda d: [
        *_run(d), "--pseudonyms", str(d / "my.key"), "--report", str(d / "my.key"), "--overwrite"
    ],
    "two outputs in one file": lambda d: [*_run(d), "--report", str(d / "x.png"), "--preview", str(d / "x.png")],
    "a plan onto its image": lambda d: ["detect", str(d / "a.png"), "-o", str(d / "a.png"), "--overwrite"],
    "a plan onto another file": lambda d: ["detect", str(d / "a.png"), "-o", str(d / "old.json")],
    "the sample onto a photo": lambda d: ["sample", str(d / "a.png")],
    "a training onto a file": lambda d: ["train", "morphable", "-o", str(d / "old.json")],
    "a conversion onto its model": lambda d: [
        "convert-morphable", str(d / "old.safetensors"), "-o", str(d / "old.safetensors"), "--overwrite"
    ],
}  # fmt: skip


def _run(folder: Path) -> list[str]:
    return ["anonymize", str(folder / "a.png"), "-o", str(folder / "new.png"), "--no-face", "pass"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for place, name in enumerate(("a.png", "b.png", "a_veiled.png", "old.png", "sub/a.png")):
        Image.new("RGB", (40, 40), (place * 40, 90, 20)).save(tmp_path / name)
    for name in ("old.json", "old.safetensors"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "plan.json").write_text(Faces([Face((5, 5, 30, 30))]).to_json())
    (tmp_path / "my.key").write_bytes(bytes(range(32)))
    os.link(tmp_path / "a.png", tmp_path / "link.png")
    (tmp_path / "sym.png").symlink_to(tmp_path / "a.png")
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_files_survive(folder, capsys, way) -> None:
    before = _contents(folder)
    assert main(WAYS[way](folder)) == SOME_FAILED
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("error: "), said
    assert _contents(folder) == before


def test_overwrite_replaces_outputs_only(folder) -> None:
    arguments = ["anonymize", str(folder / "a.png"), "-o", str(folder / "old.png"), "--method", "solid"]
    assert main([*arguments, "--no-face", "redact", "--overwrite"]) == OK
    assert Image.open(folder / "old.png").getpixel((3, 3)) == (128, 128, 128)


def test_the_sample_can_be_written_twice(tmp_path) -> None:
    """The first command of the README works again in the same folder."""
    for _ in range(2):
        assert main(["sample", str(tmp_path / "astronaut.png")]) == OK


def test_a_file_that_is_named_twice_is_treated_once(folder, capsys) -> None:
    names = [str(folder / "sub" / "a.png"), str(folder / "sub" / "*.png")]
    assert main(["anonymize", *names, "-o", str(folder / "out"), "--no-face", "pass"]) == OK
    assert [p.name for p in (folder / "out").glob("*.png")] == ["a.png"]


def test_a_folder_can_be_run_again(folder, capsys) -> None:
    """With the output below the input, and beside it; results are not inputs, and left-out files are named."""
    (folder / "notes.txt").write_text("x")
    pictures = sorted(p.name for p in folder.rglob("*.png"))
    for _ in range(2):
        run = ["anonymize", str(folder), "-o", str(folder / "out"), "--no-face", "pass", "--overwrite"]
        assert main(run) in (OK, SOME_FAILED)
        assert sorted(p.name for p in (folder / "out").rglob("*.png")) == pictures
        assert "notes.txt" in capsys.readouterr().out


def test_an_unusable_path_fails_alone(folder, capsys) -> None:
    """A loop of links, a pipe and a name that is too long."""
    (folder / "loop.png").symlink_to(folder / "loop.png")
    os.mkfifo(folder / "pipe.png")
    names = [folder / "loop.png", folder / "pipe.png", folder / f"{'a' * 300}.png", folder / "sub" / "a.png"]
    assert main(["anonymize", *map(str, names), "-o", str(folder / "out"), "--no-face", "pass"]) == SOME_FAILED
    assert [p.name for p in (folder / "out").glob("*.png")] == ["a.png"]
    said = capsys.readouterr().err
    assert said.count("failed:") == 3 and "unexpected" not in said


def test_a_face_that_passed_is_reported_even_if_a_side_file_fails(tmp_path, portrait_file, monkeypatch) -> None:
    def fails(path: Path, identities: object) -> None:
        raise OutputError(f"{path.name} could not be written")

    monkeypatch.setattr(anonymize_run, "_save_shown", fails)
    run = ["anonymize", str(portrait_file), "-o", str(tmp_path / "o.png"), "--policy", "pass", "--strength", "0.1"]
    assert main([*run, "--appearance-search", "1", "--save-identity", str(tmp_path / "x.safetensors")]) == UNPROTECTED


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_temporary_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    """Also of one that nobody has asked for its exit code, as in containers; those of a living one stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    parts = [tmp_path / f"{PART_PREFIX}{pid}-x{PART_SUFFIX}" for pid in (ended.pid, os.getpid())]
    for part in parts:
        part.write_bytes(b"")
        os.utime(part, (time.time() - 3600,) * 2)
    check_outputs([tmp_path / "out.png"], [], overwrite=False)
    assert [part.exists() for part in parts] == [False, True]
    ended.wait()
