"""The computation: plain torch, never imports ComfyUI."""

from .core.telemetry import switch_off_telemetry

# Here, because nothing of this package can be imported without it.
switch_off_telemetry()
