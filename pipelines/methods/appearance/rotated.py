"""Rotated heads: the canonical face space as a surface in 3D, so pixels behind nose and far cheek stay unchanged.

On a frontal face, a thin-plate spline between the image landmarks maps the canonical face space well. On a rotated
head, the image mapping folds: the far cheek is narrow, the nose occludes a part of it, and the jaw landmarks slide
along the outline. Here the thin-plate spline is defined in canonical face space, where every face is frontal, and maps
to the fitted 3D shape. The camera of the fit then rotates it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry.rasterizer import rasterize
from ...geometry.renderer import interpolate
from ...geometry.shape_model import ShapeFit
from ...imaging.resample import sample
from .canonical import SIZE, CanonicalSpace, Pose2D, upsample

ROTATED_YAW = 15.0
"""Yaw in degrees from which the surface is used. Below, a spline in the image gives the same result at less cost."""
_SLIDING_YAW = 15.0
"""Yaw in degrees from which the jaw landmarks of the far half lie on the outline and not on the jaw."""
_CAMERA_DISTANCE = 100.0
"""Camera distance in IOD, large enough for the weak perspective that the fit assumes."""
_CONTROL_STEP = 5
"""Every fifth node of every fifth row is a control point where it is visible: about 90. A choice by number among the
visible ones would differ from frame to frame, and so would the face."""


class RotatedFace:
    """The canonical grid on one rotated face.

    Args:
        canonical: the canonical face space.
        anchors: 75 points of the face in the shape model's axes, before the rotation of ``fit``, ``(75, 3)``.
        fit: of the shape model.
        shape: detected landmarks ``(68, 2)`` in IOD units.
        triangles: over the grid nodes on the face, ``(F, 3)``, counter-clockwise from outside.

    Attributes:
        hidden_jaw: indices of the jaw landmarks that lie on the outline of the rotated head.
    """

    def __init__(
        self, canonical: CanonicalSpace, anchors: np.ndarray, fit: ShapeFit, shape: np.ndarray, triangles: np.ndarray
    ) -> None:
        self._frame, self._triangles = canonical, torch.from_numpy(triangles)
        far_jaw = np.arange(9, 17) if fit.yaw > 0 else np.arange(8)
        self.hidden_jaw = far_jaw if abs(fit.yaw) > _SLIDING_YAW else far_jaw[:0]
        residual = shape - fit.project(anchors)[:68]
        residual[self.hidden_jaw] = 0.0
        points = canonical.to_grid(anchors)
        flat = fit.project(points.reshape(-1, 3)).reshape(*points.shape[:2], 2) + canonical.to_grid(
            _with_zeros(residual)
        )
        self._grid = flat
        self._depth = torch.from_numpy(_CAMERA_DISTANCE - points @ fit.rotation[2]).float()
        rows, columns = (range(_CONTROL_STEP // 2, n, _CONTROL_STEP) for n in flat.shape[:2])
        self._control = (np.array(rows)[:, None] * flat.shape[1] + np.array(columns)).ravel()

    def unwrap(self, image: Tensor, pose: Pose2D) -> Tensor:
        """Warp the face to the canonical face space, ``(1, C, 256, 256)``; see ``CanonicalSpace.unwrap``."""
        where = torch.from_numpy(pose.to_image(self._grid)).float().movedim(-1, 0)[None]
        return sample(image, upsample(where, SIZE)[0].movedim(0, -1))

    def locate(self, pose: Pose2D, moves: np.ndarray, height: int, width: int) -> Tensor:
        """Compute the canonical position of each image pixel after landmark displacements ``moves`` ``(68, 2)`` in IOD.

        Returns:
            ``(height, width, 2)`` in canonical pixels; far outside the canonical image where the face is not visible.
        """
        flat = torch.from_numpy(pose.to_image(self._moved(moves))).float().reshape(1, -1, 2)
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

    def control_points(self, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select visible surface points; return them after and before landmark displacements ``moves``, each ``(P, 2)``
        in IOD units."""
        after = self._moved(moves).reshape(-1, 2)
        view = torch.from_numpy((after - after.min(0)) / max(float(np.ptp(after, axis=0).max()), 1e-6) * 128).float()[
            None
        ]
        faces = rasterize(view, self._depth.reshape(1, -1), self._triangles, 128, 128)
        visible = self._triangles[faces[faces >= 0].unique()].unique().numpy()
        chosen = np.intersect1d(self._control, visible, assume_unique=True)
        return after[chosen], self._grid.reshape(-1, 2)[chosen]

    def _moved(self, moves: np.ndarray) -> np.ndarray:
        return np.asarray(self._grid + self._frame.to_grid(_with_zeros(moves)))


def _with_zeros(values: np.ndarray) -> np.ndarray:
    """Append zeros for the seven hairline points to values at 68 landmarks."""
    return np.concatenate([values, np.zeros((7, values.shape[1]))])
