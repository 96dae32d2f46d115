"""A 3D morphable model of the face: shape, expression and texture as linear modes over one mesh (Blanz and Vetter
1999).

All models use the coordinate system of Deep3DFaceRecon: decimeters, x to the right, y up, z towards the viewer, the
origin in the middle of the head. Therefore all models share one camera, one alignment and one lighting model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from ..core.errors import InputError

LANDMARKS = 68
TextureScale = Literal["linear", "log"]


@dataclass(frozen=True)
class MorphableModel:
    """Linear model over ``V`` vertices.

    Attributes:
        name: name of the model; coefficients of different models cannot be mixed.
        mean: ``(V, 3)``.
        identity: ``(K, V, 3)``; coefficients have unit variance.
        expression: ``(E, V, 3)``.
        texture_mean: albedo ``(V, 3)``, RGB in [0, 1], or its logarithm.
        texture: ``(T, V, 3)``; coefficients have unit variance.
        triangles: ``(F, 3)``, counter-clockwise as seen from outside.
        landmarks, landmark_weights: three vertices of each iBUG point and their barycentric weights, ``(68, 3)``.
        uv: texture coordinates in [0, 1], ``(V, 2)``, v down.
        texture_scale: whether the texture modes are added to the albedo (linear) or to its logarithm (log).
        expressions: names of the expression modes.
        landmark_offsets: of each iBUG point from the mesh ``(68, 3)``, for models whose points are defined otherwise
            than the detector's.
        expression_range: valid range of expression coefficients: about +-3 for modes of unit variance, 0 to 1 for
            blend shapes.

    Raises:
        InputError: shapes do not match, values are not finite, or indices exceed the number of vertices.
    """

    name: str
    mean: Tensor
    identity: Tensor
    expression: Tensor
    texture_mean: Tensor
    texture: Tensor
    triangles: Tensor
    landmarks: Tensor
    landmark_weights: Tensor
    uv: Tensor
    texture_scale: TextureScale = "linear"
    expressions: tuple[str, ...] = ()
    expression_range: tuple[float, float] = (-3.0, 3.0)
    landmark_offsets: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.mean)
        shapes = {
            "mean": (self.mean, (count, 3)),
            "identity": (self.identity[:0], (0, count, 3)),
            "expression": (self.expression[:0], (0, count, 3)),
            "texture_mean": (self.texture_mean, (count, 3)),
            "texture": (self.texture[:0], (0, count, 3)),
            "triangles": (self.triangles[:0], (0, 3)),
            "landmarks": (self.landmarks, (LANDMARKS, 3)),
            "landmark_weights": (self.landmark_weights, (LANDMARKS, 3)),
            "uv": (self.uv, (count, 2)),
        }
        if self.landmark_offsets is not None:
            shapes["landmark_offsets"] = (self.landmark_offsets, (LANDMARKS, 3))
        for part, (tensor, expected) in shapes.items():
            if tuple(tensor.shape) != expected:
                raise InputError(
                    f"the morphable model {self.name} is damaged: {part} has the shape"
                    f" {tuple(getattr(self, part).shape)}; get a fresh copy"
                )
        for part in ("mean", "identity", "expression", "texture_mean", "texture", "landmark_weights", "uv"):
            if not bool(torch.isfinite(getattr(self, part)).all()):
                raise InputError(
                    f"the morphable model {self.name} is damaged: {part} holds values that are not finite; get a fresh"
                    " copy"
                )
        for part in ("triangles", "landmarks"):
            index: Tensor = getattr(self, part)
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise InputError(
                    f"the morphable model {self.name} is damaged: {part} refer to vertices beyond its {count}; get a"
                    " copy with the original topology"
                )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of identity, expression and texture modes."""
        return len(self.identity), len(self.expression), len(self.texture)

    def to(self, device: torch.device | str) -> MorphableModel:
        """Copy the model to another device."""
        moved: dict[str, Any] = {
            f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Compute vertices ``(N, V, 3)`` from identity ``(N, K)`` and expression ``(N, E)`` coefficients."""
        return self.mean + _blend(self.identity, identity) + _blend(self.expression, expression)

    def colors(self, texture: Tensor) -> Tensor:
        """Compute the albedo ``(N, V, 3)`` from texture coefficients ``(N, T)``."""
        value = self.texture_mean + _blend(self.texture, texture)
        return value.exp() if self.texture_scale == "log" else value

    def normals(self, vertices: Tensor) -> Tensor:
        """Compute vertex normals ``(N, V, 3)``: the normalized sum of the unit normals of the adjacent triangles."""
        corners = self.triangles.T.reshape(-1)
        a, b, c = vertices.index_select(1, corners).unflatten(1, (3, -1)).unbind(1)
        faces = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        total = torch.zeros_like(vertices).index_add(1, corners, faces.repeat(1, 3, 1))
        return torch.nn.functional.normalize(total, dim=-1)

    def landmark_points(self, vertices: Tensor) -> Tensor:
        """Compute the iBUG landmarks ``(N, 68, 3)`` of vertices ``(N, V, 3)``."""
        return (vertices[:, self.landmarks] * self.landmark_weights[..., None]).sum(2)

    @cached_property
    def landmark_modes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean ``(68, 3)``, identity ``(K, 68, 3)`` and expression modes ``(E, 68, 3)`` at the iBUG landmarks."""
        mean = self.landmark_points(self.mean[None])[0]
        return (
            mean if self.landmark_offsets is None else mean + self.landmark_offsets,
            self.landmark_points(self.identity),
            self.landmark_points(self.expression),
        )


def _blend(modes: Tensor, coefficients: Tensor) -> Tensor:
    """Compute offsets ``(N, V, 3)`` from modes ``(K, V, 3)`` and coefficients ``(N, K)``."""
    return (coefficients @ modes.flatten(1)).unflatten(1, modes.shape[1:])


def triangulate(polygons: list[list[int]]) -> Tensor:
    """Split polygons into triangle fans ``(F, 3)``."""
    return torch.tensor([(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)], dtype=torch.long)
