"""A generator of malformed and unusual inputs: files of every kind that a reader opens, options, and paths.

Each function returns a dict from a name to what makes the input; the tests of this folder run all of them.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.faces.face import Face, Faces
from PIL import Image
from safetensors.torch import save

Maker = Callable[[Path], list[str]]
"""Makes files in a folder and returns the arguments of ``faceveil``."""


def picture(size: tuple[int, int] = (48, 40), seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A small picture without a face."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture().save(buffer, kind, **options)
    return buffer.getvalue()


def damaged_images() -> dict[str, tuple[str, bytes]]:
    """File name and bytes of images that are cut off, changed or wrapped, 15 for each of seven formats."""
    made = {}
    kinds = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tif": "TIFF", "bmp": "BMP", "avif": "AVIF"}
    files = {ending: encoded(kind) for ending, kind in kinds.items()}
    files["tiff"] = _deep_tiff()
    for ending, data in files.items():
        for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.99):
            made[f"{ending} cut at {share}"] = (f"a.{ending}", data[: int(len(data) * share)])
        for seed in range(6):
            made[f"{ending} with noise {seed}"] = (f"a.{ending}", _noised(data, seed))
        made[f"{ending} behind text"] = (f"a.{ending}", b"hello " + data)
        made[f"{ending} before 1 MB of zeros"] = (f"a.{ending}", data + bytes(1_000_000))
        made[f"{ending} with a wrong ending"] = (f"a.{'bmp' if ending != 'bmp' else 'png'}", data)
    return made


def _deep_tiff() -> bytes:
    import tifffile

    buffer = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 65536, (40, 48, 3), dtype=np.uint16)
    tifffile.imwrite(buffer, values, photometric="rgb", metadata=None)
    return buffer.getvalue()


def _noised(data: bytes, seed: int) -> bytes:
    """Eight bytes changed, half of them in the first hundred."""
    rng, changed = np.random.default_rng(seed), bytearray(data)
    places = [*rng.integers(0, min(100, len(data)), 4), *rng.integers(0, len(data), 4)]
    for place in places:
        changed[place] = int(rng.integers(0, 256))
    return bytes(changed)


def plans() -> dict[str, str]:
    """JSON texts that are called a plan."""
    box, marks = [5.0, 5.0, 35.0, 35.0], [[10.0 + i % 9, 10.0 + i // 9] for i in range(68)]

    def plan(face: object = None, **changes: object) -> str:
        row = {"box": box, "landmarks": marks, "score": 0.9, "image": 0, "origin": "measured"}
        faces = [row | face] if isinstance(face, dict) else [row] if face is None else face
        return json.dumps({"format": "faceveil.faces/1", "faces": faces} | changes)

    good = json.loads(Faces([Face((5, 5, 35, 35))]).to_json())
    return {
        "empty": "",
        "a number": "7",
        "null": "null",
        "a list": "[]",
        "an open brace": "{",
        "nested 100,000 deep": "[" * 100_000,
        "nested in faces": plan().replace('"faces": [', '"faces": ' + "[" * 3000),
        "another format": plan(format="faceveil.faces/9"),
        "no faces": json.dumps({"format": "faceveil.faces/1"}),
        "faces as text": plan("abc"),
        "faces as null": plan(faces=None),
        "a face as a number": plan([7]),
        "a face as null": plan([None]),
        "infinite box": plan().replace("35.0", "1e999"),
        "box that is not a number": plan().replace("35.0", "NaN"),
        "huge box": plan({"box": [0, 0, 1e308, 1e308]}),
        "box of no area": plan({"box": [5, 5, 5, 35]}),
        "box turned inside out": plan({"box": [35, 35, 5, 5]}),
        "box outside": plan({"box": [500, 500, 600, 600], "landmarks": []}),
        "box on the left": plan({"box": [-90, 0, -10, 30], "landmarks": []}),
        "box of three numbers": plan({"box": [1, 2, 3]}),
        "box of texts": plan({"box": ["a", "b", "c", "d"]}),
        "box as an object": plan({"box": {"x": 1}}),
        "box of a tenth of a pixel": plan({"box": [5, 5, 5.1, 5.1], "landmarks": []}),
        "equal landmarks": plan({"landmarks": [[10, 10]] * 68}),
        "infinite landmarks": plan({"landmarks": marks[:-1] + [[1e308, 1e308]]}),
        "landmarks at 1e308": plan({"landmarks": [[1e308, 1e308]] * 68}),
        "landmarks on a line": plan({"landmarks": [[10 + 0.3 * i, 10] for i in range(68)]}),
        "landmarks far away": plan({"landmarks": [[x + 900, y] for x, y in marks]}),
        "67 landmarks": plan({"landmarks": marks[:-1]}),
        "478 landmarks": plan({"landmarks": marks * 7 + marks[:2]}),
        "landmarks of three numbers": plan({"landmarks": [[1, 2, 3]] * 68}),
        "landmarks as text": plan({"landmarks": "abc"}),
        "image 5": plan({"image": 5}),
        "image -1": plan({"image": -1}),
        "image 1e999": plan().replace('"image": 0', '"image": 1e999'),
        "image as text": plan({"image": "first"}),
        "image half": plan({"image": 0.5}),
        "score as text": plan({"score": "high"}),
        "infinite score": plan().replace("0.9", "1e999"),
        "unknown origin": plan({"origin": "magic"}),
        "track as text": plan({"track": "one"}),
        "images of another size": json.dumps(good | {"images": _images(100, 100)}),
        "two images": json.dumps(good | {"images": _images(48, 40, 2)}),
        "a billion images": json.dumps(good | {"images": _images(48, 40, 1) | {"count": 10**9}}),
        "images as text": json.dumps(good | {"images": "all"}),
        "images without a size": json.dumps(good | {"images": {"count": 1}}),
        "fingerprints of texts": json.dumps(good | {"images": _images(48, 40) | {"fingerprints": ["xyz"]}}),
        "a byte order mark": "\ufeff" + plan(),
        "two documents": plan() + plan(),
        "ten thousand faces": plan([json.loads(plan())["faces"][0] | {"landmarks": []}] * 10_000),
    }


def _images(width: int, height: int, count: int = 1) -> dict[str, object]:
    return {"count": count, "width": width, "height": height, "fingerprints": ["0" * 64] * count}


def stores() -> dict[str, bytes]:
    """Bytes of files that are called a safetensors file of ours, or a checkpoint."""
    unit = torch.nn.functional.normalize(torch.ones(1, 128), dim=1)
    made = {
        "empty": b"",
        "text": b"hello",
        "zeros": bytes(5000),
        "a picture": encoded("PNG"),
        "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b"{}",
        "a header that is no JSON": struct.pack("<Q", 8) + b"{{{{{{{{",
        "a nested header": struct.pack("<Q", 60_000) + b"[" * 60_000,
        "no tensors": save({}),
        "a strange tensor": save({"x": torch.zeros(3)}),
        "no metadata": save({"vectors": unit}),
        "another format": save({"vectors": unit}, {"format": "other/1"}),
        "an identity of no space": save({"vectors": unit}, {"format": "faceveil.identity/1"}),
        "an identity that is not finite": save(
            {"vectors": unit * float("nan")}, {"format": "faceveil.identity/1", "space": "dlib"}
        ),
        "an identity of zeros": save({"vectors": 0 * unit}, {"format": "faceveil.identity/1", "space": "dlib"}),
        "an identity of no vectors": save({"vectors": unit[:0]}, {"format": "faceveil.identity/1", "space": "dlib"}),
        "an identity of one axis": save({"vectors": unit[0]}, {"format": "faceveil.identity/1", "space": "dlib"}),
        "an identity of whole numbers": save(
            {"vectors": torch.ones(1, 128, dtype=torch.int64)}, {"format": "faceveil.identity/1", "space": "dlib"}
        ),
        "an identity of another space": save({"vectors": unit}, {"format": "faceveil.identity/1", "space": "none"}),
        "an identity of 7 numbers": save({"vectors": unit[:, :7]}, {"format": "faceveil.identity/1", "space": "dlib"}),
        "a method identity of nothing": save({}, {"format": "faceveil.method-identity/1", "method": "appearance"}),
        "a method identity of an unknown method": save(
            {"x": unit}, {"format": "faceveil.method-identity/1", "method": "magic", "seed": "1"}
        ),
        "a method identity with a seed of text": save(
            {"x": unit}, {"format": "faceveil.method-identity/1", "method": "appearance", "seed": "many"}
        ),
        "a pickle that runs code": pickle.dumps(_Dangerous()),
        "a pickle of texts": pickle.dumps({"a": "b"}),
        "a torch file with integer keys": _torch_file({1: torch.zeros(2), 2: torch.zeros(3)}),
        "a torch file of a list": _torch_file([torch.zeros(2)]),
        "a torch file of nothing": _torch_file({}),
        "a torch file of a strange tensor": _torch_file({"state_dict": {"x": torch.zeros(2)}}),
        "a torch file of a number": _torch_file(7),
        "half a torch file": _torch_file({"a": torch.zeros(100)})[:300],
    }
    whole = save({"vectors": unit}, {"format": "faceveil.identity/1", "space": "dlib"})
    made |= {f"an identity cut at {share}": whole[: int(len(whole) * share)] for share in (0.1, 0.5, 0.95)}
    return made


class _Dangerous:
    """Writes a file when it is unpickled by a reader that should not."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pickle-was-run",)


def _torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def ledgers() -> dict[str, bytes]:
    """Bytes of files that are called a ledger."""
    entry = {"salt": "00" * 16, "codes": "00" * 1024, "number": 1}

    def ledger(**changes: object) -> bytes:
        return json.dumps(
            {"format": "faceveil.ledger/3", "check": "", "seal": "", "entries": [entry]} | changes
        ).encode()

    return {
        "empty": b"",
        "zeros": bytes(100),
        "not UTF-8": b"\xff\xfe\x00",
        "a list": b"[]",
        "null": b"null",
        "nested": b"[" * 100_000,
        "no format": b"{}",
        "an old format": ledger(format="faceveil.ledger/1"),
        "no entries": ledger(entries=None),
        "entries as text": ledger(entries="abc"),
        "an entry as a number": ledger(entries=[7]),
        "salt as a number": ledger(entries=[entry | {"salt": 7}]),
        "salt that is no hex": ledger(entries=[entry | {"salt": "xyz"}]),
        "codes that are too short": ledger(entries=[entry | {"codes": "00"}]),
        "number of 1e999": ledger().replace(b'"number": 1', b'"number": 1e999'),
        "check as a list": ledger(check=[]),
        "check with umlauts": ledger(check="äöü"),
        "check of half a character": ledger(check="\ud800"),
        "another key's": ledger(check="00" * 32),
        "cut off": ledger()[:200],
    }


NUMBERS = ("nan", "inf", "-inf", "-1", "1e999", "1e-320", "", "abc", "0x10", "1,5", "99999999999999999999999", "\u0663")


def options() -> dict[str, list[str]]:
    """Flags of ``faceveil anonymize`` with values that are out of range, no number, or belong to another method."""
    made = {f"{flag} {value!r}": [flag, value] for flag in ("--strength", "--seed", "--min-size") for value in NUMBERS}
    selections = (
        "",
        ",",
        "0,",
        "-0",
        "1-2",
        "all,0",
        "0;1",
        "biggest",
        "9" * 400,
        "0x1",
        "\u0663",
        "left right",
        "None",
    )
    made |= {f"--faces {value!r}": ["--faces", value] for value in selections}
    made |= {
        "a seed above 2^64 for one person": ["--seed", str(2**70), "--same-person"],
        "a face that is not there": ["--faces", "3"],
        "an identity with pixelate": ["--method", "pixelate", "--same-person"],
        "a bank without a key": ["--bank", "."],
        "no ledger without a key": ["--no-ledger"],
        "a pseudonym key without a name": ["--pseudonyms", "."],
        "a pseudonym key in a file": ["--pseudonyms", "a.png/my.key"],
        "a recognizer without a file": ["--verify", "arcface"],
        "a recognizer of no kind": ["--verify", "magic:a.png"],
        "a recognizer that is a picture": ["--verify", "arcface:a.png"],
        "a threshold of text": ["--verify", "arcface:a.png@high"],
        "a threshold that is not a number": ["--verify", "arcface:a.png@nan"],
        "a parser that is a picture": ["--parser-file", "a.png"],
        "a sticker that is text": ["--method", "sticker", "--sticker", "text.txt"],
        "a sticker that is not there": ["--method", "sticker"],
        "a report in a file": ["--report", "a.png/r.json"],
        "a preview of another kind": ["--preview", "p.jpg"],
        "a model that is a picture": ["--method", "inswapper", "--inswapper-swapper", "a.png"],
        "an option of another method": ["--method", "solid", "--referencenet-steps", "3"],
        "weights that are not there": ["--method", "referencenet"],
    }
    return made


def paths() -> dict[str, Maker]:
    """Inputs and outputs whose path is the problem."""

    def loop(d: Path) -> list[str]:
        (d / "loop.png").symlink_to(d / "loop.png")
        return [str(d / "loop.png")]

    def broken(d: Path) -> list[str]:
        (d / "broken.png").symlink_to(d / "nowhere.png")
        return [str(d / "broken.png")]

    def pipe(d: Path) -> list[str]:
        os.mkfifo(d / "pipe.png")
        return [str(d / "pipe.png")]

    def folder_named_png(d: Path) -> list[str]:
        (d / "folder.png").mkdir()
        return [str(d / "folder.png"), str(d / "a.png")]

    def nested(d: Path) -> list[str]:
        deep = d / "/".join(["x" * 40] * 20)
        deep.mkdir(parents=True)
        picture().save(deep / "a.png")
        return [str(d / ("x" * 40)), "-o", str(d / "out")]

    def strange_name(d: Path, name: str) -> list[str]:
        picture().save(d / name, "PNG")
        return [str(d / name), "-o", str(d / "out.png")]

    def bytes_name(d: Path) -> list[str]:
        name = os.fsdecode(b"\xff\xfe.png")
        picture().save(d / name, "PNG")
        return [str(d / name), "-o", str(d / "out.png")]

    return {
        "a loop of links": loop,
        "a broken link": broken,
        "a named pipe": pipe,
        "a folder that is called .png": folder_named_png,
        "twenty folders deep": nested,
        "a name that is not UTF-8": bytes_name,
        "a name of spaces": lambda d: strange_name(d, "  .png"),
        "a name with a line break": lambda d: strange_name(d, "a\nb.png"),
        "a name in Chinese": lambda d: strange_name(d, "人脸.png"),
        "a name with brackets": lambda d: strange_name(d, "a[1].png"),
        "a name that looks like a flag": lambda d: strange_name(d, "-x.png"),
        "a name of 300 letters": lambda d: [str(d / ("n" * 300 + ".png"))],
        "an output of 300 letters": lambda d: [str(d / "a.png"), "-o", str(d / ("n" * 300 + ".png"))],
        "an output with a zero byte": lambda d: [str(d / "a.png"), "-o", str(d / "a\0.png")],
        "an input with a zero byte": lambda d: [str(d / "a\0.png")],
        "an output without an ending": lambda d: [str(d / "a.png"), str(d / "b.png"), "-o", str(d / "b.png")],
        "an output in a file": lambda d: [str(d / "a.png"), "-o", str(d / "b.png" / "c.png")],
        "a device": lambda d: ["/dev/null"],
        "an endless device": lambda d: ["/dev/zero"],
        "an empty name": lambda d: [""],
        "the current folder": lambda d: ["."],
        "a glob that matches nothing": lambda d: [str(d / "*.nothing")],
        "a glob that is broken": lambda d: [str(d / "[.png")],
        "one input twice": lambda d: [str(d / "a.png"), str(d / "a.png"), "-o", str(d / "out")],
        "a folder and its file": lambda d: [str(d), str(d / "a.png"), "-o", str(d / "out")],
    }
