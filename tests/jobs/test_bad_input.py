"""Forty kinds of bad input: each gives one sentence, and nothing is left half-written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import faceveil
import numpy as np
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED, UNPROTECTED, USAGE
from faceveil.pipelines.core.errors import FaceVeilError
from PIL import Image


def _png(size=(64, 64), mode="RGB") -> bytes:
    import io

    buffer = io.BytesIO()
    Image.new(mode, size, 90 if mode in ("L", "I;16") else None).save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg() -> bytes:
    import io

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _bomb() -> bytes:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


FILES: dict[str, tuple[str, bytes]] = {
    "empty file": ("a.png", b""),
    "text called png": ("a.png", b"hello"),
    "zeros": ("a.jpg", bytes(1000)),
    "png header only": ("a.png", _png()[:8]),
    "png cut in the header": ("a.png", _png()[:20]),
    "png cut in the data": ("a.png", _png((256, 256))[:60]),
    "jpeg cut in half": ("a.jpg", _jpeg()[: len(_jpeg()) // 2]),
    "jpeg cut after the header": ("a.jpg", _jpeg()[:30]),
    "webp header only": ("a.webp", b"RIFF\x00\x00\x00\x00WEBPVP8 "),
    "gif called png": ("a.gif", b"GIF89a"),
    "tiff header only": ("a.tiff", b"II*\x00\x08\x00\x00\x00"),
    "pdf": ("a.pdf", b"%PDF-1.4"),
    "zip": ("a.png", b"PK\x03\x04" + bytes(60)),
    "pickle": ("a.png", b"\x80\x04K\x01."),
    "svg": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "decompression bomb": ("a.png", _bomb()),
    "html error page": ("a.jpg", b"<html>404</html>"),
    "avif header only": ("a.avif", b"\x00\x00\x00\x20ftypavif"),
}


@pytest.mark.parametrize("kind", FILES)
def test_bad_files(tmp_path, capsys, kind) -> None:
    name, data = FILES[kind]
    (tmp_path / name).write_bytes(data)
    _expect(tmp_path, capsys, [str(tmp_path / name), "-o", str(tmp_path / "out")], SOME_FAILED)


def _expect(folder: Path, capsys, arguments: list[str], code: int) -> str:
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main(["anonymize", *arguments]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert "Traceback" not in said[0]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    return said[0]


ARGUMENTS: dict[str, Callable[[Path], list[str]]] = {
    "missing file": lambda d: [str(d / "none.png")],
    "glob without a match": lambda d: [str(d / "*.nothing")],
    "empty folder": lambda d: [_made(d / "void")],
    "strength too high": lambda d: [str(d / "ok.png"), "--strength", "3"],
    "strength not a number": lambda d: [str(d / "ok.png"), "--strength", "nan"],
    "negative seed": lambda d: [str(d / "ok.png"), "--seed", "-1"],
    "unknown faces": lambda d: [str(d / "ok.png"), "--faces", "ugly"],
    "negative face number": lambda d: [str(d / "ok.png"), "--faces", "-2"],
    "output over input": lambda d: [str(d / "ok.png"), "-o", str(d / "ok.png")],
    "unknown output format in a file place": lambda d: [
        str(d / "ok.png"),
        "-o",
        str(d / "ok.png" / "x.png"),
        "--no-face",
        "pass",
    ],
    "two inputs, one output": lambda d: [str(d / "ok.png"), str(d / "ok2.png"), "-o", str(d / "one.png")],
    "two inputs of one name": lambda d: [str(d / "ok.png"), str(d / "sub" / "ok.png"), "-o", str(d / "out")],
    "reference without a face": lambda d: [str(d / "ok.png"), "--exclude", str(d / "ok.png")],
    "reference missing": lambda d: [str(d / "ok.png"), "--include", str(d / "none.jpg")],
    "identity missing": lambda d: [str(d / "ok.png"), "--identity", str(d / "none.safetensors")],
    "identity not safetensors": lambda d: [str(d / "ok.png"), "--identity", str(d / "ok.png")],
    "plan missing": lambda d: [str(d / "ok.png"), "--plan", str(d / "none.json")],
    "plan not JSON": lambda d: [str(d / "ok.png"), "--plan", str(d / "ok.png")],
    "sticker missing": lambda d: [str(d / "ok.png"), "--method", "sticker", "--sticker", str(d / "none.png")],
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_bad_arguments(tmp_path, capsys, kind) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("ok.png", "ok2.png", "sub/ok.png"):
        (tmp_path / name).write_bytes(_png())
    _expect(tmp_path, capsys, ARGUMENTS[kind](tmp_path), SOME_FAILED)


def _made(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


def test_no_face_and_policy_stop(tmp_path, capsys) -> None:
    (tmp_path / "a.png").write_bytes(_png())
    said = _expect(tmp_path, capsys, [str(tmp_path / "a.png"), "--policy", "stop"], UNPROTECTED)
    assert "no face was found" in said


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_tiny_pictures_are_covered(tmp_path, capsys, size) -> None:
    (tmp_path / "a.png").write_bytes(_png(size))
    assert main(["anonymize", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png")]) == OK
    assert Image.open(tmp_path / "b.png").size == size


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 4, 7), np.uint8),
        np.full((8, 8, 3), np.nan),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((2, 2, 2, 2)),
        torch.zeros(3, 8, 8),
        torch.full((1, 3, 8, 8), float("inf")),
        object(),
        7,
        None,
    ],
    ids=["empty", "7 channels", "NaN", "int64", "4-d", "3-d tensor", "infinite tensor", "object", "number", "None"],
)
def test_bad_images_in_python(image) -> None:
    with pytest.raises(FaceVeilError) as caught:
        faceveil.anonymize(image)
    assert "\n" not in str(caught.value)


def test_output_folder_is_a_file(tmp_path, capsys) -> None:
    (tmp_path / "ok.png").write_bytes(_png())
    (tmp_path / "file").write_bytes(b"x")
    said = _expect(tmp_path, capsys, [str(tmp_path / "ok.png"), "-o", str(tmp_path / "file" / "sub")], SOME_FAILED)
    assert "could not be written" in said


def test_disk_full(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "ok.png").write_bytes(_png())

    def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = _expect(tmp_path, capsys, [str(tmp_path / "ok.png"), "-o", str(tmp_path / "b.png")], SOME_FAILED)
    assert "No space left on device" in said


def test_a_batch_goes_on_past_a_bad_file(tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"broken")
    (tmp_path / "in" / "b.png").write_bytes(_png())
    (tmp_path / "in" / "deep").mkdir()
    (tmp_path / "in" / "deep" / "c.jpg").write_bytes(_jpeg())
    assert (
        main(["anonymize", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--report", str(tmp_path / "r.json")])
        == SOME_FAILED
    )
    said = capsys.readouterr()
    assert f"failed: {tmp_path / 'in' / 'a.png'}: " in said.err
    assert "2 of 3 files done" in said.out
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*g")) == [
        "b.png",
        str(Path("deep") / "c.jpg"),
    ]
    assert "b.png" not in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize(
    "flags", [["--method", "magic"], ["--policy", "hope"], ["--shape", "star"], ["--no-face", "x"]]
)
def test_words_that_are_no_choice(tmp_path, capsys, flags) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["anonymize", str(tmp_path / "a.png"), *flags])
    assert caught.value.code == USAGE
    assert "invalid choice" in capsys.readouterr().err
