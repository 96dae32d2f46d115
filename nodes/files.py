"""Files that users keep in ComfyUI's model folders: what a combo offers, and where a chosen name lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..pipelines.core.errors import InputError, WeightsError
from .sockets import NONE

OWN = ("faceveil",)
FACES = ("faceveil", "insightface")
"""insightface's models lie where other packs look for them as well: models/insightface."""


def names(folders: Sequence[str], endings: Sequence[str] = (), within: str = "") -> list[str]:
    """What the model folders hold, below each one's root.

    Args:
        endings: of the names that are wanted; all when empty.
        within: a part that the names must hold.
    """
    import folder_paths

    found = [name for folder in folders for name in folder_paths.get_filename_list(folder)]
    return [n for n in dict.fromkeys(found) if (not endings or n.endswith(tuple(endings))) and within in n]


def output_path(prefix: str) -> Path:
    """A new numbered ``.safetensors`` below ComfyUI's output folder."""
    import folder_paths

    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    path = Path(folder) / f"{name}_{counter:05}_.safetensors"
    while path.exists():
        counter += 1
        path = path.with_name(f"{name}_{counter:05}_.safetensors")
    return path


def kept_path(file: str, writer: str) -> Path:
    """A file that a node wrote into ComfyUI's output folder, or that lies in its input folder.

    Raises:
        InputError: it is in neither.
    """
    import folder_paths

    for root in (folder_paths.get_output_directory(), folder_paths.get_input_directory()):
        path = (Path(root) / file).resolve()
        if path.is_relative_to(Path(root).resolve()) and path.is_file():
            return path
    raise InputError(f"{file} is neither in ComfyUI's output nor in its input folder; name it as {writer} shows it")


def path_of(folders: Sequence[str], name: str, remedy: str) -> Path:
    """The file of a name.

    Raises:
        WeightsError: it is not there; the sentence ends with ``remedy``.
    """
    import folder_paths

    for folder in folders:
        found = folder_paths.get_full_path(folder, name) if name not in ("", NONE) else None
        if found:
            return Path(found)
    raise WeightsError(
        f"{'the file' if name in ('', NONE) else name} is not in models/{' or models/'.join(folders)}; {remedy}"
    )
