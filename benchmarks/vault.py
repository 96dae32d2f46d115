"""Seal and restore photos: every pixel comes back, and a changed picture or vault is refused.

    python benchmarks/vault.py PHOTOS [--count 100]

Each photo is redacted with a vault and restored by it. Then one bit of the vault, and one pixel of the redacted picture
are changed: restoring must be refused both times. The exit code is 1 where a photo fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from faceveil.pipelines.cli import main as faceveil
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.imaging.uint8 import to_uint8

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    photos = sorted(p for p in options.photos.rglob("*") if p.suffix.lower() in SUFFIXES)[: options.count]
    failed, faces, sealed, started = [], 0, 0, time.perf_counter()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        key = folder / "key"
        _quiet(["vault-key", str(key)])
        for photo in photos:
            problem, changed, size = _check(photo, folder, key, random)
            faces, sealed = faces + changed, sealed + size
            if problem:
                failed.append(f"{photo.name}: {problem}")
    print(f"{len(photos)} photos, {faces} with a redacted face, {sealed / 1e6:.1f} MB of vaults")
    print(f"{(time.perf_counter() - started) / max(len(photos), 1):.2f} s a photo; failed: {failed or 'none'}")
    return int(bool(failed) or not photos)


def _check(photo: Path, folder: Path, key: Path, random: np.random.Generator) -> tuple[str, bool, int]:
    """What is wrong, if anything; whether pixels were redacted; and the size of the vault."""
    redacted, restored, vault = folder / "redacted.png", folder / "restored.png", folder / "vault"
    keys = ["--key", str(key), "--overwrite"]
    seal = ["anonymize", str(photo), "-o", str(redacted), "--method", "solid", "--vault", str(vault), *keys]
    restore = ["restore", str(redacted), "--vault", str(vault), "-o", str(restored), *keys]
    if _quiet(seal):
        return "not sealed", False, 0
    original, after = (to_uint8(load_image(path).pixels) for path in (photo, redacted))
    if _quiet(restore) or not np.array_equal(to_uint8(load_image(restored).pixels), original):
        return "not restored", False, 0
    whole = vault.read_bytes()
    vault.write_bytes(_flipped(whole, random))
    if not _quiet(restore):
        return "restored from a changed vault", False, 0
    vault.write_bytes(whole)
    changed = after.copy()
    y, x = (int(random.integers(side)) for side in after.shape[:2])
    changed[y, x] ^= 1
    save_image(as_image(changed), redacted)
    if not _quiet(restore):
        return "restored into a changed picture", False, 0
    return "", bool((original != after).any()), len(whole)


def _flipped(data: bytes, random: np.random.Generator) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _quiet(command: list[str]) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return faceveil(command)


if __name__ == "__main__":
    sys.exit(main())
