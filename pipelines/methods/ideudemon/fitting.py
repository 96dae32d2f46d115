"""Fit HeadNeRF to a photo: its codes, and small corrections of the camera (section 3.1).

    loss    squared error inside the head's mask, and against white outside of it and on the bare background
            + difference of features + 0.001 camera + 0.001 identity + 1.0 expression + 0.001 appearance

The last four are means of squares of the corrections. Learning rates and weights are those of HeadNeRF's authors. They
start from the codes of a nonlinear 3DMM. Here the pose comes from our own 3DMM and the codes start at the average head,
so the expression is less bound to its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...core.progress import Progress, silent
from ...training.perceptual import Features
from .cameras import NerfCamera
from .headnerf import HeadCodes, HeadNeRF

ITERATIONS = 300
_RATES = {"identity": 0.015, "expression": 0.015, "appearance": 0.01, "angles": 0.001, "shift": 0.001}
_DECAY, _DECAY_AFTER = 0.1, 300
"""The rates fall to this share after so many iterations."""
_CAMERA_WEIGHT, _IDENTITY_WEIGHT, _APPEARANCE_WEIGHT = 1e-3, 1e-3, 1e-3
EXPRESSION_WEIGHT = 0.01
"""Weight of the expression where the fit starts from the average head."""
FITTED_EXPRESSION_WEIGHT = 1.0
"""Its weight where the start is already fitted, as in the reference."""
PATIENCE, MIN_GAIN = 25, 0.002
"""The fit stops early when the loss fell by less than this share in so many iterations."""


@dataclass(frozen=True)
class HeadFit:
    """A fitted head.

    Attributes:
        codes, camera: what draws it.
        image: the drawing ``(1, 3, S, S)`` in [0, 1].
        losses: of each iteration.
    """

    codes: HeadCodes
    camera: NerfCamera
    image: Tensor
    losses: Sequence[float]


def fit_head(
    network: HeadNeRF,
    image: Tensor,
    mask: Tensor,
    codes: HeadCodes,
    camera: NerfCamera,
    features: Features | None,
    iterations: int = ITERATIONS,
    expression_weight: float = EXPRESSION_WEIGHT,
    progress: Progress = silent,
) -> HeadFit:
    """Fit one head.

    Args:
        network: with weights that were made outside of inference mode.
        image: ``(1, 3, S, S)``, RGB in [0, 1], S the network's image size.
        mask: of the head with its hair, ``(1, 1, S, S)``.
        codes, camera: to start from, one row.
        features: for the perceptual term; VGG16's in the reference.
        iterations: at most.
        expression_weight: of the expression's correction.
    """
    device = network.neural_render.bg_featmap.device
    # ComfyUI runs nodes in inference mode, whose tensors have no gradients.
    with torch.inference_mode(False), torch.enable_grad():
        goal, head = (part.clone().to(device) for part in (image, (mask >= 0.5).float()))
        goal = goal * head + (1 - head)
        start = HeadCodes(*(part.clone().to(device) for part in codes.parts))
        base = NerfCamera(
            *(part.clone().to(device) for part in (camera.rotation, camera.center, camera.focal, camera.principal))
        )
        moves = _Corrections(device)
        optimizer = torch.optim.Adam([{"params": [moves.of(name)], "lr": rate} for name, rate in _RATES.items()])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _DECAY ** (step / _DECAY_AFTER))
        losses: list[float] = []
        for step in range(iterations):
            progress(step, iterations, "fitting HeadNeRF")
            drawn = network(moves.codes(start), moves.camera(base))
            loss = _image_loss(drawn.image, drawn.background, goal, head, features) + moves.penalty(expression_weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if _is_flat(losses):
                break
        progress(iterations, iterations, "fitting HeadNeRF")
        with torch.no_grad():
            found, seen = moves.codes(start), moves.camera(base)
            image = network(found, seen).image
    return HeadFit(found, seen, image.cpu(), losses)


def _image_loss(drawn: Tensor, background: Tensor, goal: Tensor, head: Tensor, features: Features | None) -> Tensor:
    inside = head.expand_as(drawn) > 0
    loss = functional.mse_loss(drawn[inside], goal[inside]) + (background - 1).square().mean()
    if not bool(inside.all()):
        loss = loss + (drawn[~inside] - 1).square().mean()
    if features is None:
        return loss
    with torch.no_grad():
        wanted = features(goal * 2 - 1)
    pairs = zip(features(drawn * 2 - 1), wanted, strict=True)
    return loss + sum((functional.l1_loss(a, b) for a, b in pairs), torch.zeros((), device=loss.device))


def _is_flat(losses: Sequence[float]) -> bool:
    """Whether the best loss of the last iterations is hardly below the best before them."""
    if len(losses) <= 2 * PATIENCE:
        return False
    before, now = min(losses[:-PATIENCE]), min(losses[-PATIENCE:])
    return now > before * (1 - MIN_GAIN)


class _Corrections:
    """What is added to the codes and the camera."""

    def __init__(self, device: torch.device) -> None:
        sizes = {"identity": 100, "expression": 79, "appearance": 127, "angles": 3, "shift": 3}
        self._values = {n: torch.zeros(1, size, device=device, requires_grad=True) for n, size in sizes.items()}

    def of(self, name: str) -> Tensor:
        return self._values[name]

    def codes(self, start: HeadCodes) -> HeadCodes:
        albedo, light = self.of("appearance").split((100, 27), 1)
        return HeadCodes(
            start.identity + self.of("identity"),
            start.expression + self.of("expression"),
            start.albedo + albedo,
            start.illumination + light,
        )

    def camera(self, base: NerfCamera) -> NerfCamera:
        return base.moved(self.of("angles"), self.of("shift"))

    def penalty(self, expression: float) -> Tensor:
        square = {name: value.square().mean() for name, value in self._values.items()}
        return (
            _CAMERA_WEIGHT * (square["angles"] + square["shift"])
            + _IDENTITY_WEIGHT * square["identity"]
            + expression * square["expression"]
            + _APPEARANCE_WEIGHT * square["appearance"]
        )
