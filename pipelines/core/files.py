"""Read and write small files: a file is written whole or not at all, and errors are one sentence."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, OutputError

PART_PREFIX, PART_SUFFIX = ".faceveil-", ".part"
"""Of the temporary file that a write goes to first."""
PART_SECONDS = 600.0
"""A temporary file that is older is left over from a process that died."""
FORGOTTEN_SECONDS = 86400.0
"""One this old is removed even if a process has its number: numbers are used again."""
LOCK_SUFFIX, LOCK_SECONDS = ".lock", 60.0
MAX_REASON = 120
"""Characters of an operating system's or library's message that are repeated to the user."""


def write_whole(path: Path, data: bytes, private: bool = False) -> None:
    """Write to a temporary file in the same folder, then rename it.

    Args:
        private: only the owner can read the file.

    Raises:
        OutputError: the folder cannot be created or written, or the disk is full. Nothing is left behind.
    """
    unfinished = Unfinished(path, private)
    try:
        unfinished.path.write_bytes(data)
        unfinished.finish()
    except OSError as error:
        unfinished.discard()
        raise _unwritable(path, error) from None


class Unfinished:
    """A file that is written under a temporary name in its folder, and gets its own name when it is complete.

    Attributes:
        path: of the temporary file, which exists and is empty.

    Args:
        target: the name in the end.
        private: only the owner can read the file.

    Raises:
        OutputError: the folder cannot be created or written.
    """

    def __init__(self, target: Path, private: bool = False) -> None:
        self._target, self._private = target, private
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(
                prefix=f"{PART_PREFIX}{os.getpid()}-", suffix=PART_SUFFIX, dir=target.parent
            )
        except OSError as error:
            raise _unwritable(target, error) from None
        os.close(handle)
        self.path = Path(name)

    def finish(self) -> None:
        """Give the file its name.

        Raises:
            OutputError: the file cannot be renamed; nothing is left behind.
        """
        try:
            with self.path.open("r+b") as file:
                # Without this a power failure can leave an empty file under the final name.
                os.fsync(file.fileno())
            # mkstemp makes private files; other results are as readable as any other file.
            if not self._private:
                self.path.chmod(0o666 & ~_umask())
            self.path.replace(self._target)
        except OSError as error:
            self.discard()
            raise _unwritable(self._target, error) from None

    def discard(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path.name} could not be written ({short_reason(error)}); choose another folder or free some space"
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that several processes change, ``PATH.lock`` beside it.

    Raises:
        OutputError: the lock cannot be created, or another process holds it for longer than a minute.
    """
    from filelock import FileLock, Timeout

    file = path.with_name(path.name + LOCK_SUFFIX)
    lock = FileLock(file, timeout=LOCK_SECONDS)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(f"{path.name} is in use by another process; wait for it, or delete {file.name}") from None
    except OSError as error:
        reason = short_reason(error)
        raise OutputError(
            f"{path.name} could not be locked ({reason}); check that {file.name} can be written"
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_outputs(
    outputs: Sequence[Path], inputs: Sequence[Path], overwrite: bool, known: Collection[Path] = ()
) -> None:
    """Refuse outputs that would destroy a file of the user, before anything is read or computed.

    Temporary files that dead processes left in the folders of the outputs are removed.

    Args:
        outputs: all files that a command will write.
        inputs: all files that it reads; none of them is ever overwritten.
        overwrite: whether other existing files may be overwritten.
        known: outputs that may exist.

    Raises:
        OutputError: an output is an input, exists already, is named twice, or is to lie in a file.
    """
    read = {key for path in inputs for key in _keys(path)}
    written: set[Path | tuple[int, int]] = set()
    for path in outputs:
        keys = _keys(path)
        if keys & read:
            raise OutputError(f"{path.name} is an input of this command and would be overwritten; name another output")
        if keys & written:
            raise OutputError(f"two outputs are called {path.name}; name another one")
        if exists(path) and not overwrite and path not in known:
            raise OutputError(f"{path.name} exists already; name another output, or add --overwrite")
        parent = next((p for p in path.parents if exists(p)), path.parent)
        if exists(parent) and not parent.is_dir():
            raise OutputError(f"{path.name} could not be written ({parent.name} is no folder); choose another folder")
        written |= keys
    for folder in {path.parent for path in outputs}:
        _sweep(folder, read)


def _sweep(folder: Path, inputs: set[Path | tuple[int, int]]) -> None:
    """Remove temporary files that a dead process left, unless they are inputs."""
    if not is_folder(folder):
        return
    for path in folder.glob(f"{PART_PREFIX}*{PART_SUFFIX}"):
        # Another process may remove it at the same time, or may have become its owner.
        with suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > PART_SECONDS and not _keys(path) & inputs and (age > FORGOTTEN_SECONDS or not _is_written(path)):
                path.unlink()


def _is_written(path: Path) -> bool:
    """Whether the process that a temporary file belongs to still runs on this machine."""
    owner = path.name.removeprefix(PART_PREFIX).partition("-")[0]
    # Elsewhere signal 0 is not a question.
    if os.name != "posix" or not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return not _is_zombie(owner)


def _is_zombie(process: str) -> bool:
    """Whether a process has ended, but its parent has not asked for its exit code: in containers often nobody does."""
    with suppress(OSError, IndexError):
        # The state follows the name, which is in parentheses and may contain any character.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; False where the path is unusable, such as a loop of links."""
    try:
        return path.exists()
    except (OSError, RuntimeError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False where the path is unusable."""
    return exists(path) and path.is_dir()


def read_text(path: Path) -> str:
    """Read UTF-8 text.

    Raises:
        InputError: the file is missing, unreadable or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text; check its name and folder") from None


def short_reason(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip()
    # FFmpeg's messages have its numbers and the path of the file.
    text = re.sub(r"^\[Errno -?\d+\] |: '[^']*'( returned -?\d+)?$", "", text)
    return text.splitlines()[0][:MAX_REASON] if text else type(error).__name__


def _keys(path: Path) -> set[Path | tuple[int, int]]:
    """What identifies a file: its resolved path and, for hard links, its device and inode."""
    try:
        keys: set[Path | tuple[int, int]] = {path.resolve()}
    except (OSError, RuntimeError, ValueError):
        # An unusable path, such as a loop of links: reading or writing it fails later, for this file alone.
        return {path.absolute()}
    if exists(path) and path.is_file():
        status = path.stat()
        keys.add((status.st_dev, status.st_ino))
    return keys


def _umask() -> int:
    # The mask can only be read by setting it.
    umask = os.umask(0)
    os.umask(umask)
    return umask
