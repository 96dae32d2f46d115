"""Files in ComfyUI's model, input and output folders: the names that a combo offers, and the paths of the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..pipelines.core.errors import InputError, WeightsError
from .sockets import NONE

OWN = ("faceveil",)
SAVED = "faceveil_saved"
"""Registered name of ComfyUI's output and input folders, in which saved identities and coefficients are found."""
FACES = ("faceveil", "insightface")
"""Other node packs also keep the models of insightface in models/insightface."""
ABSENT = "absent"
MAX_NAME = 100
"""Characters of a name that a message repeats."""


def names(folders: Sequence[str], endings: Sequence[str] = (), within: str = "") -> list[str]:
    """List the files in model folders, relative to each folder.

    Args:
        folders: names under which the folders are registered in ComfyUI.
        endings: return only names with one of these endings; all names when empty.
        within: return only names that contain this text.
    """
    import folder_paths

    found = [name for folder in folders for name in folder_paths.get_filename_list(folder)]
    return [n for n in dict.fromkeys(found) if (not endings or n.endswith(tuple(endings))) and within in n]


def output_path(prefix: str) -> Path:
    """Return an unused, numbered ``.safetensors`` path in ComfyUI's output folder."""
    import folder_paths

    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    path = Path(folder) / f"{name}_{counter:05}_.safetensors"
    while path.exists():
        counter += 1
        path = path.with_name(f"{name}_{counter:05}_.safetensors")
    return path


def kept_path(file: str, writer: str) -> Path:
    """Find a file in ComfyUI's output folder or input folder.

    Args:
        file: path relative to one of the folders.
        writer: display name of the node that writes such files; the error message names it.

    Raises:
        InputError: the file is in neither folder.
    """
    import folder_paths

    for root in (folder_paths.get_output_directory(), folder_paths.get_input_directory()):
        try:
            path = (Path(root) / file).resolve()
            if path.is_relative_to(Path(root).resolve()) and path.is_file():
                return path
        except (OSError, TypeError, ValueError):
            # The name cannot be that of a file.
            break
    raise InputError(
        f"{str(file)[:MAX_NAME]!r} is in neither ComfyUI's output folder nor its input folder; choose one of {writer}"
    )


def saved_names() -> list[str]:
    """Names of the ``.safetensors`` files in the output and input folders; ``none`` where there is no such file."""
    # A combo without options fails before the node can say what is missing.
    return names((SAVED,), (".safetensors",)) or [NONE]


def saved_stamp(file: str | None) -> str:
    """Return a text that changes when a saved file changes, so that ComfyUI does not use an old result.

    ComfyUI passes None where the widget is connected to another node.
    """
    try:
        return ABSENT if file is None else _stamp(kept_path(file, ""))
    except InputError:
        return ABSENT


def model_stamp(folders: Sequence[str], *files: str | None) -> str:
    """Return a text that changes when a file in the model folders changes; other names never change it."""
    import folder_paths

    wanted = [file if isinstance(file, str) else NONE for file in files]
    found = [next((p for folder in folders if (p := folder_paths.get_full_path(folder, n))), None) for n in wanted]
    return "/".join(ABSENT if path is None else _stamp(Path(path)) for path in found)


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_mtime_ns}-{status.st_size}"


def path_of(folders: Sequence[str], name: str, remedy: str) -> Path:
    """Find a file in model folders by its name.

    Raises:
        WeightsError: the file is missing; the message ends with ``remedy``.
    """
    import folder_paths

    for folder in folders:
        found = folder_paths.get_full_path(folder, name) if name not in ("", NONE) else None
        if found:
            return Path(found)
    raise WeightsError(
        f"{'the file' if name in ('', NONE) else name} is not in models/{' or models/'.join(folders)}; {remedy}"
    )
