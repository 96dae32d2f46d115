"""The search for faces: sizes, tiles, second looks, union of detectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.detectors import CenterFace, Detection, open_detector
from faceveil.pipelines.faces.face import Face, Faces
from faceveil.pipelines.faces.search import SENSITIVITIES, THRESHOLD, TILE, search, suppress
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.faces.unite import faces_in_boxes, overlap, unite
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.resample import resize
from faceveil.pipelines.imaging.samples import astronaut


@pytest.fixture(scope="module")
def head() -> torch.Tensor:
    """The head of the sample portrait, 240 px, with a face of 121 px."""
    return as_image(astronaut()).pixels[..., 0:240, 100:340]


def _scene(head: torch.Tensor, face_px: float, height: int = 300, width: int = 420, at: tuple[int, int] = (90, 150)):
    """A gray scene with texture and the head, with a face of ``face_px``, at row and column ``at``."""
    texture = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(0))
    scene = resize(0.35 + 0.2 * texture, height, width)
    side = round(240 * face_px / 121)
    scene[..., at[0] : at[0] + side, at[1] : at[1] + side] = resize(head, side, side)
    return scene, np.array([at[1] + side / 2, at[0] + side / 2]), side


def _found(faces, center, side) -> list:
    middles = [(face, np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2) for face in faces]
    return [face for face, middle in middles if np.abs(middle - center).max() < side / 2]


@pytest.mark.parametrize("size", [12, 16, 24, 60, 200])
def test_small_faces_are_found(head, size) -> None:
    scene, center, side = _scene(head, size, 520, 620)
    assert len(_found(detect_faces(scene), center, side)) == 1


@pytest.mark.parametrize("tone", [0.05, 0.9])
def test_a_face_behind_a_wire_grid_is_found(head, tone) -> None:
    scene, center, side = _scene(head, 70)
    for offset in (0, 1):
        scene[..., offset::11, :] = tone
        scene[..., offset::11] = tone
    assert len(_found(detect_faces(scene), center, side)) == 1


def test_a_face_in_noise_is_found(head) -> None:
    scene, center, side = _scene(head, 80)
    noisy = scene + 0.3 * torch.randn(scene.shape, generator=torch.Generator().manual_seed(1))
    assert len(_found(detect_faces(noisy.clamp(0, 1)), center, side)) == 1


@pytest.mark.parametrize("at", [(10, 10), (1400, 1420), (1250, 1180)])
def test_faces_in_any_place_of_a_tiled_image_are_found_once(head, at) -> None:
    scene, center, side = _scene(head, 60, 2 * TILE - 400, 2 * TILE - 400, at)
    assert len(_found(detect_faces(scene, rotated=False), center, side)) == 1


def test_texture_has_no_faces(head) -> None:
    scene, center, side = _scene(head, 60)
    assert len(detect_faces(scene)) == len(_found(detect_faces(scene), center, side)) == 1


def test_uncertain_faces_have_no_landmarks(head) -> None:
    """A detector that is not sure: its faces can be redacted, not replaced."""

    def unsure(image, threshold):
        return [Detection(np.array([100.0, 80.0, 200.0, 180.0]), 0.41)]

    faces = detect_faces(_scene(head, 60)[0], unsure, rotated=False)
    assert faces
    assert not any(face.landmarks for face in faces)
    assert all(face.score < THRESHOLD for face in faces)


def test_a_more_sensitive_search_keeps_all_and_finds_smaller_faces(head) -> None:
    scene, center, side = _scene(head, 8)
    normal, high = (detect_faces(scene, sensitivity=name, rotated=False) for name in ("normal", "high"))
    assert not _found(normal, center, side)
    assert len(_found(high, center, side)) == 1


def test_the_maximum_takes_what_could_be_a_head(portrait) -> None:
    detectors = [open_detector("centerface")]
    normal, most = (search(portrait, detectors, SENSITIVITIES[name], rotated=False) for name in ("normal", "maximum"))
    assert len(most) > len(normal)
    assert all(any(overlap(tuple(d.box), tuple(m.box)) > 0.3 for m in most) for d in normal)


def test_a_thorough_search_asks_detectors_of_other_families(head, monkeypatch) -> None:
    asked = []

    class Nothing:
        def __call__(self, image, threshold):
            asked.append(image.shape)
            return []

    scene, center, side = _scene(head, 80)
    assert not detect_faces(scene, Nothing(), rotated=False)
    assert len(_found(detect_faces(scene, Nothing(), "high", rotated=False), center, side)) == 1
    assert asked


def test_unknown_sensitivity(head) -> None:
    with pytest.raises(InputError, match="sensitivity 'extreme' is not one of normal, high, maximum"):
        detect_faces(head, sensitivity="extreme")


def test_only_the_peak_of_a_face_is_a_detection(head) -> None:
    detector = open_detector("centerface")
    assert isinstance(detector, CenterFace)
    assert len(detector(resize(head, 96, 96), 0.45)) == 1


def test_suppression_keeps_the_best_of_overlapping_boxes() -> None:
    boxes = [((0, 0, 10, 10), 0.5), ((1, 0, 11, 10), 0.9), ((30, 0, 40, 10), 0.6), ((32, 2, 36, 6), 0.7)]
    kept = suppress([Detection(np.array(box, float), score) for box, score in boxes])
    # The fourth box lies inside the third, but is the better one: both may be faces.
    assert [d.score for d in kept] == [0.9, 0.7, 0.6]


def test_a_small_face_in_front_of_a_large_one_hides_it_from_no_one() -> None:
    small, large = np.array([30.0, 60.0, 60.0, 95.0]), np.array([0.0, 0.0, 100.0, 130.0])
    assert len(suppress([Detection(small, 0.92), Detection(large, 0.9)])) == 2
    # A part of a better face is no face, and what is uncertain around a face is none either.
    assert len(suppress([Detection(small, 0.8), Detection(large, 0.9)])) == 1
    assert len(suppress([Detection(small, 0.92), Detection(large, 0.42)])) == 1


def test_a_photo_in_front_of_a_face_is_redacted_with_it(head) -> None:
    """A small face at the chin of a large one: both are found."""
    scene = resize(head, 600, 600).clone()
    side = 150
    scene[..., 400 : 400 + side, 225 : 225 + side] = resize(head, side, side)
    sizes = sorted(face.size for face in detect_faces(scene, rotated=False))
    assert len(sizes) == 2
    assert sizes[1] > 3 * sizes[0]


def test_a_thorough_search_redacts_no_less_of_a_face(portrait) -> None:
    """dlib's boxes end at the brows; where CenterFace found the face its box stays."""
    normal, high = (detect_faces(portrait, sensitivity=name, rotated=False)[0] for name in ("normal", "high"))
    assert overlap(normal.box, high.box) > 0.8


def test_words_choose_sure_faces_first() -> None:
    sure = Face((50.0, 50.0, 90.0, 90.0), score=0.9)
    faces = Faces([Face((0.0, 0.0, 300.0, 300.0), score=0.1), sure, Face((95.0, 0.0, 99.0, 4.0), score=0.4)])
    for word in ("largest", "smallest", "left", "right"):
        assert list(Selection(word).of(faces)) == [sure]
    unsure = faces.only(faces[2:])
    assert len(Selection("largest").of(unsure)) == 1


def test_boxes_of_another_detector_are_added_where_no_face_is(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    same, elsewhere = faces_in_boxes(portrait, [(0, face.box), (0, (300.0, 300.0, 360.0, 360.0))])
    assert np.abs(same.points - face.points).max() < 0.1 * face.size
    united = unite(portrait, portrait_faces, [same, elsewhere])
    assert list(united) == [*portrait_faces, elsewhere]
    assert united.images is not None
    assert len(united.images.places) == len(united)


def test_boxes_outside_the_image_are_dropped(portrait) -> None:
    boxes = [(0, (-50.0, 0.0, -10.0, 40.0)), (3, (0.0, 0.0, 40.0, 40.0)), (0, (10.0, 10.0, 10.0, 30.0))]
    assert faces_in_boxes(portrait, boxes) == []
