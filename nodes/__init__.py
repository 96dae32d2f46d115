"""The graph: thin ComfyUI nodes over ``pipelines``. The only place that imports ``comfy`` and ``folder_paths``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI asks a V3 pack for."""
    from comfy_api.latest import ComfyExtension, io

    from . import compare, crop, detect, sample, save, veil

    class FaceVeilExtension(ComfyExtension):
        async def get_node_list(self) -> list[type[io.ComfyNode]]:
            return [node for module in (sample, detect, veil, crop, compare, save) for node in module.NODES]

    return FaceVeilExtension()
