"""The morphable model that comes with the package."""

from __future__ import annotations

from functools import lru_cache

import torch

from ...weights.builtin import FOLDER
from .morphable import MorphableModel
from .readers import load_stored

NAME = "appearance-shape"
FILE = "face_morphable.safetensors"


@lru_cache(maxsize=1)
def built_in_morphable_model() -> MorphableModel:
    """The built-in model: 40 shapes, 7 expressions and 48 textures over about 2,400 vertices.

    ``faceveil train morphable`` makes its file from the embedded default.

    Raises:
        WeightsError: the package was installed without the file.
    """
    # Kept for the whole process: tensors made in ComfyUI's inference mode would serve no gradients later.
    with torch.inference_mode(False):
        return load_stored(FOLDER / FILE)
