"""Show a new identity in the photo: bend the picture, then multiply it.

The new face is the photo's own pixels, moved to new landmarks and multiplied by ``exp(target detail - fitted detail)``.
So light, color cast, grain and sharpness are the photo's at any resolution, strength 0 is the photo itself, and where
gain and displacement fade to zero the picture stays bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...faces.face import mouth_gap
from ...geometry.shape_model import ShapeFit
from ...imaging.resample import blur, pixel_grid, resize, sample
from ...imaging.warp import thin_plate
from .canonical import REGIONS, Guides, Pose2D, fill, lattice, smooth_step
from .network import AppearanceModel, Codes
from .rotated import ROTATED_YAW, RotatedFace
from .shading import FaceLayers, apply_gain, from_log, measure
from .shape import NO_CORRECTION, Correction, new_shape
from .surface import facing, rotated_face

RINGS = ((1.95, 2.10), (3.0, 3.2))
"""Half axes, in inter-ocular distances around the nose, of the ellipses where the bend has died out."""
REACH = 2.25
"""Half side of the window that a face can change, in inter-ocular distances."""
MAX_LOG_GAIN = 1.6
"""Limit of the log gain: beyond it noise of dark pixels is blown up."""
MAX_BRIGHT_DETAIL = 0.42
"""Soft limit of a target's bright detail: shine comes from the photo's light."""
MIN_DARK_DETAIL = -0.16
"""Limit of what darkens bare skin below the middle of the nose."""
GRAZING = (0.05, 0.25)
"""Cosines between surface and view at which texture starts to show and shows wholly: beyond, a cheek is seen as a
smear."""
WIDE_OPEN = 0.16
"""Lip gap in inter-ocular distances from which the lips' inner edges stay as well: the model saw few shouting faces."""
PAINT = (0.35, 0.80)
"""Log lift from which a pixel is painted instead of multiplied, and at which it is painted wholly."""
FINE, OBJECT = 1.0, 0.35
"""Unexplained detail: finer than FINE pixels of the frame is skin grain, stronger than OBJECT is hair or glasses; both
stay."""


@dataclass(frozen=True)
class Subject:
    """One face of a photo, prepared for any number of new identities.

    Attributes:
        patch: the part of the picture that may change, ``(1, 3, h, w)``.
        points: 68 landmarks in pixels of the window.
        shape: the same in IOD units.
        fit: its 3D explanation.
        layers: light and detail in the frame.
        codes, fitted: the detail's texture codes, and what they decode to.
        marks: features that the model did not explain and that go as well.
        beard: 1 where facial hair grows.
        facing_viewer: 1 where the surface faces the viewer, 0 where a turned head hides it.
        attributes: what the new face shares with this one, ``(A + 1,)``.
        embedding: the recognizer's view of the original.
        turned: the frame's surface on a turned head.
    """

    patch: Tensor
    points: np.ndarray
    pose: Pose2D
    shape: np.ndarray
    fit: ShapeFit
    layers: FaceLayers
    codes: Codes
    fitted: Tensor
    marks: Tensor
    beard: Tensor
    facing_viewer: Tensor
    attributes: np.ndarray
    embedding: np.ndarray
    rotated: RotatedFace | None = None

    def scaled(self, iod: float) -> Subject:
        """The same face in a smaller window, for quick trials; unchanged when it is small already."""
        scale = iod / self.pose.iod
        if scale >= 1:
            return self
        height, width = (max(8, round(n * scale)) for n in self.patch.shape[-2:])
        factor = np.array([width / self.patch.shape[-1], height / self.patch.shape[-2]])
        points = self.points * factor
        return replace(self, patch=resize(self.patch, height, width), points=points, pose=Pose2D.of(points))


def prepare(model: AppearanceModel, window: Tensor, points: np.ndarray, embedding: np.ndarray) -> Subject:
    """Analyze one face; ``points`` in pixels of ``window`` ``(1, 3, h, w)``."""
    # The frame has 83 px an inter-ocular distance: shrink sharper photos first, or the lookup aliases.
    pose = Pose2D.of(points)
    scale = min(1.0, 100.0 / pose.iod)
    small = window if scale == 1 else resize(window, *(max(8, round(n * scale)) for n in window.shape[-2:]))
    factor = np.array([small.shape[-1] / window.shape[-1], small.shape[-2] / window.shape[-2]])
    shape = pose.to_frame(points)
    fit = model.shapes.fit(shape)
    turned = rotated_face(model, fit, shape) if abs(fit.yaw) > ROTATED_YAW else None
    texture = (
        model.frame.unwrap(small, points * factor)
        if turned is None
        else turned.unwrap(small, Pose2D.of(points * factor))
    )
    layers = model.splitter.split(texture)
    measures = measure(model.splitter, texture, layers, shape)
    attributes = model.attributes.vector(embedding, measures)
    expected = {n: model.expected(n, attributes)[: model.regions[n].components] for n in REGIONS}
    codes, fitted = model.explain(layers.detail, layers.visible * model.frame.core, expected)
    return Subject(
        patch=window,
        points=points,
        pose=pose,
        shape=shape,
        fit=fit,
        layers=layers,
        codes=codes,
        fitted=fitted,
        marks=_unexplained(layers, fitted),
        beard=_beard(model.guides, layers),
        facing_viewer=smooth_step(facing(model, fit), *GRAZING),
        attributes=attributes,
        embedding=embedding,
        rotated=turned,
    )


@dataclass(frozen=True)
class Appearance:
    """A target for one photo: texture and shape codes of each region."""

    textures: Codes
    shapes: dict[str, np.ndarray]


def render(
    model: AppearanceModel, subject: Subject, look: Appearance, strength: float, correction: Correction = NO_CORRECTION
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Show ``look`` on ``subject``.

    Args:
        strength: 0 shows the photo, 1 the look, up to 1.5 goes beyond it.

    Returns:
        The new window, the mask of what may differ ``(1, 1, h, w)``, and the new landmarks in pixels of the window.
    """
    shape = new_shape(model.shapes, subject.fit, subject.shape, look.shapes, strength, correction)
    points = subject.pose.to_picture(shape)
    change = frame_change(model, subject, look, strength)
    height, width = subject.patch.shape[-2:]
    field, moved = bend(subject, points)
    if subject.rotated is None:
        where = model.frame.locate(points, (0, 0), height, width)
    else:
        where = subject.rotated.locate(subject.pose, shape - subject.shape, height, width)
    looked = sample(change, where, padding="zeros")
    gain, painted, paint, amount = looked[:, :3], looked[:, 3:6], looked[:, 6:7], looked[:, 7:]
    bent = torch.where(moved, sample(subject.patch, pixel_grid(height, width) + field, "bicubic"), subject.patch)
    changed = torch.lerp(apply_gain(bent, gain), from_log(painted), paint)
    touched = amount > 1e-3
    mask = (touched | moved).float()
    window = torch.where(touched, changed, bent).clamp(0, 1)
    return torch.where(mask > 0, window, subject.patch), mask, points


def frame_change(model: AppearanceModel, subject: Subject, look: Appearance, strength: float) -> Tensor:
    """What happens to each pixel of the frame, ``(1, 8, 256, 256)``.

    Channels: log gain (3); log color of the painted face (3) and its share (1), for places that no gain can lift, such
    as skin where a dark brow was; and where anything changes at all (1).
    """
    frame, guides = model.frame, model.guides
    target = model.clamp(model.decode(look.textures))
    target = _keep_lip_color(guides, subject.layers.detail, target)
    target = _keep_brow_tone(guides, subject, target)
    target = torch.where(target > 0, MAX_BRIGHT_DETAIL * torch.tanh(target / MAX_BRIGHT_DETAIL), target)
    amount = frame.fade * subject.layers.visible * guides.outside_eyes * subject.facing_viewer
    if mouth_gap(subject.points) > 0.016:
        amount = amount * (guides.outside_mouth if mouth_gap(subject.points) < WIDE_OPEN else guides.outside_lips)
    change = (target - subject.fitted - subject.marks) * strength
    # A beard stays a beard: facial hair is not lifted to skin.
    change = torch.lerp(change, change.clamp(max=0.12), subject.beard)
    # And smooth skin stays smooth: a stranger's stubble or shadow under the nose reads as dirt.
    bare = guides.lower_face * (1 - subject.beard)
    change = torch.lerp(change, change.clamp(min=MIN_DARK_DETAIL), bare)
    lift = change.mean(1, keepdim=True)
    paint = smooth_step(lift, *PAINT) * amount
    gain = (change * amount).clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN)
    painted = subject.layers.light + subject.layers.detail + change
    return torch.cat([gain, painted, paint, amount], 1)


def _unexplained(layers: FaceLayers, fitted: Tensor) -> Tensor:
    """Features of the original that the model did not explain: soft marks and folds, not pores, hair or glasses."""
    coarse = blur((layers.detail - fitted) * layers.visible, FINE)
    return coarse * torch.exp(-((coarse.mean(1, keepdim=True) / OBJECT) ** 2))


def _beard(guides: Guides, layers: FaceLayers) -> Tensor:
    return smooth_step(-blur(layers.detail.mean(1, keepdim=True), 2.0), 0.22, 0.5) * guides.beard_zone


def _keep_lip_color(guides: Guides, original: Tensor, target: Tensor) -> Tensor:
    """Pull the lips' darkness 60 % and their color 85 % to the original's: make-up and complexion stay."""
    apart = ((original - target) * guides.lips).sum((2, 3)) / guides.lips.sum()
    tone = apart.mean(1, keepdim=True)
    pull = (0.6 * tone).clamp(-0.35, 0.35) + (0.85 * (apart - tone)).clamp(-0.3, 0.3)
    return target + pull[..., None, None] * guides.around_lips


def _keep_brow_tone(guides: Guides, subject: Subject, target: Tensor) -> Tensor:
    """Give the brows the original's color and, within 30 %, its amount of darkness: they go with hair, sex and age."""
    visible = (subject.layers.visible * 1.5 - 0.5).clamp(0, 1)
    core = guides.brow_core * visible
    if float(core.sum()) < 60:
        return target
    apart = ((subject.layers.detail - target) * core).sum((2, 3)) / core.sum()
    luma = target.mean(1, keepdim=True)
    target = target + (0.6 * apart).clamp(-0.3, 0.3)[..., None, None] * (-luma / 0.35).clamp(0, 1) * guides.around_brows
    zone = guides.around_brows * visible
    dark, wanted = ((-image.mean(1, keepdim=True)).clamp(min=0) for image in (target, subject.layers.detail))
    mass, aim = float((dark * zone).sum()), float((wanted * zone).sum())
    scale = min(max(mass, aim / 1.3), aim * 1.3) / max(mass, 1e-6)
    return target + dark * (1 - min(max(scale, 0.4), 1.6)) * guides.around_brows


def bend(subject: Subject, points: np.ndarray) -> tuple[Tensor, Tensor]:
    """Displacement ``(h, w, 2)`` in pixels from the new picture back to the photo, and where it is not zero ``(1, 1, h,
    w)``."""
    height, width = subject.patch.shape[-2:]
    iod = subject.pose.iod
    center = subject.points[27:36].mean(0)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rings = [center + iod * np.stack([a * np.cos(angles), b * np.sin(angles)], 1) for a, b in RINGS]
    after, before = points, subject.points
    if subject.rotated is not None:
        known = np.setdiff1d(np.arange(68), subject.rotated.hidden_jaw)
        seen, was = (
            subject.pose.to_picture(p) for p in subject.rotated.controls(subject.pose.to_frame(points) - subject.shape)
        )
        after, before = np.concatenate([points[known], seen]), np.concatenate([subject.points[known], was])
    source = np.concatenate([after, *rings])
    values = np.concatenate([before - after, np.zeros((48, 2))])
    nodes = lattice(height, width, max(iod / 8, 6.0))
    queries = nodes.reshape(-1, 2).numpy()
    operator = thin_plate(torch.from_numpy((source - center) / iod), torch.from_numpy((queries - center) / iod), 5e-3)
    field = operator @ torch.from_numpy(values)
    radius = np.hypot(*((queries - center) / iod / np.array(RINGS[0])).T)
    field = field * torch.from_numpy(np.clip((1.12 - radius) / 0.12, 0, 1))[:, None]
    dense = fill(field.view(*nodes.shape).float(), height, width)
    moved = dense.abs().amax(-1) > 0.02
    return dense * moved[..., None], moved[None, None]
