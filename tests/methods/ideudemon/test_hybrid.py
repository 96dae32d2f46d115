"""Hybrid images against the formula, masks against hand-made parsings, and the filling of gaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.faces.parse import CLASSES, FaceParser
from faceveil.pipelines.faces.regions import REGIONS
from faceveil.pipelines.methods.ideudemon.hybrid import fill_gaps, head_masks, hybrid_image

NOT_HEAD, STYLE = {0, 14, 15, 16}, {6, 9, 17, 18}


class Stripes(FaceParser):
    """A parsing by hand: each class is a vertical stripe of the parser's view."""

    def probabilities(self, view):
        labels = torch.arange(view.shape[-1]) * CLASSES // view.shape[-1]
        one_hot = torch.nn.functional.one_hot(labels, CLASSES).float().T
        return one_hot[None, :, None, :].expand(1, -1, view.shape[-2], -1)


def test_the_classes_of_the_formula_are_all_classes():
    assert set(REGIONS["face"]) | NOT_HEAD | STYLE == set(range(CLASSES))
    assert not set(REGIONS["face"]) & (NOT_HEAD | STYLE)


def test_masks_follow_the_parsing(portrait, portrait_faces):
    from faceveil.pipelines.faces.parse import _TEMPLATE, SIDE

    # With the parser's own alignment its view is the square.
    points = np.zeros((68, 2))
    points[[36, 37, 38, 39, 40, 41]] = _TEMPLATE[0]
    points[[42, 43, 44, 45, 46, 47]] = _TEMPLATE[1]
    points[30], points[48], points[54] = _TEMPLATE[2], _TEMPLATE[3], _TEMPLATE[4]
    square = torch.rand(1, 3, SIDE, SIDE)
    masks = head_masks(square, points, Stripes())
    middle = [(label + 0.5) * SIDE / CLASSES for label in range(CLASSES)]
    for label, x in enumerate(middle):
        assert float(masks.face[0, 0, 200, int(x)]) == float(label in REGIONS["face"]), label
        assert float(masks.head[0, 0, 200, int(x)]) == float(label in REGIONS["head"]), label


def test_the_hybrid_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    photo, drawn = torch.rand(2, 3, 9, 9, generator=generator), torch.rand(2, 3, 9, 9, generator=generator)
    labels, drawn_labels = (torch.randint(0, CLASSES, (2, 9, 9), generator=generator) for _ in range(2))
    face, drawn_face = (torch.isin(x, torch.tensor(REGIONS["face"]))[:, None].float() for x in (labels, drawn_labels))
    found = hybrid_image(photo, face, drawn, drawn_face)
    for n, y, x in np.ndindex(2, 9, 9):
        if int(labels[n, y, x]) in NOT_HEAD | STYLE:
            wanted = photo[n, :, y, x]
        elif int(drawn_labels[n, y, x]) in REGIONS["face"]:
            wanted = drawn[n, :, y, x]
        else:
            wanted = torch.ones(3)
        assert torch.equal(found[n, :, y, x], wanted)


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (1, 5)])
def test_gaps_are_filled_from_their_surroundings(size):
    image = torch.full((1, 3, *size), 0.25)
    gaps = torch.zeros(1, 1, *size)
    gaps[..., size[0] // 3 : size[0] // 2 + 1, 1 : size[1] // 2] = 1
    white = image * (1 - gaps) + gaps
    filled = fill_gaps(white, gaps)
    assert filled.shape == white.shape
    if min(size) > 1:
        torch.testing.assert_close(filled, image)
    assert torch.equal(filled[(1 - gaps).bool().expand_as(image)], image[(1 - gaps).bool().expand_as(image)])


def test_a_gradient_is_continued():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).clone()
    gaps = torch.zeros(1, 1, 64, 64)
    gaps[..., 20:40, 25:40] = 1
    filled = fill_gaps(ramp * (1 - gaps) + gaps, gaps)
    assert float((filled - ramp).abs().max()) < 0.15
    assert float(filled.min()) >= 0 and float(filled.max()) <= 1


def test_landmarks_stand_in_for_a_parser(portrait, portrait_faces):
    masks = head_masks(portrait, portrait_faces[0].points, None)
    assert float(masks.face.sum()) > 5000
    assert bool((masks.head >= masks.face).all())
    assert set(masks.face.unique().tolist()) == {0.0, 1.0}


def test_wide_images_and_images_without_anything_known():
    image = torch.full((1, 3, 16, 256), 0.4)
    gaps = torch.zeros(1, 1, 16, 256)
    gaps[..., 30:220] = 1
    torch.testing.assert_close(fill_gaps(image * (1 - gaps), gaps), image)
    line = torch.full((1, 3, 1, 7), 0.4)
    gap = torch.zeros(1, 1, 1, 7)
    gap[..., 2:4] = 1
    torch.testing.assert_close(fill_gaps(line * (1 - gap), gap), line)
    everything = torch.ones(1, 1, 8, 8)
    assert torch.equal(fill_gaps(torch.ones(1, 3, 8, 8), everything), torch.ones(1, 3, 8, 8))
    # In a batch, one image of which nothing is known does not disturb the others.
    both = torch.cat([everything, torch.nn.functional.pad(torch.ones(1, 1, 4, 4), (2, 2, 2, 2))])
    mixed = fill_gaps(torch.where(both > 0, 1.0, torch.full((2, 3, 8, 8), 0.3)), both)
    torch.testing.assert_close(mixed[1], torch.full((3, 8, 8), 0.3))
    assert float(mixed[0].min()) > 0.99


def test_values_that_are_not_finite_stay_outside_of_the_photo():
    photo, drawn = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), float("nan"))
    face = torch.zeros(1, 1, 4, 4)
    assert torch.equal(hybrid_image(photo, face, drawn, face), photo)
