"""Work for another process, which must find it in a module."""

from __future__ import annotations

from faceveil.pipelines.methods.appearance.network import load_model


def masks() -> list[bytes]:
    """Masks of the built-in model that are computed when it is loaded."""
    canonical = load_model().canonical
    return [mask.numpy().tobytes() for mask in (canonical.fade, canonical.core, canonical.skin)]
