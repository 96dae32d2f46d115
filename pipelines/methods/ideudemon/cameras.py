"""Cameras of HeadNeRF, and how our own camera becomes one.

HeadNeRF's camera looks along its positive z axis with y down; its intrinsic matrix counts pixels from the center of the
first one. The head is at the origin of the world, in decimeters, and looks along the positive z axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...faces.align import apply
from ...geometry.alignment import SIDE
from ...geometry.camera import DISTANCE, FOCAL, rotation

FREE_FOCAL, FREE_CENTER, FREE_DISTANCE = 128.3564453125 / 32, (16.1136474609375 / 32, 16.47128677368164 / 32), 12.0
"""Focal length and principal point in image widths, and distance in decimeters, of the reference's free view."""


@dataclass(frozen=True)
class NerfCamera:
    """N cameras.

    Attributes:
        rotation: from camera to world ``(N, 3, 3)``.
        center: in the world ``(N, 3)``, in decimeters.
        focal: focal length ``(N,)``, in image widths.
        principal: principal point ``(N, 2)``, in image widths from the center of the first pixel.
    """

    rotation: Tensor
    center: Tensor
    focal: Tensor
    principal: Tensor

    def rays(self, side: int) -> tuple[Tensor, Tensor]:
        """Rays through a map of ``side x side`` pixels, row by row.

        Returns:
            Centers ``(N, 3)``, and directions ``(N, side^2, 3)`` whose z component in the world is -1.
        """
        rows, columns = torch.meshgrid(
            *(torch.arange(side, device=self.center.device, dtype=self.center.dtype) for _ in range(2)), indexing="ij"
        )
        pixels = torch.stack([columns, rows], -1).view(1, -1, 2)
        flat = (pixels / side - self.principal[:, None]) / self.focal[:, None, None]
        directions = torch.nn.functional.pad(flat, (0, 1), value=1.0) @ self.rotation.transpose(1, 2)
        return self.center, directions / -directions[..., 2:]

    def moved(self, angles: Tensor, shift: Tensor) -> NerfCamera:
        """Rotate the cameras about the head by ``angles`` ``(N, 3)`` in radians, then move them by ``shift``."""
        by = rotation(angles)
        center = (by @ self.center[..., None])[..., 0] + shift
        return replace(self, rotation=by @ self.rotation, center=center)

    @classmethod
    def free(cls) -> NerfCamera:
        """The reference's camera straight in front of the head."""
        flipped = torch.diag(torch.tensor([1.0, -1.0, -1.0]))[None]
        center = torch.tensor([[0.0, 0.0, FREE_DISTANCE]])
        return cls(flipped, center, torch.tensor([FREE_FOCAL]), torch.tensor([FREE_CENTER]))


def camera_of(angles: Tensor, translation: Tensor, transform: np.ndarray, size: int) -> NerfCamera:
    """The camera that sees one head as our own camera sees it (see ``geometry.camera``), in another square.

    Args:
        angles: of the head ``(1, 3)``, in radians.
        translation: of the head ``(1, 3)``, in decimeters.
        transform: similarity from our square of 224 px to the other ``(2, 3)``.
        size: side of the other square in pixels.
    """
    scale = float(np.sqrt(np.linalg.det(transform[:, :2])))
    # A square that is rotated in the image is a camera that is rolled the other way, since y points down in images.
    roll = float(np.arctan2(transform[1, 0], transform[0, 0]))
    rolled = rotation(torch.tensor([[0.0, 0.0, -roll]]).to(angles))
    turned, moved = rolled @ rotation(angles), (rolled @ translation[..., None])[..., 0]
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0])).to(angles)
    away = torch.tensor([0.0, 0.0, DISTANCE]).to(angles)
    # A point v of the head is at R v + t in our world, and at F (R v + t - c) in the new camera.
    back = turned.transpose(1, 2)
    center = (back @ (away - moved)[..., None])[..., 0]
    middle = torch.from_numpy(apply(transform, np.full(2, SIDE / 2)) - 0.5).to(angles)
    return NerfCamera(back @ flip, center, torch.tensor([FOCAL * SIDE * scale / size]).to(angles), middle[None] / size)
