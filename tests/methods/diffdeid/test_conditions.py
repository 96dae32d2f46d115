"""What the network sees of a face: nothing that identifies it but what the paper lets through."""

from __future__ import annotations

import numpy as np
import torch
from faceveil.pipelines.faces.align import apply
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.faces.parse import FRONT_CLASSES, IDENTITY_CLASSES
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.coefficients import DIFFDEID
from faceveil.pipelines.methods.diffdeid.conditions import (
    FaceReader,
    identity_masks,
    layout_of,
    masked_image,
    render_face,
    scaled_identity,
)

SKIN, HAIR = IDENTITY_CLASSES[0], FRONT_CLASSES[1]


def test_the_masked_image_hides_the_face_and_keeps_the_mouth(reader, portrait, portrait_faces):
    points = portrait_faces[0].points
    view = reader(portrait, points)
    masked = masked_image(view.square, view.mask, view.mouth)
    image, hidden = masked[:, :3], masked[:, 3:]
    inside = apply(view.transform, points)
    for index in (19, 24, 30, 33, 36, 39, 42, 45, 27, 4, 12):
        x, y = inside[index].astype(int)
        assert hidden[0, 0, y, x] == 1, index
        assert (image[0, :, y, x] == 0).all()
    x, y = inside[60:68].mean(0).astype(int)
    assert hidden[0, 0, y, x] == 0
    assert torch.equal(image[0, :, y, x], view.square[0, :, y, x] * 2 - 1)
    # Hair and background stay.
    assert torch.equal(image[..., :2, :], view.square[..., :2, :] * 2 - 1)


def test_a_parser_keeps_hair_and_finds_the_rest(portrait, portrait_faces):
    """Where it sees hair, nothing is hidden; where it sees skin, all is, beyond the landmarks' outline too."""

    class Parser:
        def share(self, image, points, classes):
            share = torch.zeros(1, 1, *image.shape[-2:])
            middle = int(points[30, 0])
            if HAIR in classes:
                share[..., :middle] = 1
            if SKIN in classes:
                share[..., middle:] = 1
            return share

    points = portrait_faces[0].points
    view = FaceReader(built_in_morphable_model(), 256, Parser())(portrait, points)  # type: ignore[arg-type]
    left, right = (apply(view.transform, points[[index]])[0].astype(int) for index in (36, 45))
    assert view.mask[0, 0, left[1], left[0]] == 0
    assert view.mask[0, 0, right[1], right[0]] == 1
    assert view.mask[0, 0, 5, 250] == 1
    # A larger new face does not hide the hair again.
    assert view.wider(torch.ones_like(view.mask)).mask[0, 0, left[1], left[0]] == 0


def test_two_faces_with_the_same_background_give_the_same_masked_image(reader, portrait, portrait_faces):
    """What was under the mask leaves no trace."""
    view = reader(portrait, portrait_faces[0].points)
    hidden = view.mask * (1 - view.mouth)
    other = torch.where(hidden > 0.999, torch.rand_like(view.square), view.square)
    a, b = (masked_image(square, view.mask, view.mouth) for square in (view.square, other))
    assert torch.allclose(a, b, atol=2e-3)


def test_the_rendered_face_lies_on_the_face(reader, portrait, portrait_faces):
    view = reader(portrait, portrait_faces[0].points)
    image, mask = render_face(reader.model, view.coefficients, reader.size)
    inside = apply(view.transform, portrait_faces[0].points)
    assert np.abs(mask[0, 0].numpy().nonzero()[1].mean() - inside[27:36, 0].mean()) < 2
    assert image.abs().max() <= 1
    assert (image * (1 - mask)).abs().max() == 0
    shown = (image + 1) / 2
    assert ((shown - view.square).abs() * mask).sum() / (3 * mask.sum()) < 0.12


def test_identities_have_unit_variance():
    z = scaled_identity(np.random.default_rng(0).normal(size=(5, 128)))
    assert torch.allclose(z.square().mean(1), torch.ones(5), atol=1e-5)


def test_the_layout_is_the_papers_order():
    assert [name for name, _ in layout_of(built_in_morphable_model())] == [name for name, _ in DIFFDEID]
    assert sum(size for _, size in DIFFDEID) == 261


def test_masks_of_a_batch(trio, trio_faces):
    masks = identity_masks(trio, trio_faces)
    closed = identity_masks(trio, trio_faces, keep_mouth=False)
    for face in trio_faces:
        x, y = face.points[30].astype(int)
        lips_x, lips_y = face.points[60:68].mean(0).astype(int)
        assert masks[0, 0, y, x] == 1
        assert masks[0, 0, lips_y, lips_x] == 0
        assert closed[0, 0, lips_y, lips_x] == 1
    assert identity_masks(trio, Faces(())).sum() == 0
