"""ComfyUI nodes: thin wrappers of ``pipelines``. Only this package imports ``comfy`` and ``folder_paths``.

The nodes are discovered: every module below this package that defines a list ``NODES`` adds its classes.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension, io

WEIGHT_SUFFIXES = (".safetensors", ".onnx", ".pt", ".pth", ".mat", ".obj")


async def comfy_entrypoint() -> ComfyExtension:
    """Return the extension object that ComfyUI requests from a V3 node pack."""
    from comfy_api.latest import ComfyExtension

    register_model_folders()

    class FaceVeilExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return find_nodes()

    return FaceVeilExtension()


def find_nodes() -> list[type[io.ComfyNode]]:
    """Return the node classes of all modules below this package."""
    found = pkgutil.walk_packages(__path__, f"{__name__}.")
    modules = [importlib.import_module(module.name) for module in found if not module.ispkg]
    return [node for module in modules for node in getattr(module, "NODES", ())]


def register_model_folders() -> None:
    """Register ``models/faceveil``, ``models/insightface`` and ``models/ipadapter`` as model folders.

    Folders from extra_model_paths.yaml stay registered. No folder is created.
    """
    from pathlib import Path

    import folder_paths

    from .files import SAVED

    models = Path(folder_paths.models_dir)
    folder_paths.add_model_folder_path("faceveil", str(models / "faceveil"), is_default=True)
    folder_paths.folder_names_and_paths["faceveil"][1].update(WEIGHT_SUFFIXES)
    # Save Identity and Save Coefficients write to the output folder. Files from other people are in the input folder.
    folder_paths.add_model_folder_path(SAVED, folder_paths.get_output_directory(), is_default=True)
    folder_paths.add_model_folder_path(SAVED, folder_paths.get_input_directory())
    folder_paths.folder_names_and_paths[SAVED][1].add(".safetensors")
    # Other packs also register this folder, and the first registration sets its suffixes. So .onnx is added here.
    folder_paths.add_model_folder_path("insightface", str(models / "insightface"))
    folder_paths.folder_names_and_paths["insightface"][1].add(".onnx")
    folder_paths.add_model_folder_path("ipadapter", str(models / "ipadapter"))
    folder_paths.folder_names_and_paths["ipadapter"][1].update((".bin", ".safetensors"))
