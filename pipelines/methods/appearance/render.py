"""Render a new identity into the photo: warp the image, then multiply it by a gain.

The new face consists of the photo's pixels, warped to new landmarks and multiplied by ``exp(target detail - fitted
detail)``. So light, color cast, grain and sharpness are those of the photo at any resolution. Strength 0 is the photo
itself. Where gain and displacement are zero, the image stays bit-identical.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...faces.face import mouth_gap
from ...geometry.shape_model import ShapeFit
from ...imaging.resample import blur, pixel_grid, resize, sample
from ...imaging.warp import interpolated
from .canonical import REGIONS, Pose2D, RenderMasks, closed, interpolate_lattice, lattice, opened, smooth_step
from .network import AppearanceModel, Codes
from .rotated import ROTATED_YAW, RotatedFace
from .shading import Decomposition, apply_gain, from_log, measure
from .shape import NO_CORRECTION, Correction, new_shape
from .surface import facing, rotated_face

RINGS = ((1.95, 2.10), (3.0, 3.2))
"""Half axes in IOD of two ellipses around the nose on which the warp is zero."""
REACH = 2.25
"""Half side of the patch that a replacement can change, in inter-ocular distances."""
MAX_LOG_GAIN = 1.6
"""Maximum absolute log gain. A larger gain amplifies the noise of dark pixels."""
MAX_BRIGHT_DETAIL = 0.25
"""Soft limit of bright target detail. Highlights come from the light of the photo."""
MAX_DARK_DETAIL = 0.22
"""Soft limit of dark target detail on the skin of the upper face. Stronger detail is the make-up of somebody else."""
MAX_TINT = 0.08
"""Soft limit of the target detail's log color on the skin, for the same reason."""
MIN_DARK_DETAIL = -0.16
"""Lower limit of the log change on beardless skin below the middle of the nose."""
GRAZING = (0.05, 0.25)
"""Cosines between surface normal and viewing direction. Below the first, texture does not change; above the second, it
changes fully. Texture at grazing angles would be smeared."""
WIDE_OPEN = 0.16
"""Lip gap in IOD from which the inner lip edges are kept too. The training faces have few wide open mouths."""
PAINT = (0.25, 0.5)
"""Log brightening at which painting starts to replace multiplication, and at which it replaces it fully."""
MAX_GRAIN = 0.15
"""Limit of the log residual that painted skin keeps."""
CREASE_SIGMAS, CREASE_AREA = (1.0, 5.0), 8.0
"""Standard deviations, in canonical pixels, of the blurs between which creases lie, and of the area over which their
strength is compared."""
CREASE_GAIN, CREASE_FLOOR = 1.0, 0.012
"""Strength of the new creases as a multiple of the original's, and one that is always allowed, in log reflectance."""
PARTING, MUSTACHE = 0.2, 0.6
"""Greatest gap in a mustache, and its least width, in IOD."""
FINE_SIGMA, OBJECT_STRENGTH = 1.0, 0.35
"""Residual detail finer than FINE_SIGMA canonical pixels is skin grain; detail stronger than OBJECT_STRENGTH is hair or
glasses. Both are kept. Exception: strong detail on the inner skin is a mole, a scar or a deep fold, and is removed."""


@dataclass(frozen=True)
class Subject:
    """One analyzed face of a photo. It can be rendered with any number of new identities.

    Attributes:
        patch: the part of the image that may change, ``(1, 3, h, w)``.
        points: 68 landmarks in patch pixels.
        pose: 2D pose of the face in the patch.
        shape: the landmarks in IOD units, ``(68, 2)``.
        fit: fit of the 3D shape model.
        decomposition: shading and reflectance detail in canonical face space.
        codes: texture codes of the detail.
        fitted: detail that ``codes`` decode to, ``(1, 3, 256, 256)``.
        marks: skin marks and folds that the codes do not describe; they are removed, ``(1, 3, 256, 256)``.
        beard: 1 where facial hair is, ``(1, 1, 256, 256)``.
        facing_viewer: 1 where the surface faces the viewer, 0 where the head's rotation hides it, ``(1, 1, 256, 256)``.
        attributes: what the new face shares with this one, ``(A + 1,)``.
        embeddings: each guide's embedding of the original face, ``(D,)``; dlib's is the first.
        rotated: the canonical surface in 3D, for a rotated head; None for a frontal face.
    """

    patch: Tensor
    points: np.ndarray
    pose: Pose2D
    shape: np.ndarray
    fit: ShapeFit
    decomposition: Decomposition
    codes: Codes
    fitted: Tensor
    marks: Tensor
    beard: Tensor
    facing_viewer: Tensor
    attributes: np.ndarray
    embeddings: tuple[np.ndarray, ...]
    rotated: RotatedFace | None = None

    def scaled(self, iod: float) -> Subject:
        """Shrink the patch to this inter-ocular distance in pixels, for fast trials; never enlarge it."""
        scale = iod / self.pose.iod
        if scale >= 1:
            return self
        height, width = (max(8, round(n * scale)) for n in self.patch.shape[-2:])
        factor = np.array([width / self.patch.shape[-1], height / self.patch.shape[-2]])
        points = self.points * factor
        return replace(self, patch=resize(self.patch, height, width), points=points, pose=Pose2D.of(points))


def prepare(
    model: AppearanceModel, patch: Tensor, points: np.ndarray, *embeddings: np.ndarray, rounds: int = 4
) -> Subject:
    """Analyze one face.

    Args:
        patch: ``(1, 3, h, w)``, RGB in [0, 1].
        points: 68 landmarks in patch pixels.
        embeddings: of the face by the guides, ``(D,)``; dlib's alone is enough where no identity is searched.
        rounds: that fit the texture where a part of the face is hidden.
    """
    # The canonical image has 83 px per inter-ocular distance: shrink larger faces first to prevent aliasing.
    pose = Pose2D.of(points)
    scale = min(1.0, 100.0 / pose.iod)
    small = patch if scale == 1 else resize(patch, *(max(8, round(n * scale)) for n in patch.shape[-2:]))
    factor = np.array([small.shape[-1] / patch.shape[-1], small.shape[-2] / patch.shape[-2]])
    shape = pose.to_canonical(points)
    fit = model.shapes.fit(shape)
    rotated = rotated_face(model, fit, shape) if abs(fit.yaw) > ROTATED_YAW else None
    texture = (
        model.canonical.unwrap(small, points * factor)
        if rotated is None
        else rotated.unwrap(small, Pose2D.of(points * factor))
    )
    decomposition = model.decomposer.decompose(texture)
    measures = measure(model.decomposer.zones, decomposition, shape)
    attributes = model.attributes.vector(embeddings[0], measures)
    expected = {n: model.expected(n, attributes)[: model.regions[n].components] for n in REGIONS}
    codes, fitted = model.encode_visible(
        decomposition.detail, decomposition.visible * model.canonical.core, expected, rounds
    )
    beard = _beard(model.masks, decomposition)
    return Subject(
        patch=patch,
        points=points,
        pose=pose,
        shape=shape,
        fit=fit,
        decomposition=decomposition,
        codes=codes,
        fitted=fitted,
        marks=_unexplained(decomposition, fitted, model.masks.inner_skin * (1 - beard)),
        beard=beard,
        facing_viewer=smooth_step(facing(model, fit), *GRAZING),
        attributes=attributes,
        embeddings=embeddings,
        rotated=rotated,
    )


@dataclass(frozen=True)
class Appearance:
    """Texture and shape codes of each region for one photo."""

    textures: Codes
    shapes: dict[str, np.ndarray]


def render(
    model: AppearanceModel,
    subject: Subject,
    appearance: Appearance,
    strength: float,
    correction: Correction = NO_CORRECTION,
    change: Tensor | None = None,
) -> tuple[Tensor, Tensor, np.ndarray]:
    """Render ``appearance`` on ``subject``.

    Args:
        strength: 0 renders the photo, 1 the appearance; values up to 1.5 extrapolate.
        correction: of what must stay, such as the eyelid opening.
        change: from ``canonical_change``, where it is known; neither the correction nor the size of the patch matters.

    Returns:
        The new patch, the mask of pixels that may differ ``(1, 1, h, w)``, and the new landmarks in patch pixels.
    """
    shape = new_shape(model.shapes, subject.fit, subject.shape, appearance.shapes, strength, correction)
    points = subject.pose.to_image(shape)
    if change is None:
        change = canonical_change(model, subject, appearance, strength)
    height, width = subject.patch.shape[-2:]
    field, moved = warp_field(subject, points)
    if subject.rotated is None:
        where = model.canonical.locate(points, (0, 0), height, width)
    else:
        where = subject.rotated.locate(subject.pose, shape - subject.shape, height, width)
    sampled = sample(change, where, padding="zeros")
    gain, painted, paint, amount = sampled[:, :3], sampled[:, 3:6], sampled[:, 6:7], sampled[:, 7:]
    warped = torch.where(moved, sample(subject.patch, pixel_grid(height, width) + field, "bicubic"), subject.patch)
    changed = torch.lerp(apply_gain(warped, gain), from_log(painted), paint)
    touched = amount > 1e-3
    mask = (touched | moved).float()
    patch = torch.where(touched, changed, warped).clamp(0, 1)
    return torch.where(mask > 0, patch, subject.patch), mask, points


def canonical_change(model: AppearanceModel, subject: Subject, appearance: Appearance, strength: float) -> Tensor:
    """Compute the change of each canonical pixel, ``(1, 8, 256, 256)``.

    Channels: log gain (3), log color of the painted face (3), weight of the painted face (1), weight of any change (1).
    Painting is for pixels that a gain cannot brighten enough, such as skin in place of a dark brow.
    """
    canonical, masks = model.canonical, model.masks
    target = model.clamp(model.decode(appearance.textures))
    target = _keep_lip_color(masks, subject.decomposition.detail, target)
    target = _keep_brow_tone(masks, subject, target)
    target = torch.where(target > 0, MAX_BRIGHT_DETAIL * torch.tanh(target / MAX_BRIGHT_DETAIL), target)
    dark = torch.where(target < 0, MAX_DARK_DETAIL * torch.tanh(target / MAX_DARK_DETAIL), target)
    target = torch.lerp(target, dark, masks.upper_skin)
    tone = target.mean(1, keepdim=True)
    muted = tone + MAX_TINT * torch.tanh((target - tone) / MAX_TINT)
    target = torch.lerp(target, muted, masks.skin)
    target = _keep_creases(masks, subject, target)
    amount = canonical.fade * subject.decomposition.visible * masks.outside_eyes * subject.facing_viewer
    amount = amount * (masks.outside_mouth if mouth_gap(subject.points) < WIDE_OPEN else masks.outside_lips)
    change = (target - subject.fitted - subject.marks) * strength
    # Keep a beard: do not brighten facial hair to skin.
    change = torch.lerp(change, change.clamp(max=0.12), subject.beard)
    # Keep beardless skin: stubble or nose shadows of the target would look like dirt.
    bare = masks.lower_face * (1 - subject.beard)
    change = torch.lerp(change, change.clamp(min=MIN_DARK_DETAIL), bare)
    lift = change.mean(1, keepdim=True)
    paint = smooth_step(lift, *PAINT) * amount
    gain = (change * amount).clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN)
    painted = subject.decomposition.shading + subject.decomposition.detail + change - strength * _stains(subject)
    return torch.cat([gain, painted, paint, amount], 1)


def _stains(subject: Subject) -> Tensor:
    """Compute the part of the residual detail that would stain painted skin: its color, and all that is not fine grain.

    In dark pixels, such as lashes, the color is mostly noise.
    """
    residual = subject.decomposition.detail - subject.fitted - subject.marks
    return residual - residual.mean(1, keepdim=True).clamp(-MAX_GRAIN, MAX_GRAIN)


def _unexplained(decomposition: Decomposition, fitted: Tensor, bare: Tensor) -> Tensor:
    """Compute the residual detail of marks and folds, without pores, hair and glasses.

    Args:
        bare: 1 where strong residuals are marks as well, ``(1, 1, 256, 256)``.
    """
    coarse = blur((decomposition.detail - fitted) * decomposition.visible, FINE_SIGMA)
    soft = torch.exp(-((coarse.mean(1, keepdim=True) / OBJECT_STRENGTH) ** 2))
    return coarse * torch.lerp(soft, torch.ones_like(soft), bare)


def _beard(masks: RenderMasks, decomposition: Decomposition) -> Tensor:
    """Compute a soft mask ``(1, 1, 256, 256)`` of dark detail in the beard zone."""
    dark = smooth_step(-blur(decomposition.detail.mean(1, keepdim=True), 2.0), 0.22, 0.5) * masks.beard_zone
    # A mustache is wide. Narrow dark spots above the mouth are shadows of the nose, and folds of the cheeks.
    wide = opened(closed(dark, PARTING), MUSTACHE)
    return torch.lerp(dark, torch.minimum(dark, wide), masks.above_mouth)


def _keep_lip_color(masks: RenderMasks, original: Tensor, target: Tensor) -> Tensor:
    """Shift the lips' darkness by 60 % and their color by 85 % to the original's, to keep make-up and complexion."""
    difference = ((original - target) * masks.lips).sum((2, 3)) / masks.lips.sum()
    tone = difference.mean(1, keepdim=True)
    pull = (0.6 * tone).clamp(-0.35, 0.35) + (0.85 * (difference - tone)).clamp(-0.3, 0.3)
    return target + pull[..., None, None] * masks.around_lips


def _keep_brow_tone(masks: RenderMasks, subject: Subject, target: Tensor) -> Tensor:
    """Shift the brows to the original's color and, within 30 %, to its total darkness; both match hair, sex and age."""
    visible = (subject.decomposition.visible * 1.5 - 0.5).clamp(0, 1)
    core = masks.brow_core * visible
    if float(core.sum()) < 60:
        return target
    difference = ((subject.decomposition.detail - target) * core).sum((2, 3)) / core.sum()
    luma = target.mean(1, keepdim=True)
    target = (
        target + (0.6 * difference).clamp(-0.3, 0.3)[..., None, None] * (-luma / 0.35).clamp(0, 1) * masks.around_brows
    )
    zone = masks.around_brows * visible
    dark, original_dark = (
        (-image.mean(1, keepdim=True)).clamp(min=0) for image in (target, subject.decomposition.detail)
    )
    mass, original_mass = float((dark * zone).sum()), float((original_dark * zone).sum())
    scale = min(max(mass, original_mass / 1.3), original_mass * 1.3) / max(mass, 1e-6)
    return target + dark * (1 - min(max(scale, 0.4), 1.6)) * masks.around_brows


def _keep_creases(masks: RenderMasks, subject: Subject, target: Tensor) -> Tensor:
    """Soften lines of the forehead that are stronger than the original's: they change the apparent age and sex."""
    wanted, own = (_lines(detail.mean(1, keepdim=True)) for detail in (target, subject.decomposition.detail))
    bare = masks.forehead
    area = blur(bare, CREASE_AREA).clamp(min=1e-3)
    strength, known = ((blur(lines**2 * bare, CREASE_AREA) / area).clamp(min=1e-12).sqrt() for lines in (wanted, own))
    allowed = (CREASE_GAIN * known).clamp(min=CREASE_FLOOR)
    return target - wanted * (1 - (allowed / strength).clamp(max=1)) * bare


def _lines(luma: Tensor) -> Tensor:
    """What is wider than pores and narrower than shading."""
    return blur(luma, CREASE_SIGMAS[0]) - blur(luma, CREASE_SIGMAS[1])


def warp_field(subject: Subject, points: np.ndarray) -> tuple[Tensor, Tensor]:
    """Compute the backward warp to the new landmarks ``points`` ``(68, 2)``.

    Returns:
        Displacement ``(h, w, 2)`` in pixels from the new image to the photo, and the mask ``(1, 1, h, w)`` where it is
        not zero.
    """
    height, width = subject.patch.shape[-2:]
    iod = subject.pose.iod
    center = subject.points[27:36].mean(0)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rings = [center + iod * np.stack([a * np.cos(angles), b * np.sin(angles)], 1) for a, b in RINGS]
    after, before = points, subject.points
    if subject.rotated is not None:
        known = np.setdiff1d(np.arange(68), subject.rotated.hidden_jaw)
        surface_after, surface_before = (
            subject.pose.to_image(p)
            for p in subject.rotated.control_points(subject.pose.to_canonical(points) - subject.shape)
        )
        after, before = (
            np.concatenate([points[known], surface_after]),
            np.concatenate([subject.points[known], surface_before]),
        )
    source = np.concatenate([after, *rings])
    values = np.concatenate([before - after, np.zeros((48, 2))])
    nodes = lattice(height, width, max(iod / 8, 6.0))
    queries = nodes.reshape(-1, 2).numpy()
    nodes_after, given, wanted = (
        torch.from_numpy(a) for a in ((source - center) / iod, values, (queries - center) / iod)
    )
    field = interpolated(nodes_after, given, wanted, stiffness=5e-3)
    radius = np.hypot(*((queries - center) / iod / np.array(RINGS[0])).T)
    field = field * torch.from_numpy(np.clip((1.12 - radius) / 0.12, 0, 1))[:, None]
    dense = interpolate_lattice(field.view(*nodes.shape).float(), height, width)
    moved = dense.abs().amax(-1) > 0.02
    return dense * moved[..., None], moved[None, None]
