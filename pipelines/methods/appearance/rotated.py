"""Turned heads: the frame laid over the face as a surface in space, so that what is behind the nose or the far cheek is
left alone.

On a frontal face, thin plates between the landmarks of the picture carry the frame well. Turned further, the picture
folds: the far cheek is narrow, the nose covers a part of it, and the jaw's landmarks slide along the outline. Here the
plates are laid
out in the frame, where every face looks ahead, over the fitted shape in space; the camera does the turning.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry.renderer import interpolate, rasterize
from ...geometry.shape_model import ShapeFit
from ...imaging.resample import sample
from .canonical import SIZE, CanonicalSpace, Pose2D, grow

ROTATED_YAW = 15.0
"""Degrees of head turn from which the surface is used: below, plates in the picture say the same, and cost less."""
_SLIDING = 15.0
"""Degrees from which the far half of the jaw's landmarks mark the outline and no longer the jaw."""
_FAR = 100.0
"""Distance of the camera in inter-ocular distances: far enough for weak perspective, which the fit assumes."""
_CONTROLS = 90


class RotatedFace:
    """The frame's grid on one face.

    Args:
        anchors: the face's 75 points in space ``(75, 3)`` in the shape model's axes, before ``fit`` turns them.
        shape: its measured landmarks ``(68, 2)`` in IOD units.
        triangles: over the nodes of the grid that belong to the face ``(F, 3)``, counter-clockwise from outside.

    Attributes:
        hidden_jaw: numbers of the jaw's landmarks that mark the outline of a turned head instead.
    """

    def __init__(
        self, frame: CanonicalSpace, anchors: np.ndarray, fit: ShapeFit, shape: np.ndarray, triangles: np.ndarray
    ) -> None:
        self._frame, self._triangles = frame, torch.from_numpy(triangles)
        far = np.arange(9, 17) if fit.yaw > 0 else np.arange(8)
        self.hidden_jaw = far if abs(fit.yaw) > _SLIDING else far[:0]
        missed = shape - fit.project(anchors)[:68]
        missed[self.hidden_jaw] = 0.0
        space = frame.lift(anchors)
        flat = fit.project(space.reshape(-1, 3)).reshape(*space.shape[:2], 2) + frame.lift(_with_zeros(missed))
        self._grid = flat
        self._depth = torch.from_numpy(_FAR - space @ fit.rotation[2]).float()

    def unwrap(self, image: Tensor, pose: Pose2D) -> Tensor:
        """Carry the face into the frame, ``(1, C, 256, 256)``; see ``CanonicalSpace.unwrap``."""
        where = torch.from_numpy(pose.to_picture(self._grid)).float().movedim(-1, 0)[None]
        return sample(image, grow(where, SIZE)[0].movedim(0, -1))

    def locate(self, pose: Pose2D, moves: np.ndarray, height: int, width: int) -> Tensor:
        """For each pixel of the picture with landmarks moved by ``moves`` ``(68, 2)`` IOD, where it lies in the frame.

        Returns:
            ``(height, width, 2)`` in pixels of the frame; far outside of it where the face is not seen.
        """
        flat = torch.from_numpy(pose.to_picture(self._moved(moves))).float().reshape(1, -1, 2)
        depth = self._depth.reshape(1, -1)
        faces = rasterize(flat, depth, self._triangles, height, width)
        rows, columns = self._grid.shape[:2]
        nodes = torch.stack(
            torch.meshgrid(
                torch.linspace(0.5, SIZE - 0.5, columns), torch.linspace(0.5, SIZE - 0.5, rows), indexing="xy"
            ),
            -1,
        )
        found = interpolate(nodes.reshape(1, -1, 2), flat, depth, self._triangles, faces)[0].movedim(0, -1)
        return torch.where((faces[0] >= 0)[..., None], found, -4.0 * SIZE)

    def controls(self, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the surface that are seen, after and before landmarks move by ``moves``: each ``(P, 2)`` in IOD
        units."""
        after = self._moved(moves).reshape(-1, 2)
        view = torch.from_numpy((after - after.min(0)) / max(float(np.ptp(after, axis=0).max()), 1e-6) * 128).float()[
            None
        ]
        faces = rasterize(view, self._depth.reshape(1, -1), self._triangles, 128, 128)
        seen = self._triangles[faces[faces >= 0].unique()].unique().numpy()
        chosen = seen[:: max(1, len(seen) // _CONTROLS)]
        return after[chosen], self._grid.reshape(-1, 2)[chosen]

    def _moved(self, moves: np.ndarray) -> np.ndarray:
        return np.asarray(self._grid + self._frame.lift(_with_zeros(moves)))


def _with_zeros(values: np.ndarray) -> np.ndarray:
    """Values at 68 landmarks with zeros for the seven hairline points."""
    return np.concatenate([values, np.zeros((7, values.shape[1]))])
