"""Sliders that an artist understands: a face made wider, a nose longer, a mouth opened, for any morphable model.

Each slider is a measure of the 68 landmarks. Modes of a model have no names, but what they do to the measures is known:
the least change of the coefficients that moves one measure by one standard deviation, and leaves the others as they
are, is the
slider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import InputError
from .coefficients import Coefficients
from .morphable import MorphableModel

# How a measure adds up from coordinates of landmarks: (landmark, axis, share).
_Part = tuple[int, int, float]
SHAPE: dict[str, tuple[_Part, ...]] = {
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
    "lip fullness": ((51, 1, 1), (62, 1, -1), (66, 1, 1), (57, 1, -1)),
    "brow height": ((19, 1, 1), (24, 1, 1), (37, 1, -1), (44, 1, -1)),
}
EXPRESSION: dict[str, tuple[_Part, ...]] = {
    "jaw open": ((62, 1, 1), (66, 1, -1)),
    "smile": ((48, 1, 1), (54, 1, 1), (51, 1, -1), (57, 1, -1)),
    "mouth wide": ((54, 0, 1), (48, 0, -1)),
    "eyes closed": ((41, 1, 1), (37, 1, -1), (46, 1, 1), (44, 1, -1)),
    "brows up": ((19, 1, 1), (24, 1, 1), (27, 1, -2)),
}
_RIDGE = 0.02


def moved(model: MorphableModel, coefficients: Coefficients, sliders: Mapping[str, float]) -> Coefficients:
    """Coefficients with sliders moved.

    Args:
        sliders: name of ``SHAPE`` or ``EXPRESSION`` to standard deviations among people; 0 leaves it. A slider that a
            model cannot move, because it has no such mode, does nothing.

    Raises:
        InputError: a slider is unknown, or the coefficients belong to another model.
    """
    if coefficients.model != model.name:
        raise InputError(
            f"these coefficients belong to the model {coefficients.model}, not to {model.name}; estimate them again"
        )
    if unknown := set(sliders) - set(SHAPE) - set(EXPRESSION):
        raise InputError(f"{', '.join(sorted(unknown))} is no slider; there are {', '.join([*SHAPE, *EXPRESSION])}")
    _, identity, expression = model.skeleton
    shape = coefficients.identity + _change(identity, SHAPE, sliders).to(coefficients.identity)
    face = coefficients.expression + _change(expression, EXPRESSION, sliders).to(coefficients.expression)
    return replace(coefficients, identity=shape, expression=face.clamp(*model.expression_range))


def _change(modes: Tensor, measures: Mapping[str, tuple[_Part, ...]], sliders: Mapping[str, float]) -> Tensor:
    """What to add to coefficients ``(K,)`` of modes ``(K, 68, 3)``."""
    if not len(modes):
        return torch.zeros(0)
    effect = torch.stack(
        [
            sum((share * modes[:, point, axis] for point, axis, share in parts), torch.zeros(len(modes)))
            for parts in measures.values()
        ]
    )
    spread = effect.norm(dim=1, keepdim=True)
    # In standard deviations of each measure; those that no mode moves are left out.
    effect = torch.where(spread > 1e-6, effect / spread.clamp(min=1e-6), 0.0)
    wanted = torch.tensor([float(sliders.get(name, 0.0)) for name in measures])
    return effect.T @ torch.linalg.solve(effect @ effect.T + _RIDGE * torch.eye(len(effect)), wanted)
