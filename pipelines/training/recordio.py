"""Unpack data sets of faces in MXNet's recordio format, such as CASIA-WebFace's train.rec, without MXNet.

A record is a magic number, flags and length in four bytes each, and the data, padded to four bytes. The data begin with
a header: number of labels (0: one), label, two numbers. Where the magic number occurs in the data, MXNet splits them
into parts and leaves it out. Records without an image list the people; they are skipped.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..core.errors import InputError, OutputError
from ..core.progress import Progress, silent

_MAGIC = struct.pack("<I", 0xCED7230A)
_HEADER = struct.Struct("<IfQQ")
_WHOLE, _FIRST, _LAST = 0, 1, 3
_LENGTH = (1 << 29) - 1
_REPORT_EVERY = 500
MAX_LABELS = 1000
SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png"}


def unpack(source: Path, output: Path, progress: Progress = silent) -> tuple[int, int]:
    """Write the images of a file to one folder for each person, byte by byte as they are stored.

    Args:
        source: ``train.rec``; its ``train.idx`` is not needed.
        output: a new folder.

    Returns:
        Numbers of images and people.

    Raises:
        InputError: the file is missing, damaged or of another format, or the folder is not empty.
        OutputError: the folder cannot be written.
    """
    if not source.is_file():
        raise InputError(f"{source.name} does not exist; name the file train.rec of a data set")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output.name} is not empty; name a new folder")
    partial = output.with_name(output.name + ".partial")
    if partial.exists():
        raise InputError(f"{partial.name} is left from an interrupted run; remove it")
    try:
        partial.mkdir(parents=True)
        count, people = _unpack(source, partial, progress)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except OSError as error:
        raise OutputError(f"{output.name} cannot be written ({error.strerror}); choose another folder") from None
    finally:
        # It has its name now, or nothing of it is wanted.
        shutil.rmtree(partial, ignore_errors=True)
    return count, people


def _unpack(source: Path, folder: Path, progress: Progress) -> tuple[int, int]:
    people, count, total = set(), 0, source.stat().st_size
    with source.open("rb") as file:
        for number, record in enumerate(_records(file, source.name)):
            if number % _REPORT_EVERY == 0:
                progress(file.tell(), total, "unpacking")
            label, image = _split(record, source.name)
            if not image:
                continue
            suffix = SUFFIXES.get(image[:2])
            if suffix is None:
                raise InputError(f"{source.name} holds images that are neither JPEG nor PNG; it cannot be unpacked")
            place = folder / f"{label:06}"
            if label not in people:
                place.mkdir(exist_ok=True)
                people.add(label)
            (place / f"{count:08}{suffix}").write_bytes(image)
            count += 1
    if not count:
        raise InputError(f"{source.name} contains no images; name the file train.rec of a data set")
    progress(total, total, "unpacking")
    return count, len(people)


def _records(file: BinaryIO, name: str) -> Iterator[bytes]:
    parts: list[bytes] = []
    while head := file.read(8):
        if len(head) < 8 or head[:4] != _MAGIC:
            raise InputError(f"{name} is damaged, or not in the recordio format; get a fresh copy")
        (word,) = struct.unpack("<I", head[4:])
        flag, length = word >> 29, word & _LENGTH
        data = file.read(length)
        if len(data) < length:
            raise InputError(f"{name} ends in the middle of a record; get a fresh copy")
        file.read(-length % 4)
        if flag in (_WHOLE, _FIRST):
            parts = []
        parts.append(data)
        if flag in (_WHOLE, _LAST):
            yield _MAGIC.join(parts)


def _split(record: bytes, name: str) -> tuple[int, bytes]:
    """Label and image of a record."""
    if len(record) < _HEADER.size:
        raise InputError(f"{name} holds a record without a header; get a fresh copy")
    labels, label, _, _ = _HEADER.unpack_from(record)
    rest = record[_HEADER.size :]
    if labels == 0:
        return int(label), rest
    if labels > MAX_LABELS or len(rest) < 4 * labels:
        raise InputError(f"{name} holds a damaged record; get a fresh copy")
    (first,) = struct.unpack_from("<f", rest)
    return int(first), rest[4 * labels :]
