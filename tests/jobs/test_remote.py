"""Inputs and outputs behind URLs: any file system of fsspec, in several processes, after a kill, and with bad files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from clips import write_clip
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.jobs.remote import NOTES
from PIL import Image

SOLID = ("--method", "solid", "--no-face", "pass")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        (tmp_path / "in" / "deep").mkdir(parents=True, exist_ok=True)
        picture(i).save(tmp_path / "in" / ("deep" if i == 3 else "") / f"{i}.png")
    write_clip(tmp_path / "in" / "clip.mp4", [np.full((48, 64, 3), 90, np.uint8)] * 4, sound=False)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


@pytest.fixture
def memory(folder: Path) -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/bucket/in/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield fs
    fs.store.clear()


def run(*words: object) -> int:
    return main(["anonymize", *map(str, words), *SOLID])


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".mp4")}


def sent(fs: fsspec.AbstractFileSystem, place: str) -> dict[str, bytes]:
    found = (name for name in fs.find(place) if f"/{NOTES}/" not in name)
    return {name.removeprefix(place + "/"): fs.cat_file(name) for name in found}


def test_a_folder_behind_a_url(memory, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "-o", tmp_path / "local", "--jobs", 1) == OK
    assert run("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1) == OK
    assert sent(memory, "/bucket/out") == outputs(tmp_path / "local")
    assert set(outputs(tmp_path / "local")) == {"0.png", "1.png", "2.png", "deep/3.png", "clip.mp4"}
    note = json.loads(memory.cat_file(f"/bucket/out/{NOTES}/deep/3.png.json"))
    assert note["status"] == "done" and "bucket" not in json.dumps(note)


def test_one_side_may_be_local(memory, folder: Path, tmp_path: Path) -> None:
    assert run("memory://bucket/in", "-o", tmp_path / "a", "--jobs", 1) == OK
    assert run(folder, "-o", "memory://bucket/b", "--jobs", 1) == OK
    assert outputs(tmp_path / "a") == sent(memory, "/bucket/b")
    assert run("memory://bucket/in/0.png", "-o", "memory://bucket/one.png") == OK
    assert memory.cat_file("/bucket/one.png") == (tmp_path / "a" / "0.png").read_bytes()


def test_several_processes(folder: Path, tmp_path: Path) -> None:
    """The protocol file:// stands for one that other processes and machines see."""
    assert run(folder, "-o", tmp_path / "local", "--jobs", 1) == OK
    assert run(f"file://{folder}", "-o", f"file://{tmp_path}/out", "--jobs", 2) == OK
    assert outputs(tmp_path / "out") == outputs(tmp_path / "local")
    assert not list((tmp_path / "out").rglob("*faceveil-part"))


def test_a_stopped_run_goes_on(memory, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1)
    assert run(*words) == OK
    whole = sent(memory, "/bucket/out")
    # As if it had been stopped while 1.png was treated, and before 2.png was begun.
    name = f"/bucket/out/{NOTES}/1.png.json"
    memory.pipe_file(name, json.dumps({**json.loads(memory.cat_file(name)), "status": "started"}).encode())
    for lost in ("/bucket/out/2.png", f"/bucket/out/{NOTES}/2.png.json"):
        memory.rm_file(lost)
    capsys.readouterr()
    assert run(*words, "--resume") == OK
    assert sent(memory, "/bucket/out") == whole
    assert capsys.readouterr().out.count("finished by an earlier run") == 3


def test_nothing_of_the_user_is_overwritten(memory, capsys: pytest.CaptureFixture[str]) -> None:
    memory.pipe_file("/bucket/out/1.png", b"mine")
    for more in ((), ("--resume",)):
        assert run("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1, *more) == SOME_FAILED
        assert "1.png exists; add --overwrite" in capsys.readouterr().err
    assert run("memory://bucket/in", "-o", "memory://bucket/in", "--jobs", 1) == SOME_FAILED
    assert "is an input" in capsys.readouterr().err
    assert sent(memory, "/bucket/out") == {"1.png": b"mine"}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("file://{0}/in", "{0}/in"),
        ("{0}/in", "file://{0}/in"),
        ("{0}/in", "local://{0}/in/"),
        ("memory://bucket/in", "memory:///bucket/in"),
        ("memory://bucket/in/0.png", "MEMORY://bucket/in/0.png"),
    ],
)
def test_an_input_is_never_overwritten(memory, folder: Path, tmp_path: Path, capsys, source: str, target: str) -> None:
    before, there = outputs(folder), sent(memory, "/bucket/in")
    words = (source.format(tmp_path), "-o", target.format(tmp_path), "--overwrite", "--jobs", 1)
    assert run(*words) == SOME_FAILED
    assert "is an input" in capsys.readouterr().err
    assert outputs(folder) == before and sent(memory, "/bucket/in") == there


def test_resume_overwrites_nothing_that_changed(memory, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1)
    assert run(*words) == OK
    whole = sent(memory, "/bucket/out")
    mine = bytes(len(whole["0.png"]))
    memory.pipe_file("/bucket/out/0.png", mine)
    assert run(*words, "--resume") == SOME_FAILED
    assert "0.png was made with other settings, from another file, or changed" in capsys.readouterr().err
    assert run(*words, "--shape", "box", "--resume") == SOME_FAILED
    assert sent(memory, "/bucket/out") == {**whole, "0.png": mine}
    assert run(*words, "--resume", "--overwrite") == OK
    assert sent(memory, "/bucket/out") == whole


@pytest.mark.parametrize("status", ["started", "failed"])
def test_resume_overwrites_no_file_that_was_put_where_nothing_was_finished(memory, status: str, capsys) -> None:
    words = ("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1)
    assert run(*words) == OK
    name = f"/bucket/out/{NOTES}/0.png.json"
    memory.pipe_file(name, json.dumps({**json.loads(memory.cat_file(name)), "status": status}).encode())
    memory.pipe_file("/bucket/out/0.png", b"mine")
    assert run(*words, "--resume") == SOME_FAILED
    assert "0.png was made with other settings" in capsys.readouterr().err
    assert memory.cat_file("/bucket/out/0.png") == b"mine"


def test_urls_into_a_local_folder_resume_as_local_files_do(memory, tmp_path: Path, capsys) -> None:
    words = ("memory://bucket/in", "-o", tmp_path / "out", "--jobs", 1)
    assert run(*words) == OK
    (tmp_path / "out" / "0.png").write_bytes(b"mine")
    assert run(*words, "--resume") == SOME_FAILED
    assert (tmp_path / "out" / "0.png").read_bytes() == b"mine"
    assert capsys.readouterr().out.count("finished by an earlier run") == 4


def test_an_output_folder_in_the_input_is_no_input(memory) -> None:
    words = ("memory://bucket/in", "-o", "memory://bucket/in/out", "--jobs", 1)
    assert run(*words) == OK
    whole = sent(memory, "/bucket/in")
    assert run(*words, "--resume") == OK
    assert sent(memory, "/bucket/in") == whole


def test_odd_names(memory, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("star*.png", "q?.png", "br[1].png", "a b#c%20.png", "ü.png", "c::1.png"):
        picture(9).save(folder / name)
    assert run(folder, "-o", f"file://{tmp_path}/out", "--jobs", 1) == SOME_FAILED
    assert "has '::' in its name" in capsys.readouterr().err
    expected = {p.name for p in folder.rglob("*") if p.suffix in (".png", ".mp4")} - {"c::1.png"}
    assert {Path(name).name for name in outputs(tmp_path / "out")} == expected
    assert {p.name for p in (tmp_path / "out").iterdir() if p.is_dir()} == {"deep", NOTES}


def test_a_folder_at_the_place_of_an_output(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "out" / "0.png").mkdir(parents=True)
    assert run(folder / "0.png", "-o", f"file://{tmp_path}/out", "--jobs", 1) == SOME_FAILED
    assert list((tmp_path / "out" / "0.png").iterdir()) == []


def test_a_bad_file_stops_no_other(memory, capsys: pytest.CaptureFixture[str]) -> None:
    memory.pipe_file("/bucket/in/1.png", b"no image")
    assert run("memory://bucket/in", "-o", "memory://bucket/out", "--jobs", 1) == SOME_FAILED
    assert "failed: 1.png" in capsys.readouterr().err
    assert set(sent(memory, "/bucket/out")) == {"0.png", "2.png", "deep/3.png", "clip.mp4"}
    assert json.loads(memory.cat_file(f"/bucket/out/{NOTES}/1.png.json"))["status"] == "failed"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense://a/b", "-o", "out"), "nonsense"),
        (("memory://nowhere", "-o", "out"), "no image or video was found below memory://nowhere"),
        (("memory://", "-o", "out"), "memory:// names no bucket or folder"),
        (("memory://bucket/in/0.png", "-o", "memory://"), "memory:// names no bucket or folder"),
        (("memory://bucket/in/0.png", "-o", "memory://b/o.gif"), "o.gif has no suffix that can be written"),
        (("memory://bucket/in/0.png", "-o", "memory://b/o.mp4"), "is an image, but o.mp4 names a video"),
        (("memory://bucket/in", "-o", "out", "--report", "memory://b/r.json"), "--report takes a local file"),
        (("memory://bucket/in", "-o", "out", "--pseudonyms", "s3://b/my.key"), "--pseudonyms takes a local file"),
        (("memory://bucket/in",), "name a folder or a file with -o"),
        (("memory://bucket/in", "-o", "memory://bucket/one.png"), "cannot be written to the one file one.png"),
        (("memory://bucket/in/0.png", "-o", "memory://b/a.png", "--vault", "v", "--key", "k"), "name files, not URLs"),
    ],
)
def test_one_sentence(memory, tmp_path, monkeypatch, capsys, words: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == SOME_FAILED
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
