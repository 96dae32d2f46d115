"""Switch off what dependencies would send: this tool uses no network unless the user asks for a download."""

from __future__ import annotations

import os
import sys
from types import ModuleType

SWITCHES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "NO_ALBUMENTATIONS_UPDATE")
"""Environment variables that onnxruntime, huggingface_hub and diffusers, and insightface's albumentations read."""


def switch_off_telemetry() -> None:
    """Set the switches for this process and its children; ``faceveil.pipelines`` calls it before anything is imported.

    onnxruntime collects a device id and resolves its collector's name from the moment it is imported, so its switch
    must be set before. Where another ComfyUI pack has imported it already, its function is called as well.
    """
    for name in SWITCHES:
        os.environ[name] = "1"
    loaded = sys.modules.get("onnxruntime")
    if loaded is not None:
        loaded.disable_telemetry_events()


def import_onnxruntime() -> ModuleType:
    """onnxruntime with its telemetry switched off: the only way in which this package imports it."""
    switch_off_telemetry()
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    module: ModuleType = onnxruntime
    return module
