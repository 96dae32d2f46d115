"""Turn the embedding that the generation moves away from, for several faces of one person."""

from __future__ import annotations

import numpy as np

from ...core.errors import InputError

MAX_ANGLE = 180.0
_LARGEST_SEED = 2**32 - 1


def within_angle(vector: np.ndarray, degrees: float, seed: int) -> np.ndarray:
    """Turn a vector by a uniformly drawn angle of at most ``degrees`` in a random direction; its length stays.

    The draws are those of numpy's old generator, in the order of the authors' code: the angle, then the direction.

    Args:
        vector: ``(D,)``, not zero.

    Raises:
        InputError: the angle is not in 0 ... 180, or the vector is zero.
    """
    length = float(np.linalg.norm(vector))
    if not 0 <= degrees <= MAX_ANGLE or length == 0:
        raise InputError(
            f"the angle must be between 0 and {MAX_ANGLE:g} degrees and the vector not zero, got {degrees}"
        )
    random = np.random.RandomState(seed % _LARGEST_SEED)
    along = vector / length
    angle = random.uniform(0, np.radians(degrees))
    across = random.randn(len(vector))
    across -= (across @ along) * along
    across /= np.linalg.norm(across)
    turned: np.ndarray = length * (np.cos(angle) * along + np.sin(angle) * across)
    return turned
