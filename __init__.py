"""ComfyUI-FaceVeil: take a person's identity out of photos and keep everything else.

As a ComfyUI pack this module offers ``comfy_entrypoint``; as the Python package ``faceveil`` it offers ``anonymize``.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

# pytest may import this file as a bare module: then there is no package to import from.
if __package__:
    if TYPE_CHECKING:
        from .pipelines.jobs.photo import anonymize, anonymize_batch
        from .pipelines.jobs.settings import Result, Settings

    __all__ = ["Result", "Settings", "anonymize", "anonymize_batch"]

    def __getattr__(name: str) -> Any:
        # Importing torch takes a second; --help should not wait for it.
        if name in __all__:
            from .pipelines.jobs import photo, settings

            return getattr(photo if hasattr(photo, name) else settings, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    if importlib.util.find_spec("comfy_api") is not None and importlib.util.find_spec("folder_paths") is not None:
        WEB_DIRECTORY = "./web"

        from .nodes import comfy_entrypoint  # noqa: F401
