"""Semantic sliders for any morphable model, such as face width, nose length or a smile.

Each slider is a linear measure of the 68 landmarks. The modes of a model have no names, but their effect on each
measure is known. A slider applies the smallest change of the coefficients that changes its own measure by one standard
deviation and leaves the other measures unchanged.

There is none for opening the jaw, closing the eyes or filling the lips: a photo shows no inner mouth and no lid to
move, and lips that touch cannot be pulled apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..core.errors import InputError
from .coefficients import Coefficients
from .morphable import MorphableModel

# One term of a measure, which is a weighted sum of landmark coordinates: (landmark, axis, weight).
_Term = tuple[int, int, float]
SHAPE: dict[str, tuple[_Term, ...]] = {
    "face width": ((16, 0, 1), (0, 0, -1)),
    "jaw width": ((12, 0, 1), (4, 0, -1)),
    "face length": ((27, 1, 1), (8, 1, -1)),
    "chin": ((57, 1, 1), (8, 1, -1)),
    "eye distance": ((42, 0, 1), (39, 0, -1)),
    "eye size": ((39, 0, 1), (36, 0, -1), (45, 0, 1), (42, 0, -1)),
    "nose length": ((27, 1, 1), (33, 1, -1)),
    "nose width": ((35, 0, 1), (31, 0, -1)),
    "nose depth": ((30, 2, 1), (31, 2, -0.5), (35, 2, -0.5)),
    "mouth width": ((54, 0, 1), (48, 0, -1)),
    "brow height": ((19, 1, 1), (24, 1, 1), (37, 1, -1), (44, 1, -1)),
}
EXPRESSION: dict[str, tuple[_Term, ...]] = {
    "smile": ((48, 1, 1), (54, 1, 1), (51, 1, -1), (57, 1, -1)),
    "mouth wide": ((54, 0, 1), (48, 0, -1)),
    "brows up": ((19, 1, 1), (24, 1, 1), (27, 1, -2)),
}
_RIDGE = 0.02
"""Regularization of the least-squares problem."""


def apply_sliders(model: MorphableModel, coefficients: Coefficients, sliders: Mapping[str, float]) -> Coefficients:
    """Change coefficients by sliders.

    Args:
        sliders: key of ``SHAPE`` or ``EXPRESSION`` to the change, in standard deviations of the measure over the
            population; 0 changes nothing. A slider has no effect if the model has no mode that changes its measure.

    Raises:
        InputError: a slider name is unknown, or the coefficients belong to another model.
    """
    if coefficients.model != model.name:
        raise InputError(
            f"these coefficients belong to the model {coefficients.model}, not to {model.name}; estimate them again"
        )
    if unknown := set(sliders) - set(SHAPE) - set(EXPRESSION):
        raise InputError(
            f"{', '.join(sorted(unknown))} is not a slider; choose from {', '.join([*SHAPE, *EXPRESSION])}"
        )
    _, identity, expression = model.landmark_modes
    shape = coefficients.identity + _change(identity, SHAPE, sliders).to(coefficients.identity)
    face = coefficients.expression + _change(expression, EXPRESSION, sliders).to(coefficients.expression)
    return replace(coefficients, identity=shape, expression=face.clamp(*model.expression_range))


def _change(modes: Tensor, measures: Mapping[str, tuple[_Term, ...]], sliders: Mapping[str, float]) -> Tensor:
    """Compute the change of the coefficients ``(K,)`` of landmark modes ``(K, 68, 3)``."""
    if not len(modes):
        return torch.zeros(0)
    effect = torch.stack(
        [
            sum((weight * modes[:, point, axis] for point, axis, weight in terms), torch.zeros(len(modes)))
            for terms in measures.values()
        ]
    )
    spread = effect.norm(dim=1, keepdim=True)
    # Scale each measure to unit standard deviation. Measures that no mode changes are set to zero.
    effect = torch.where(spread > 1e-6, effect / spread.clamp(min=1e-6), 0.0)
    wanted = torch.tensor([float(sliders.get(name, 0.0)) for name in measures])
    return effect.T @ torch.linalg.solve(effect @ effect.T + _RIDGE * torch.eye(len(effect)), wanted)
