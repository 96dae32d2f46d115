"""The graph: thin ComfyUI nodes over ``pipelines``. The only place that imports ``comfy`` and ``folder_paths``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI asks a V3 pack for."""
    from comfy_api.latest import ComfyExtension, io

    _register_models()
    from . import bank, compare, crop, detect, geometry, identity, referencenet, sample, save, swap, veil

    class FaceVeilExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return [
                node
                for module in (sample, detect, veil, swap, crop, compare, save, referencenet, identity, bank, geometry)
                for node in module.NODES
            ]

    return FaceVeilExtension()


def _register_models() -> None:
    """Let ``models/faceveil`` hold our weights, beside what the user's extra_model_paths.yaml says; no folder is
    made."""
    from pathlib import Path

    import folder_paths

    folder_paths.add_model_folder_path("faceveil", str(Path(folder_paths.models_dir) / "faceveil"), is_default=True)
    folder_paths.folder_names_and_paths["faceveil"][1].update((".safetensors", ".onnx", ".pt", ".pth", ".mat", ".obj"))
    # Other packs look there as well; whoever comes first names it.
    folder_paths.add_model_folder_path("insightface", str(Path(folder_paths.models_dir) / "insightface"))
    folder_paths.folder_names_and_paths["insightface"][1].add(".onnx")
