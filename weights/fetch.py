"""Download one weights file by consent: resumable, checked, and in place whole or not at all."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from ..pipelines.errors import WeightsError
from .catalogue import Card

CHUNK = 1 << 20
TIMEOUT = 30.0
OFFLINE = "FACEVEIL_OFFLINE"
"""Set this environment variable to anything and nothing is ever downloaded."""

Progress = Callable[[int, int, str], None]


def fetch(
    card: Card,
    models: Path,
    consent: bool,
    mirror: str | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> Path:
    """Bring a weights file to ``models / card.folder / card.file``.

    A file that is there and whole is not touched. A broken download is kept as ``.part`` and resumed by the next call.

    Args:
        consent: that the user asked for this download; without it nothing is fetched.
        mirror: an address to use in place of the card's.
        progress: called with bytes done, bytes in all, file name; it may raise to interrupt.

    Raises:
        WeightsError: no consent, offline, no address, not reachable, cut off, or not the file that the card describes.
    """
    target = models / card.folder / card.file
    if target.is_file() and _sha256(target) == card.sha256:
        return target
    url = mirror or card.url
    if not url:
        raise WeightsError(f"{card.file} cannot be downloaded here; it is {card.folder}")
    if not consent or os.environ.get(OFFLINE):
        why = f"{OFFLINE} is set" if os.environ.get(OFFLINE) else "downloads need your consent"
        raise WeightsError(
            f"{card.file} is missing from {card.folder} and {why}; get it from {url} ({card.megabytes:.0f} MB,"
            f" {card.licence})"
        )
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, card, progress or _silent, timeout)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"{url} answered {error.code} for {card.file}; try again later or name a mirror") from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise WeightsError(
            f"the download of {card.file} broke off ({getattr(error, 'reason', error)}); run it again to resume"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"{card.file} cannot be written ({error.strerror}); free some space or choose another models folder"
        ) from None
    if card.bytes and part.stat().st_size < card.bytes:
        raise WeightsError(f"the download of {card.file} was cut off; run it again to resume")
    if _sha256(part) != card.sha256:
        part.unlink()
        raise WeightsError(
            f"{card.file} from {url} is not the file that its card describes (SHA-256 differs); nothing was kept"
        )
    part.replace(target)
    return target


def _download(url: str, part: Path, card: Card, progress: Progress, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    if card.bytes and have >= card.bytes:
        # More than the whole file cannot be a beginning of it.
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        resumed = answer.status == 206
        done = have if resumed else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total, card.file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _silent(done: int, total: int, what: str) -> None:
    return None
