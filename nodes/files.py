"""Files that users keep in ComfyUI's model folders: what a combo offers, and where a chosen name lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..pipelines.errors import WeightsError

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


def path_of(folders: Sequence[str], name: str, remedy: str) -> Path:
    """The file of a name.

    Raises:
        WeightsError: it is not there; the sentence ends with ``remedy``.
    """
    import folder_paths

    for folder in folders:
        found = folder_paths.get_full_path(folder, name) if name else None
        if found:
            return Path(found)
    raise WeightsError(f"{name or 'the file'} is not in models/{' or models/'.join(folders)}; {remedy}")
