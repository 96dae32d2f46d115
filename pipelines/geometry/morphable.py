"""A 3D morphable model of the face: shape, expression and albedo as linear modes over one mesh (Blanz and Vetter 1999).

Axes: x to the right, y up, z towards the viewer. The built-in model is measured in inter-ocular distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shape_model import ShapeFit


@dataclass(frozen=True)
class MorphableModel:
    """Linear model over ``V`` vertices.

    Attributes:
        mean: ``(V, 3)``.
        identity: ``(K, V, 3)``, coefficients have unit variance.
        expression: ``(E, V, 3)``, one standard deviation each.
        albedo: mean log albedo ``(V, 3)``, RGB, relative to the skin's tone.
        albedo_modes: ``(T, V, 3)``, coefficients have unit variance.
        triangles: ``(F, 3)``, counter-clockwise seen from outside.
        uv: texture coordinates in [0, 1], ``(V, 2)``, v down.
    """

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    albedo: np.ndarray
    albedo_modes: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray

    def vertices(self, identity: np.ndarray | None = None, expression: np.ndarray | None = None) -> np.ndarray:
        """``(V, 3)`` of coefficients; fewer than there are modes leave the rest at zero.

        Raises:
            ValueError: more coefficients than modes.
        """
        return self.mean + _blend(self.identity, identity) + _blend(self.expression, expression)

    def colours(self, coefficients: np.ndarray | None = None, tone: tuple[float, float, float] = (0.80, 0.62, 0.53)) -> np.ndarray:
        """Vertex albedo ``(V, 3)`` in [0, 1] around a skin tone."""
        return np.clip(np.exp(self.albedo + _blend(self.albedo_modes, coefficients)) * np.asarray(tone), 0, 1)

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit vertex normals ``(V, 3)``."""
        corners = vertices[self.triangles]
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.zeros_like(vertices)
        for corner in range(3):
            np.add.at(total, self.triangles[:, corner], faces)
        return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _blend(modes: np.ndarray, coefficients: np.ndarray | None) -> np.ndarray | float:
    if coefficients is None:
        return 0.0
    if len(coefficients) > len(modes):
        raise ValueError(f"{len(coefficients)} coefficients for {len(modes)} modes")
    return np.tensordot(coefficients, modes[: len(coefficients)], 1)


@dataclass(frozen=True)
class Rendering:
    """What a camera sees, each ``(S, S, ...)``.

    Attributes:
        image: RGB in [0, 1].
        mask: True where the mesh is hit.
        depth: z of the hit, in units of the model; 0 where nothing is hit.
        normals: unit vectors in camera axes.
    """

    image: np.ndarray
    mask: np.ndarray
    depth: np.ndarray
    normals: np.ndarray


LIGHT = (0.35, 0.45, 0.82)


def render_model(
    model: MorphableModel, vertices: np.ndarray, colours: np.ndarray, fit: ShapeFit, size: int, ambient: float = 0.45
) -> Rendering:
    """Shade the mesh with one soft light under the weak-perspective camera of ``fit``, whose picture is ``size`` px square."""
    flat = fit.project(vertices)
    turned = vertices @ fit.rotation.T
    normals = model.normals(vertices) @ fit.rotation.T
    face, weights = rasterise(flat, turned[:, 2], model.triangles, size)
    mask = face >= 0
    corners = model.triangles[np.where(mask, face, 0)]

    def spread(values: np.ndarray) -> np.ndarray:
        mixed = (values[corners] * weights[..., None]).sum(2)
        return np.where(mask[..., None], mixed, 0.0)

    normal = spread(normals)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    light = np.asarray(LIGHT) / np.linalg.norm(LIGHT)
    shade = ambient + (1 - ambient) * np.clip(normal @ light, 0, 1)
    return Rendering(np.clip(spread(colours) * shade[..., None], 0, 1), mask, spread(turned[:, 2:])[..., 0], normal)


def rasterise(flat: np.ndarray, depth: np.ndarray, triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which triangle is nearest at each pixel centre.

    Args:
        flat: vertices in pixels ``(V, 2)``, y down.
        depth: ``(V,)``, larger is nearer.

    Returns:
        Triangle index ``(S, S)``, -1 for none, and barycentric weights ``(S, S, 3)``.
    """
    nearest = np.full((size, size), -np.inf)
    face = np.full((size, size), -1)
    weights = np.zeros((size, size, 3))
    corners = flat[triangles]
    low = np.clip(np.floor(corners.min(1) - 0.5).astype(int), 0, size)
    high = np.clip(np.ceil(corners.max(1) + 0.5).astype(int), 0, size)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    # In pixels with y down, triangles that face the viewer turn clockwise.
    for t in np.flatnonzero((area < -1e-9) & (high > low).all(1)):
        x, y = np.meshgrid(np.arange(low[t, 0], high[t, 0]) + 0.5, np.arange(low[t, 1], high[t, 1]) + 0.5)
        wa = ((b[t, 0] - x) * (c[t, 1] - y) - (b[t, 1] - y) * (c[t, 0] - x)) / area[t]
        wb = ((c[t, 0] - x) * (a[t, 1] - y) - (c[t, 1] - y) * (a[t, 0] - x)) / area[t]
        w = np.stack([wa, wb, 1 - wa - wb], -1)
        z = w @ depth[triangles[t]]
        window = np.s_[low[t, 1] : high[t, 1], low[t, 0] : high[t, 0]]
        hit = (w >= -1e-9).all(-1) & (z > nearest[window])
        nearest[window][hit], face[window][hit], weights[window][hit] = z[hit], t, w[hit]
    return face, weights
