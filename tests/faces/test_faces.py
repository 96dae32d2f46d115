"""Face plan, face geometry, alignment, masks and detection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.faces import align
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.detectors import DlibHog, open_detector
from faceveil.pipelines.faces.face import MIRROR, Face, Faces, inter_ocular
from faceveil.pipelines.faces.masks import ellipse_mask, hull_mask
from faceveil.pipelines.faces.paste import match_color, paste
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.imaging.warp import thin_plate


def test_plan_json_round_trip(portrait_faces) -> None:
    again = Faces.from_json(portrait_faces.to_json())
    assert again.to_json() == portrait_faces.to_json()
    assert np.abs(again[0].points - portrait_faces[0].points).max() < 1e-3
    assert isinstance(again[0], Face)


def test_face_is_frozen(portrait_faces) -> None:
    with pytest.raises(AttributeError):
        portrait_faces[0].score = 0.1  # type: ignore[misc]


def test_mirroring_landmarks_twice_is_the_identity() -> None:
    assert sorted(MIRROR) == list(range(68))
    assert np.array_equal(MIRROR[MIRROR], np.arange(68))


def test_selection() -> None:
    faces = Faces((Face((0, 0, 10, 10)), Face((50, 0, 90, 40)), Face((100, 0, 120, 20), image=1)))
    cases = {
        Selection("largest"): (1, 2),
        Selection("left"): (0, 2),
        Selection("1"): (1,),
        Selection("all", min_size=15): (1, 2),
    }
    for selection, numbers in cases.items():
        assert tuple(selection.of(faces)) == tuple(faces[n] for n in numbers)
    with pytest.raises(InputError, match="not one of"):
        Selection("unknown")


def test_similarity_recovers_a_known_transform() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(5, 2))
    known = np.array([[0.8, -0.6, 3.0], [0.6, 0.8, -1.0]]) * np.array([[2, 2, 1], [2, 2, 1]])
    found = align.similarity(points, align.apply(known, points))
    assert np.abs(found - known).max() < 1e-9
    assert np.abs(align.apply(align.invert(known), align.apply(known, points)) - points).max() < 1e-9


def test_crop_and_paste_reproduce_the_face_and_keep_other_pixels(portrait, portrait_faces) -> None:
    face = portrait_faces[0]
    size = 512
    transform = align.ffhq_transform(face.points, size)
    square = align.crop(portrait, transform, size, "bicubic")
    mask = hull_mask(align.apply(transform, face.points), size, size, feather=4)
    again = paste(portrait, square, transform, mask)
    changed = (again != portrait).any(1)
    hull = hull_mask(face.points, 512, 512, grow=0.2)[0] > 0
    assert not (changed & ~hull).any()
    assert (again - portrait).abs().mean() < 2e-3
    outside = paste(portrait, square * 0, transform, mask * 0)
    assert torch.equal(outside, portrait)


def test_crop_is_anti_aliased() -> None:
    stripes = (torch.arange(800) % 2).float().expand(1, 3, 800, 800).contiguous()
    small = align.crop(stripes, np.array([[0.1, 0, 0], [0, 0.1, 0]]), 80)
    assert (small[..., 5:-5, 5:-5] - 0.5).abs().max() < 0.05


def test_match_color_moves_the_mean(portrait) -> None:
    warm = (portrait * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)).clamp(0, 1)
    mask = ellipse_mask((150, 50, 300, 200), 512, 512)
    matched = match_color(warm, portrait, mask)

    def gap(a: torch.Tensor) -> torch.Tensor:
        return ((a - portrait) * mask).sum((2, 3)).abs().max() / mask.sum()

    assert gap(matched) < 0.3 * gap(warm)


def test_thin_plate_interpolates() -> None:
    source = torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    values = torch.rand(12, 2, generator=torch.Generator().manual_seed(1)).double()
    assert (thin_plate(source, source, 0.0) @ values - values).abs().max() < 1e-8


def test_masks_contain_the_landmarks(portrait_faces) -> None:
    points = portrait_faces[0].points
    mask = hull_mask(points, 512, 512, grow=0.05)[0, 0]
    assert all(mask[int(y), int(x)] > 0.5 for x, y in points)
    assert mask[0, 0] == 0


def test_detects_the_portrait(portrait_faces) -> None:
    assert len(portrait_faces) == 1
    assert portrait_faces[0].score > 0.8
    assert 38 < inter_ocular(portrait_faces[0].points) < 50


@pytest.mark.parametrize("degrees", [45, 90, 180, 300])
def test_detects_rotated_heads(portrait, portrait_faces, degrees) -> None:
    from kornia.geometry.transform import rotate

    canvas = torch.full((1, 3, 760, 760), 0.5)
    canvas[..., 124:636, 124:636] = portrait
    found = detect_faces(rotate(canvas, torch.tensor(float(degrees))))
    assert len(found) == 1
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    back = (found[0].points - 380) @ rotation + 380 - 124
    error = np.linalg.norm(back - portrait_faces[0].points, axis=1).mean() / inter_ocular(portrait_faces[0].points)
    assert error < 0.05


@pytest.mark.parametrize("side", [24, 40, 80, 400])
def test_detects_small_and_large_faces(portrait, portrait_faces, side) -> None:
    from faceveil.pipelines.imaging.resample import resize

    scale = side / portrait_faces[0].size
    size = round(512 * scale)
    canvas = torch.full((1, 3, max(size, 640), max(size, 640)), 0.5)
    canvas[..., :size, :size] = resize(portrait, size, size)
    assert len(detect_faces(canvas)) == 1


def test_detects_a_face_that_fills_the_image(portrait, portrait_faces) -> None:
    x1, y1, x2, y2 = (round(v) for v in portrait_faces[0].box)
    assert len(detect_faces(portrait[..., y1:y2, x1:x2])) == 1


def test_detects_sixty_faces(portrait) -> None:
    tile = torch.nn.functional.interpolate(
        portrait[..., 20:260, 110:350], size=(120, 120), mode="bilinear", antialias=True
    )
    sheet = tile.repeat(1, 1, 6, 10)
    assert len(detect_faces(sheet, rotated=False)) == 60


def test_dlib_is_the_fallback(portrait, portrait_faces) -> None:
    found = detect_faces(portrait, DlibHog(), rotated=False)
    assert any(abs(f.points[30] - portrait_faces[0].points[30]).max() < 4 for f in found)


def test_no_face_in_noise() -> None:
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    assert detect_faces(noise) == ()


@pytest.mark.parametrize(("name", "message"), [("unknown", "not one of"), ("uniface", "needs a model file")])
def test_unknown_detectors_are_rejected(name, message) -> None:
    with pytest.raises(InputError, match=message):
        open_detector(name)


@pytest.mark.parametrize(
    ("kind", "file", "message"),
    [
        ("insightface", "none.onnx", "does not exist"),
        ("insightface", "det.onnx", "not a detector that insightface can open"),
        ("uniface", "det.onnx", "not a detector of uniface"),
        ("uniface", "scrfd_10g.onnx", "not a detector of uniface|SHA-256 differs"),
    ],
)
def test_damaged_external_detectors_are_rejected(tmp_path, kind, file, message) -> None:
    pytest.importorskip(kind)
    for name in ("det.onnx", "scrfd_10g.onnx"):
        (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(WeightsError, match=message):
        open_detector(kind, tmp_path / file)
