"""IDEudemon as a method: protect the identity of a parametric head, then restore a photo-real face.

``strength`` sets the scale of the noise: 1 is 0.25 for HeadNeRF, and one standard deviation for a mesh model.

There are three ways: HeadNeRF draws a protected head, which is composed with the photo's hair and background and
restored; or a mesh model is drawn and restored; or the photo itself is warped and recolored to the protected mesh,
which keeps much of the original's texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...faces.align import apply, chained, crop, ffhq_transform, invert
from ...faces.face import Face, inter_ocular
from ...faces.parse import FaceParser
from ...geometry.camera import degrees
from ...geometry.fitting import Fitter
from ...geometry.morphable import MorphableModel
from ...identity.identity import Identity
from ...imaging.resample import blur, resize
from ...imaging.upscale import Restorer
from ..base import Change, View, pasted, too_small
from ..identities import MethodIdentity
from .drawing import Drawn, HeadPainter, SquareFace
from .fitting import HeadFit
from .hybrid import fill_gaps, head_masks, hybrid_image
from .mesh import MeshFace, fit_mesh, new_landmarks, redraw_face, warp_face
from .protect import protected_coefficients

NAME = "ideudemon"
MAX_YAW, MAX_PITCH = 45.0, 35.0
"""Degrees beyond which the fit of the 3D model is not reliable."""
MAX_ERROR = 0.035
"""Landmark error of the fit in inter-ocular distances beyond which it failed."""
_EDGE = 0.08
"""Width of the soft edge of a pasted face, in inter-ocular distances."""


@dataclass(frozen=True)
class Prepared:
    """An analyzed face of an image ``(1, 3, H, W)``.

    Attributes:
        mesh: the fitted mesh model, in a square of the photo's resolution.
        fits: HeadNeRF's fit, from the first rendering on.
    """

    image: Tensor
    face: Face
    mesh: MeshFace
    fits: list[HeadFit] = field(default_factory=list)


class IDEudemonMethod:
    """See ``Method``.

    Args:
        model: a mesh model.
        restorer: makes a drawn face photo-real; without it and without ``head`` the photo is warped.
        parser: finds face and hair; the outline of the landmarks is used when omitted.
        head: HeadNeRF; the mesh model is drawn when omitted.
    """

    name = NAME

    def __init__(
        self,
        model: MorphableModel,
        restorer: Restorer | None = None,
        parser: FaceParser | None = None,
        head: HeadPainter | None = None,
    ) -> None:
        self.model, self._fitter = model, Fitter(model)
        self._restorer, self._parser, self._head = restorer, parser, head

    def unsupported_reason(self, face: Face) -> str | None:
        return too_small(face)

    def prepare(self, view: View) -> Prepared:
        return Prepared(view.image, view.face, fit_mesh(self._fitter, view.image, view.face))

    def occlusion_reason(self, prepared: Prepared) -> str | None:
        """A head that the 3D model cannot show is refused as well."""
        estimate = prepared.mesh.estimate
        pitch, yaw, _ = (abs(angle) for angle in degrees(estimate.coefficients.angles[0]))
        if yaw > MAX_YAW or pitch > MAX_PITCH:
            return f"the head is rotated too far for the 3D model ({max(yaw, pitch):.0f} degrees)"
        if float(estimate.errors[0]) > MAX_ERROR:
            return "the 3D model does not fit it"
        return None

    def sample_identity(self, prepared: Sequence[Prepared], seed: int, progress: Progress = silent) -> MethodIdentity:
        """The noise n of a person, which the seed repeats."""
        return MethodIdentity(NAME, seed)

    def from_identity(
        self, prepared: Sequence[Prepared], identity: Identity, seed: int, progress: Progress = silent
    ) -> MethodIdentity:
        raise InputError("IDEudemon adds noise to a person's own geometry and cannot show a given identity")

    def render(
        self, prepared: Prepared, identity: MethodIdentity, strength: float, progress: Progress = silent
    ) -> Change:
        seed = identity.of(NAME).seed
        if strength == 0:
            mesh, nothing = prepared.mesh, torch.zeros_like(prepared.mesh.square[:, :1])
            return pasted(prepared.image, mesh.transform, mesh.square, nothing, prepared.face.points)
        if self._head is None:
            return self._with_mesh(prepared, strength, seed)
        square = square_face(prepared, self._head.size, self._parser)
        if not prepared.fits:
            prepared.fits.append(self._head.fit(square, progress))
        hybrid = compose(square, self._head(square, prepared.fits[0], strength, seed))
        result = hybrid if self._restorer is None else resize(self._restorer(hybrid), square.size, square.size)
        return pasted(prepared.image, square.transform, result.clamp(0, 1), paste_mask(square), prepared.face.points)

    def _with_mesh(self, prepared: Prepared, strength: float, seed: int) -> Change:
        mesh = prepared.mesh
        edited = protected_coefficients(mesh.estimate.coefficients, strength, seed)
        if self._restorer is None:
            square, mask = warp_face(self.model, mesh, edited)
        else:
            square, mask = redraw_face(self.model, mesh, edited, self._restorer, self._parser)
        points = apply(invert(mesh.transform), new_landmarks(self.model, mesh, edited))
        return pasted(prepared.image, mesh.transform, square, mask, points)


def square_face(prepared: Prepared, size: int, parser: FaceParser | None) -> SquareFace:
    """A face in the aligned square of FFHQ, ``size`` px."""
    points = prepared.face.points
    transform = ffhq_transform(points, size)
    square = crop(prepared.image, transform, size).clamp(0, 1)
    inside = apply(transform, points)
    mesh = prepared.mesh
    # The mesh was fitted in its own square.
    from_mesh = chained(invert(mesh.transform), transform)
    return SquareFace(square, inside, head_masks(square, inside, parser), mesh.estimate, from_mesh, transform)


def compose(square: SquareFace, drawn: Drawn) -> Tensor:
    """X_l with its gaps filled ``(1, 3, S, S)``."""
    face = square.masks.face
    return fill_gaps(hybrid_image(square.square, face, drawn.image, drawn.face), face * (1 - drawn.face))


def paste_mask(square: SquareFace) -> Tensor:
    """What to paste ``(1, 1, S, S)``: the face, with a soft edge outside of it."""
    face = square.masks.face
    edge = max(1.0, _EDGE * inter_ocular(square.points))
    radius = round(edge)
    wide = torch.nn.functional.max_pool2d(face, 2 * radius + 1, 1, radius)
    return torch.maximum(blur(wide, edge / 2), face)
