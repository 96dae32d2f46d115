"""Sample images of the astronaut Eileen Collins (NASA, public domain), from the scikit-image package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..core.errors import WeightsError


def astronaut() -> Any:
    """Load the portrait as an array ``(512, 512, 3)``, RGB bytes.

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


def group() -> Any:
    """Compose three copies of the portrait at different sizes, as an array ``(512, 1120, 3)``, RGB bytes.

    Raises:
        WeightsError: scikit-image is not installed.
    """
    import numpy as np
    from PIL import Image

    portrait = Image.fromarray(astronaut()).crop((0, 0, 440, 400))
    canvas = Image.new("RGB", (1120, 512), (96, 104, 116))
    for x, size, mirror in ((20, 300, False), (330, 460, True), (800, 300, True)):
        copy = portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirror else portrait
        copy = copy.resize((size, round(size * 400 / 440)), Image.Resampling.LANCZOS)
        canvas.paste(copy, (x, 512 - copy.height))
    return np.array(canvas)
