"""The graph: thin ComfyUI nodes over ``pipelines``. The only place that imports ``comfy`` and ``folder_paths``.

Every module below this package that has a list ``NODES`` is found; nothing is listed here.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension, io

WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pth", ".mat", ".obj")


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI asks a V3 pack for."""
    from comfy_api.latest import ComfyExtension

    register_model_folders()

    class FaceVeilExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return find_nodes()

    return FaceVeilExtension()


def find_nodes() -> list[type[io.ComfyNode]]:
    """All node classes of all modules below this package."""
    found = pkgutil.walk_packages(__path__, f"{__name__}.")
    modules = [importlib.import_module(module.name) for module in found if not module.ispkg]
    return [node for module in modules for node in getattr(module, "NODES", ())]


def register_model_folders() -> None:
    """Let ``models/faceveil`` hold our weights, beside what extra_model_paths.yaml says; no folder is made."""
    from pathlib import Path

    import folder_paths

    models = Path(folder_paths.models_dir)
    folder_paths.add_model_folder_path("faceveil", str(models / "faceveil"), is_default=True)
    folder_paths.folder_names_and_paths["faceveil"][1].update(WEIGHT_SUFFIXES)
    # Other packs register this folder as well; the first one to do so decides its suffixes.
    folder_paths.add_model_folder_path("insightface", str(models / "insightface"))
    folder_paths.folder_names_and_paths["insightface"][1].add(".onnx")
