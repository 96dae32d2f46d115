"""The built-in morphable model: the appearance model's frame as a surface in space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...faces.sampling import sample
from ...geometry.morphable import MorphableModel
from ...geometry.shape_model import ShapeFit
from .frame import REGIONS, SIZE
from .layers import MEASURES
from .network import LABELS, PATTERN, AppearanceModel

ALBEDO_MODES = 12
"""Modes of the albedo from each region."""
EXPRESSIONS = ("mouth gap", "mouth width", "mouth curve")
_HAIRLINE_DEPTH = (-0.42, -0.16, 0.00, 0.05, 0.00, -0.16, -0.42)


def facing(appearance: AppearanceModel, fit: ShapeFit) -> Tensor:
    """How squarely each pixel of the frame faces the viewer of ``fit``: cosine in [-1, 1], ``(1, 1, 256, 256)``."""
    points = appearance.frame.lift(_with_hairline(appearance, appearance.shapes.shape(fit.coefficients)) @ fit.rotation.T)
    normal = np.cross(np.gradient(points, axis=0), np.gradient(points, axis=1))
    cosine = normal[..., 2] / np.maximum(np.linalg.norm(normal, axis=-1), 1e-9)
    small = torch.from_numpy(cosine).float()[None, None]
    return torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def built_in_morphable_model(appearance: AppearanceModel) -> MorphableModel:
    """Lift the frame: landmarks give depth, thin plates fill in between, texture codes give albedo."""
    mean = appearance.frame.lift(_with_hairline(appearance, appearance.shapes.mean))
    rows, columns = mean.shape[:2]
    axis = (np.arange(rows) + 0.5) / rows
    uv = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    pixel = (uv * SIZE).astype(int)
    inside = appearance.frame.face[0, 0].numpy()[pixel[:, 1], pixel[:, 0]] > 0.5
    triangles = _triangles(inside.reshape(rows, columns))
    used = np.unique(triangles)
    renumber = np.full(rows * columns, -1)
    renumber[used] = np.arange(len(used))

    def dense(points: np.ndarray, depth: bool) -> np.ndarray:
        return appearance.frame.lift(_with_hairline(appearance, points, depth)).reshape(-1, 3)[used]

    modes = np.stack([dense(mode, False) for mode in appearance.shapes.modes])
    albedo, albedo_modes = _albedo(appearance, torch.from_numpy(uv[used] * SIZE).float())
    expression = np.tensordot(_expression_codes(appearance), modes, 1)
    return MorphableModel(mean.reshape(-1, 3)[used], modes, expression, albedo, albedo_modes, renumber[triangles], uv[used])


def _with_hairline(appearance: AppearanceModel, points: np.ndarray, depth: bool = True) -> np.ndarray:
    """Add the seven hairline points to 68 points in space, ``(75, 3)``, y up."""
    flat = points[:, :2] * [1, -1]
    carried = appearance.frame.extend(flat)[68:] * [1, -1]
    forehead = np.concatenate([carried, np.array(_HAIRLINE_DEPTH)[:, None] * float(depth)], 1)
    return np.concatenate([points, forehead])


def _triangles(inside: np.ndarray) -> np.ndarray:
    rows, columns = inside.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    whole = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1] & inside[1:, 1:]
    # Rows run downwards, so this order is counter-clockwise seen from the front.
    return np.concatenate([np.stack([a, c, b], -1)[whole], np.stack([b, c, d], -1)[whole]])


def _expression_codes(appearance: AppearanceModel) -> np.ndarray:
    """What one standard deviation of each mouth measure does to the shape code, ``(E, S)``."""
    region = appearance.regions["mouth"]
    first = len(LABELS) + PATTERN
    rows = [first + MEASURES.index(name) for name in EXPRESSIONS]
    return region.regress[rows, region.components :].astype(np.float64)


def _albedo(appearance: AppearanceModel, pixels: Tensor) -> tuple[np.ndarray, np.ndarray]:
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
