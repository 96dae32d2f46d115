"""Download a weights file with consent: resumable, verified by SHA-256, and moved into place only when complete."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from ..pipelines.core.errors import WeightsError
from ..pipelines.core.progress import Progress, silent
from .catalog import Card

CHUNK = 1 << 20
TIMEOUT = 30.0
OFFLINE = "FACEVEIL_OFFLINE"
"""Environment variable that disables all downloads when it is set to any text."""


def fetch(
    card: Card,
    models: Path,
    consent: bool,
    mirror: str | None = None,
    progress: Progress | None = None,
    timeout: float = TIMEOUT,
) -> Path:
    """Download a weights file to ``models / card.folder / card.file``.

    A file that exists and matches its SHA-256 is not downloaded again. An interrupted download is kept as ``.part`` and
    resumed by the next call.

    Args:
        card: model card of the file.
        models: the models folder.
        consent: whether the user requested this download; nothing is downloaded without consent.
        mirror: address to use instead of ``card.url``.
        progress: called with downloaded bytes, total bytes and file name; it may raise to interrupt.
        timeout: of the connection, in seconds.

    Returns:
        Path of the file.

    Raises:
        WeightsError: there is no consent or no address, downloads are disabled, the server fails, the download is
            interrupted, the file cannot be written, or its SHA-256 differs from the card.
    """
    target = models / card.folder / card.file
    if target.is_file() and _sha256(target) == card.sha256:
        return target
    url = mirror or card.url
    if not url:
        raise WeightsError(
            f"{card.file} has no download address; get it from its origin ({card.origin}), location: {card.folder}"
        )
    if not consent or os.environ.get(OFFLINE):
        why = f"{OFFLINE} is set" if os.environ.get(OFFLINE) else "downloads need your consent"
        raise WeightsError(
            f"{card.file} is missing from {card.folder} and {why}; get it from {url} ({card.megabytes:.0f} MB,"
            f" {card.license})"
        )
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, card, progress or silent, timeout)
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{url} returned HTTP status {error.code} for {card.file}; try again later or give a mirror"
        ) from None
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise WeightsError(
            f"the download of {card.file} was interrupted ({getattr(error, 'reason', error)}); run it again to resume"
        ) from None
    except OSError as error:
        raise WeightsError(
            f"{card.file} cannot be written ({error.strerror}); free some space or choose another models folder"
        ) from None
    if card.bytes and part.stat().st_size < card.bytes:
        raise WeightsError(f"the download of {card.file} is incomplete; run it again to resume")
    if _sha256(part) != card.sha256:
        part.unlink()
        raise WeightsError(
            f"{card.file} from {url} does not match its model card (SHA-256 differs) and was deleted; try a mirror"
        )
    part.replace(target)
    return target


def _download(url: str, part: Path, card: Card, progress: Progress, timeout: float) -> None:
    have = part.stat().st_size if part.exists() else 0
    if card.bytes and have >= card.bytes:
        # A partial file of the full size or more cannot be resumed.
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        resumed = response.status == 206
        done = have if resumed else 0
        total = done + int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                progress(done, total, card.file)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
