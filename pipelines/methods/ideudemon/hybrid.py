"""Visual similarity assistance (section 3.3): the photo's hair and background around the new face.

    X_l = Keep X + (1 - Keep) (Face(X_p) X_p + (1 - Face(X_p)))
    Keep = NotHead(X) or Sty(X)

X is the photo and X_p the drawn head, both in one aligned square. NotHead are background, neck and cloth, Sty glasses,
earrings, hair and hat. Together with the face they are all 19 classes of the parser, so Keep is what is not the face.
Where the old face was and no new one is, X_l is white; ``fill_gaps`` fills that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...faces.parse import FaceParser
from ...faces.regions import region_masks

_HALF = 0.5


@dataclass(frozen=True)
class HeadMasks:
    """Masks ``(1, 1, S, S)`` of 0 and 1 of a square.

    Attributes:
        face: what is replaced: skin, brows, eyes, nose, mouth, ears.
        head: the face with hair and glasses.
    """

    face: Tensor
    head: Tensor


def head_masks(square: Tensor, points: np.ndarray, parser: FaceParser | None) -> HeadMasks:
    """The face and the head in a square.

    Args:
        square: ``(1, 3, S, S)``, RGB in [0, 1].
        points: 68 landmarks in pixels of the square.
        parser: without one, the landmarks' outline is used, which knows no hair.
    """
    found = region_masks(square, points, ("face", "head"), parser)
    return HeadMasks(*((found[name] > _HALF).float() for name in ("face", "head")))


def hybrid_image(photo: Tensor, face: Tensor, drawn: Tensor, drawn_face: Tensor) -> Tensor:
    """X_l ``(N, 3, S, S)``.

    Args:
        photo: X ``(N, 3, S, S)`` in [0, 1].
        face: 1 where the photo's face is, ``(N, 1, S, S)``.
        drawn: X_p ``(N, 3, S, S)``.
        drawn_face: 1 where the drawn face is, ``(N, 1, S, S)``.
    """
    return torch.where(face > 0, torch.where(drawn_face > 0, drawn, 1.0), photo)


def fill_gaps(image: Tensor, gaps: Tensor) -> Tensor:
    """Fill gaps smoothly from their borders.

    The image is halved until nothing is missing, each time with the average of what is known; then the gaps are filled
    from the coarsest image to the finest.

    Args:
        image: ``(N, C, H, W)``.
        gaps: 1 where the image is missing, ``(N, 1, H, W)``.
    """
    known = 1 - gaps
    height, width = image.shape[-2:]
    if bool((known > 0).all()) or (height, width) == (1, 1):
        return image
    step = (min(2, height), min(2, width))
    pad = (0, width % step[1], 0, height % step[0])
    sums = functional.avg_pool2d(functional.pad(torch.cat([image * known, known], 1), pad), step)
    share = sums[:, -1:]
    # An image of which nothing is known stays white, as the formula leaves it.
    coarse = torch.where(share > 0, sums[:, :-1] / share.clamp(min=1e-6), 1.0)
    filled = fill_gaps(coarse, (share <= 0).to(image.dtype))
    size = (sums.shape[-2] * step[0], sums.shape[-1] * step[1])
    large = functional.interpolate(filled, size, mode="bilinear", align_corners=False)
    return image * known + gaps * large[..., :height, :width]
