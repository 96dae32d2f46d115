"""Lift the canonical face space to 3D: make the built-in morphable model from the built-in appearance model.

The shape model's landmarks give the depth, a thin-plate spline interpolates between them, and texture codes give the
albedo. The expression directions are projected out of the identity modes, so two shapes that differ only by an
expression have the same identity coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ...faces.align import five_points
from ...geometry.alignment import STANDARD
from ...geometry.builtin import NAME
from ...geometry.morphable import MorphableModel
from ...imaging.resample import sample
from ...imaging.warp import thin_plate
from .canonical import FOREHEAD, PX, REGIONS, SIZE, X0, Y0, CanonicalSpace, erode, to_pixels
from .network import AppearanceModel
from .surface import RIM, grid_triangles, with_hairline

ALBEDO_MODES = 12
"""Albedo modes per region."""
TONE = (0.80, 0.62, 0.53)
"""Mean skin albedo, RGB."""
_SLIVER = 0.05
"""Grid triangles smaller than this share of the median area are removed."""


def morphable_model_of(appearance: AppearanceModel) -> MorphableModel:
    """Make a 3D morphable model from an appearance model."""
    canonical, shapes = appearance.canonical, appearance.shapes
    rows = len(canonical.to_grid(np.zeros((75, 1))))
    triangles = grid_triangles(canonical, rows)
    axis = np.linspace(0.5, SIZE - 0.5, rows)
    nodes = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2) / PX + [X0, Y0]
    nodes = _smooth_rim(canonical, nodes, triangles)
    u, v = (nodes[triangles[:, i]] - nodes[triangles[:, 0]] for i in (1, 2))
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    # Some triangles at the rim are degenerate or inverted.
    triangles = triangles[area / np.median(area) > _SLIVER]
    landmarks, weights = _on_grid(canonical.mean, nodes, rows)
    used = np.unique(triangles)
    renumber = np.full(len(nodes), -1)
    renumber[used] = np.arange(len(used))
    spline = thin_plate(torch.from_numpy(canonical.anchors), torch.from_numpy(nodes[used]), 2e-3).numpy()
    align = _alignment(five_points(shapes.mean))

    def dense(points: np.ndarray) -> np.ndarray:
        return align.rotate(spline @ with_hairline(appearance, points, False))

    expressions = _expressions(appearance)
    moves = np.stack(list(expressions.values()))
    codes = moves.reshape(len(moves), -1) @ np.linalg.pinv(shapes.modes.reshape(len(shapes.modes), -1))
    basis, _ = np.linalg.qr(codes.T)
    identity = np.tensordot(np.eye(len(basis)) - basis @ basis.T, shapes.modes, 1)
    pixels = to_pixels(nodes[used])
    albedo, albedo_modes = _albedo(
        appearance, torch.from_numpy(to_pixels(_move_inward(canonical, nodes[used]))).float()
    )
    return MorphableModel(
        name=NAME,
        mean=_tensor(align(spline @ with_hairline(appearance, shapes.mean))),
        identity=_tensor(np.stack([dense(m) for m in identity])),
        expression=_tensor(np.stack([dense(m) for m in moves])),
        texture_mean=_tensor(albedo + np.log(TONE)),
        texture=_tensor(albedo_modes),
        triangles=torch.from_numpy(renumber[triangles]),
        landmarks=torch.from_numpy(renumber[landmarks]),
        landmark_weights=_tensor(weights),
        uv=_tensor(pixels / SIZE),
        texture_scale="log",
        expressions=tuple(expressions),
    )


def _smooth_rim(canonical: CanonicalSpace, nodes: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Move the grid nodes ``(R * R, 2)`` at the mesh border onto the face outline, which removes the staircase of grid
    cells."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    pairs, count = np.unique(edges, axis=0, return_counts=True)
    border = np.unique(pairs[count == 1])
    moved = nodes.copy()
    moved[border] = _nearest(_outline(canonical, RIM), nodes[border])
    return moved


def _move_inward(canonical: CanonicalSpace, points: np.ndarray) -> np.ndarray:
    """Move points at the rim inward, because the training faces have no skin texture outside the outline."""
    pixel = to_pixels(points).astype(int).clip(0, SIZE - 1)
    outside = erode(canonical.face, RIM)[0, 0].numpy()[pixel[:, 1], pixel[:, 0]] < 0.5
    moved = points.copy()
    moved[outside] = _nearest(_outline(canonical, -RIM), points[outside])
    return moved


def _outline(canonical: CanonicalSpace, offset: float) -> np.ndarray:
    """Compute the jaw and hairline of the mean face as a closed polyline, moved outward by ``offset`` IOD."""
    ring = np.concatenate([canonical.mean[0:17], FOREHEAD[::-1], canonical.mean[:1]])
    ring = np.concatenate([np.linspace(p, q, 20, endpoint=False) for p, q in pairwise(ring)])
    outward = ring - ring.mean(0)
    return np.asarray(ring + offset * outward / np.linalg.norm(outward, axis=1, keepdims=True))


def _nearest(line: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.asarray(line[np.linalg.norm(points[:, None] - line[None], axis=2).argmin(1)])


@dataclass(frozen=True)
class _Alignment:
    """Similarity transform from IOD units to the standard coordinates of morphable models."""

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix.T + self.shift

    def rotate(self, moves: np.ndarray) -> np.ndarray:
        """Rotate and scale displacements, without the shift."""
        return moves @ self.matrix.T


def _alignment(five: np.ndarray) -> _Alignment:
    """Fit rotation, scale and shift from the mean face's five points ``(5, 3)`` to those of the standard face (Umeyama
    1991)."""
    center, target = five.mean(0), STANDARD.mean(0)
    u, d, vt = np.linalg.svd((STANDARD - target).T @ (five - center))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    matrix = (d * np.diag(sign)).sum() / ((five - center) ** 2).sum() * (u @ sign @ vt)
    return _Alignment(matrix, target - matrix @ center)


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _on_grid(points: np.ndarray, nodes: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the grid triangle around each point ``(68, 2)``: three of the nodes ``(R * R, 2)`` and their weights."""
    cell = np.clip(np.floor((to_pixels(points) - 0.5) / (SIZE - 1) * (rows - 1)).astype(int), 0, rows - 2)
    first = cell[:, 1] * rows + cell[:, 0]
    # Each cell is split along the diagonal from its upper right to its lower left corner.
    halves = np.stack([first[:, None] + [0, 1, rows], first[:, None] + [rows + 1, rows, 1]])
    shares = np.stack([_barycentric(points, nodes[corners]) for corners in halves])
    better = shares.min(2).argmax(0)
    row = np.arange(len(points))
    return halves[better, row], shares[better, row]


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Compute barycentric coordinates ``(N, 3)`` of points ``(N, 2)`` in triangles ``(N, 3, 2)``."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    u, v, w = b - a, c - a, points - a
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    second, third = (w[:, 0] * v[:, 1] - w[:, 1] * v[:, 0]) / area, (u[:, 0] * w[:, 1] - u[:, 1] * w[:, 0]) / area
    return np.stack([1 - second - third, second, third], 1)


def _expressions(appearance: AppearanceModel) -> dict[str, np.ndarray]:
    """Define landmark displacements ``(68, 3)`` in IOD for one standard deviation of each expression."""
    mean = appearance.shapes.mean
    moves = {
        name: np.zeros((68, 3))
        for name in ("jaw open", "mouth wide", "smile", "brows up", "brows together", "eyes closed", "wink")
    }
    jaw = moves["jaw open"]
    jaw[3:14, 1] = -0.09 * np.sin(np.linspace(0, np.pi, 11))
    jaw[[55, 56, 57, 58, 59, 65, 66, 67], 1] = -0.09
    jaw[[48, 54, 60, 64], 1], jaw[[48, 60], 0], jaw[[54, 64], 0] = -0.03, 0.012, -0.012
    for name, out, up, back in (("mouth wide", 0.06, 0.0, -0.03), ("smile", 0.035, 0.07, -0.03)):
        # A lip point moves in proportion to its distance from the midline.
        across = (mean[48:68, 0] - mean[51, 0]) / (mean[54, 0] - mean[51, 0])
        moves[name][48:68] = np.stack([out * across, up * np.abs(across) ** 2, back * np.abs(across)], 1)
    moves["brows up"][17:27, 1] = 0.07
    together = moves["brows together"]
    together[[20, 21, 22, 23], 1] = -0.045
    together[[20, 21], 0], together[[22, 23], 0] = 0.02, -0.02
    lids, wink = moves["eyes closed"], moves["wink"]
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        gap = mean[upper] - mean[lower]
        lids[upper], lids[lower] = -0.28 * gap, 0.07 * gap
    wink[36:42], wink[42:48] = lids[36:42], -lids[42:48]
    return moves


def _albedo(appearance: AppearanceModel, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Sample the mean log albedo ``(V, 3)`` and its modes ``(M, V, 3)`` at canonical pixels ``(V, 2)``."""

    def at_vertices(codes: dict[str, np.ndarray]) -> np.ndarray:
        return sample(appearance.decode(codes), pixels[None])[0, :, 0].T.double().numpy()

    zero = {n: np.zeros(appearance.regions[n].components) for n in REGIONS}
    mean = at_vertices(zero)
    modes = []
    for name in REGIONS:
        region = appearance.regions[name]
        for direction in region.residual[: region.components, :ALBEDO_MODES].T:
            modes.append(at_vertices(zero | {name: direction}) - mean)
    return mean, np.stack(modes)
