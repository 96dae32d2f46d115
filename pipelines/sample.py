"""The portrait that everybody may use: astronaut Eileen Collins, NASA, public domain, as shipped with scikit-image."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import WeightsError


def astronaut() -> Any:
    """The portrait as an array ``(512, 512, 3)``.

    Raises:
        WeightsError: scikit-image is not installed.
    """
    import numpy as np
    from PIL import Image

    package = find_spec("skimage")
    path = Path(package.origin).parent / "data" / "astronaut.png" if package and package.origin else None
    if path is None or not path.is_file():
        raise WeightsError("the sample portrait is missing; install it with: pip install scikit-image")
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))
