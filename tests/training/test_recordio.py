"""Recordio files are unpacked to one folder for each person, and damaged ones are refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from faceveil.pipelines.cli import main
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.training.recordio import unpack
from PIL import Image

MAGIC = struct.pack("<I", 0xCED7230A)


def jpeg(color: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (color, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def record(data: bytes) -> bytes:
    """As MXNet writes it: split where the magic number occurs at a multiple of four bytes."""
    places = [i for i in range(0, len(data) - 3, 4) if data[i : i + 4] == MAGIC]
    parts, start = [], 0
    for place in places:
        parts.append(data[start:place])
        start = place + 4
    parts.append(data[start:])
    flags = [0] if len(parts) == 1 else [1, *[2] * (len(parts) - 2), 3]
    return b"".join(
        MAGIC + struct.pack("<I", flag << 29 | len(part)) + part + bytes(-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


def header(labels: list[float]) -> bytes:
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], 5, 0)
    return struct.pack("<IfQQ", len(labels), 0.0, 5, 0) + struct.pack(f"<{len(labels)}f", *labels)


def write(path: Path, *images: tuple[list[float], bytes]) -> Path:
    listing = record(header([float(len(images) + 1), 9.0]))
    path.write_bytes(listing + b"".join(record(header(labels) + image) for labels, image in images))
    return path


def test_each_person_gets_a_folder_with_the_same_bytes(tmp_path, capsys):
    # The magic number inside an image, at a multiple of four bytes after the header.
    tricky = jpeg(3) + bytes(-len(jpeg(3)) % 4) + MAGIC + b"tail" + MAGIC + MAGIC
    images = [([0.0], jpeg(1)), ([0.0], jpeg(2)), ([7.0, 1.0], tricky)]
    source = write(tmp_path / "train.rec", *images)
    assert main(["convert-recordio", str(source), "-o", str(tmp_path / "out")]) == 0
    assert "3 images of 2 people" in capsys.readouterr().out
    found = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*.jpg")}
    assert found == {
        "000000/00000000.jpg": jpeg(1),
        "000000/00000001.jpg": jpeg(2),
        "000007/00000002.jpg": tricky,
    }


def test_damaged_files_leave_nothing_that_looks_complete(tmp_path):
    whole = write(tmp_path / "a.rec", ([0.0], jpeg(1)), ([1.0], jpeg(2))).read_bytes()
    for content, words in (
        (whole[:-9], "middle of a record"),
        (b"no" + whole, "not in the recordio format"),
        (record(b"short"), "without a header"),
        (record(header([1.0]) + b"GIF89a"), "neither JPEG nor PNG"),
        (record(header([1.0, 2.0])), "no images"),
        (b"", "no images"),
    ):
        source, output = tmp_path / "b.rec", tmp_path / f"out{len(content)}"
        source.write_bytes(content)
        with pytest.raises(InputError, match=words):
            unpack(source, output)
        assert not output.exists()
    with pytest.raises(InputError, match="does not exist"):
        unpack(tmp_path / "gone.rec", tmp_path / "x")


def test_a_folder_with_files_is_kept(tmp_path):
    source = write(tmp_path / "a.rec", ([0.0], jpeg(1)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        unpack(source, tmp_path / "mine")
    assert (tmp_path / "mine" / "a.txt").read_text() == "mine"
