"""Estimation: ground truth of synthetic faces is recovered, real faces are fitted, the published checkpoint loads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.faces.align import apply, invert
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.geometry.alignment import SIDE, STANDARD, aligned_square, reconstruction_transform
from faceveil.pipelines.geometry.camera import project, rotation
from faceveil.pipelines.geometry.clip import join, smooth
from faceveil.pipelines.geometry.coefficients import neutral
from faceveil.pipelines.geometry.fitting import Fitter, _solve_bounded, project_landmarks
from faceveil.pipelines.geometry.gaze import gaze_of
from faceveil.pipelines.geometry.names import EXPRESSION_SLIDERS, SHAPE_SLIDERS
from faceveil.pipelines.geometry.readers import load_ict
from faceveil.pipelines.geometry.regressor import HEADS, ReconstructionNet, Regressor, from_net_recon
from faceveil.pipelines.geometry.renderer import render
from faceveil.pipelines.geometry.reshape import reshape
from faceveil.pipelines.geometry.sampling import sample_geometry
from faceveil.pipelines.geometry.sliders import EXPRESSION, SHAPE, apply_sliders
from faceveil.pipelines.imaging.resample import pixel_grid, sample
from faceveil.pipelines.imaging.uint8 import from_pillow, to_pillow
from faceveil.pipelines.viz.geometry import STYLES, overlay, render_styled
from PIL import Image


@pytest.fixture(scope="module")
def fitter(model) -> Fitter:
    return Fitter(model)


@pytest.mark.parametrize("seed", range(4))
def test_rendered_ground_truth_is_recovered(model, fitter, random_faces, seed) -> None:
    truth = random_faces(model, 1, seed)
    image, points = render(model, truth, SIDE).image.clamp(0, 1), project_landmarks(model, truth)[0].double().numpy()
    found = fitter(image, points)
    back = apply(
        invert(found.transforms[0].double().numpy()), project_landmarks(model, found.coefficients)[0].double().numpy()
    )
    assert np.sqrt(((back - points) ** 2).sum(1).mean()) <= 0.6
    difference = rotation(found.coefficients.angles)[0] @ rotation(truth.angles)[0].T
    assert math.degrees(math.acos(min(1.0, float((difference.trace() - 1) / 2)))) <= 1.5

    def shape(identity: torch.Tensor) -> torch.Tensor:
        return (identity @ model.identity.flatten(1)).view(-1, 3)

    error = (shape(found.coefficients.identity) - shape(truth.identity)).norm(dim=1).square().mean().sqrt()
    prior = model.identity.square().sum(2).mean(1).sum().sqrt()
    assert error * 3 <= prior
    assert float(found.errors) < 0.01


def test_a_portrait_is_fitted(model, fitter, portrait, portrait_faces) -> None:
    found = fitter(portrait, portrait_faces[0].points)
    assert float(found.errors) < 0.02
    rendered, mask = overlay(model, portrait, found, "shaded", 1.0)
    inside = mask[0, 0] > 0.99
    x, y = (round(v) for v in portrait_faces[0].points[30])
    assert inside[y, x] and not inside[:40].any() and torch.equal(rendered[..., :40, :], portrait[..., :40, :])
    # Light and texture fit the image much better than one uniform color.
    error = (rendered - portrait)[0][:, inside].abs().mean()
    flat = (portrait[0][:, inside] - portrait[0][:, inside].mean(1, keepdim=True)).abs().mean()
    assert error < 0.75 * flat


def test_fitting_works_in_inference_mode_and_can_be_interrupted(fitter, portrait, portrait_faces) -> None:
    steps = []
    with torch.inference_mode():
        image = portrait.clone()
        found = fitter(image, portrait_faces[0].points, lambda done, total, what: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] and len(steps) > 10 and float(found.errors) < 0.02

    def stop(done: int, total: int, what: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitter(portrait, portrait_faces[0].points, stop)


def test_ict_can_be_fitted(ict_folder, portrait, portrait_faces) -> None:
    """The fit is coarse with 3 of 100 identity modes, and blend-shape coefficients stay between 0 and 1."""
    found = Fitter(load_ict(ict_folder))(portrait, portrait_faces[0].points)
    assert float(found.errors) < 0.08
    assert float(found.coefficients.expression.min()) >= 0 and float(found.coefficients.expression.max()) <= 1


def test_the_alignment_scales_a_standard_face() -> None:
    flat, _ = project(torch.from_numpy(STANDARD)[None], 500)
    five = flat[0].numpy()
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[30], points[48], points[54] = five
    transform = reconstruction_transform(points, 500, 500)
    aligned = apply(transform, points)
    assert np.linalg.norm(aligned[42] - aligned[36]) == pytest.approx(102 * 0.6213, rel=0.01)
    assert transform[0, 2] == int(transform[0, 2]) and int(transform[0, 0] * 500) == round(transform[0, 0] * 500)


def test_the_alignment_is_that_of_deep3dfacerecon(portrait, portrait_faces) -> None:
    """The authors' steps, written out with Pillow: landmarks at whole pixels, resize, crop with whole offsets."""
    points, image = portrait_faces[0].points, to_pillow(portrait)
    width, height = image.size
    five = np.stack([(points[36] + points[39]) / 2, (points[42] + points[45]) / 2, points[30], points[48], points[54]])
    index = five - 0.5
    known = np.stack([index[:, 0], height - 1 - index[:, 1]], 1)
    a = np.zeros((10, 8))
    a[0::2, :3], a[0::2, 3], a[1::2, 4:7], a[1::2, 7] = STANDARD, 1, STANDARD, 1
    k = np.linalg.lstsq(a, known.reshape(-1), rcond=None)[0]
    factor = 102 / ((np.linalg.norm(k[:3]) + np.linalg.norm(k[4:7])) / 2)
    size = int(width * factor), int(height * factor)
    left = int(size[0] / 2 - 112 + (k[3] - width / 2) * factor)
    top = int(size[1] / 2 - 112 + (height / 2 - k[7]) * factor)
    square = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    transform = reconstruction_transform(points, height, width)
    assert np.allclose(transform, [[size[0] / width, 0, -left], [0, size[1] / height, -top]])
    assert torch.equal(aligned_square(portrait, transform), from_pillow(square))
    # Landmarks of the authors, at whole pixels, against ours, in which pixel centers are at halves.
    theirs = index * [size[0] / width, size[1] / height] - [left, top]
    ours = apply(transform, five) - 0.5
    assert np.abs(theirs - ours).max() < 0.5


def test_a_tiny_face_in_a_large_image_is_aligned() -> None:
    transform = np.array([[20.0, 0.0, -3000.0], [0.0, 20.0, -3000.0]])
    assert aligned_square(torch.rand(1, 3, 600, 600), transform).shape == (1, 3, 224, 224)


@pytest.mark.parametrize("seed", range(4))
def test_a_bounded_solution_cannot_be_improved(seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    root, vector = (torch.randn(*shape, generator=generator).double() for shape in ((12, 12), (12,)))
    matrix = root @ root.T + 0.1 * torch.eye(12)
    low, high = torch.full((12,), -torch.inf).double(), torch.full((12,), torch.inf).double()
    low[4:], high[4:] = 0, 0.3
    found = _solve_bounded(matrix, vector, low, high)
    assert (found >= low - 1e-8).all() and (found <= high + 1e-8).all()
    slope = matrix @ found - vector
    inside = (found > low + 1e-7) & (found < high - 1e-7)
    assert slope[inside].abs().max() < 1e-6
    assert (slope[found <= low + 1e-7] > -1e-6).all() and (slope[found >= high - 1e-7] < 1e-6).all()


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (5, 0), (-5, 0), (0, -3)])
def test_gaze_follows_the_pupil(dx, dy) -> None:
    points = np.zeros((68, 2))
    ring = np.array([[-16, 0], [-8, -7], [8, -7], [16, 0], [8, 7], [-8, 7]], dtype=float)
    image = torch.full((1, 3, 120, 200), 0.9)
    for eye, center in ((slice(36, 42), (60, 60)), (slice(42, 48), (140, 60))):
        points[eye] = ring + center
        y, x = torch.meshgrid(torch.arange(120) + 0.5, torch.arange(200) + 0.5, indexing="ij")
        image[:, :, (x - center[0] - dx) ** 2 + (y - center[1] - dy) ** 2 < 16] = 0.05
    gaze = gaze_of(image, points)
    assert np.abs(gaze - np.array([dx, -dy, dx, -dy]) / 16).max() < 0.08
    # Given pupils are used, and the roll of the head is compensated.
    angle = np.radians(30)
    roll = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    pupils = np.array([[60 + dx, 60 + dy], [140 + dx, 60 + dy]]) @ roll.T
    assert np.allclose(gaze_of(image, points @ roll.T, pupils), np.array([dx, -dy, dx, -dy]) / 16)


def test_closed_eyes_have_no_gaze() -> None:
    points = np.zeros((68, 2))
    points[36:42] = points[42:48] = np.array([[-16, 0], [-8, -0.5], [8, -0.5], [16, 0], [8, 0.5], [-8, 0.5]]) + 50
    assert np.array_equal(gaze_of(torch.rand(1, 3, 100, 100), points), np.zeros(4))


def test_a_clip_is_one_person_without_jitter(model, fitter, portrait, portrait_faces) -> None:
    rng = np.random.default_rng(0)
    points = portrait_faces[0].points
    frames = join([fitter(portrait, points + rng.normal(0, 0.8, points.shape)) for _ in range(7)])
    smoothed = smooth(frames, 2.0)
    assert torch.equal(smoothed.coefficients.identity, smoothed.coefficients.identity[:1].expand(7, -1))

    def jitter(estimate) -> float:
        return float(estimate.coefficients.angles.diff(dim=0).norm(dim=1).mean())

    assert jitter(smoothed) < 0.4 * jitter(frames)
    assert torch.equal(smooth(frames, 0.0).coefficients.angles, frames.coefficients.angles)
    with pytest.raises(InputError, match="0 frames or more"):
        smooth(frames, -1)
    with pytest.raises(InputError, match="no faces to estimate"):
        join([])


@pytest.mark.parametrize("style", STYLES)
def test_every_style_renders(model, random_faces, style) -> None:
    image, mask = render_styled(model, random_faces(model, 2, 0), style, 96)
    assert image.shape == (2, 3, 96, 96) and mask.shape == (2, 1, 96, 96)
    assert image.min() >= 0 and image.max() <= 1 and image[mask.expand_as(image) > 0].mean() > 0.03
    assert image[mask.expand_as(image) == 0].max() == 0


def test_wrong_styles_and_models_are_rejected(model) -> None:
    with pytest.raises(InputError, match="'marble' is not one of"):
        render_styled(model, neutral(model.name, model.sizes), "marble")
    with pytest.raises(InputError, match="belong to the model bfm, not to appearance-shape"):
        render_styled(model, replace(neutral("bfm", model.sizes)), "shaded")


def published_keys() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of net_recon, from the published architecture: a ResNet-50 and seven heads."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (size,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["backbone.conv1.weight"] = (64, 3, 7, 7)
    norm("backbone.bn1", 64)
    channels = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 1):
        for block in range(blocks):
            prefix = f"backbone.layer{stage}.{block}"
            for i, (outputs, inputs, size) in enumerate(
                ((width, channels, 1), (width, width, 3), (4 * width, width, 1)), 1
            ):
                shapes[f"{prefix}.conv{i}.weight"] = (outputs, inputs, size, size)
                norm(f"{prefix}.bn{i}", outputs)
            if block == 0:
                shapes[f"{prefix}.downsample.0.weight"] = (4 * width, channels, 1, 1)
                norm(f"{prefix}.downsample.1", 4 * width)
            channels = 4 * width
    for i, size in enumerate(HEADS):
        shapes |= {f"final_layers.{i}.weight": (size, 2048, 1, 1), f"final_layers.{i}.bias": (size,)}
    return shapes


def random_checkpoint(path, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in published_keys().items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) == 4:
            state[key] = torch.randn(shape, generator=generator) / math.sqrt(shape[1] * shape[2] * shape[3])
        else:
            state[key] = torch.rand(shape, generator=generator) * 0.2 + (
                0.9 if key.endswith(("weight", "var")) else 0.0
            )
    torch.save({"net_recon": state, "opt_00": {"state": {}}, "sched_00": {}}, path)
    return state


def plain_resnet(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Reference implementation of the published network.

    The stride is in the 3x3 convolution, and there is no fully connected layer.
    """
    from torch.nn import functional as f

    def norm(x, name):
        s = {k: state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")}
        return f.batch_norm(x, s["running_mean"], s["running_var"], s["weight"], s["bias"])

    x = f.max_pool2d(
        f.relu(norm(f.conv2d(x, state["backbone.conv1.weight"], stride=2, padding=3), "backbone.bn1")), 3, 2, 1
    )
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            prefix, stride = f"backbone.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = f.relu(norm(f.conv2d(x, state[f"{prefix}.conv1.weight"]), f"{prefix}.bn1"))
            y = f.relu(norm(f.conv2d(y, state[f"{prefix}.conv2.weight"], stride=stride, padding=1), f"{prefix}.bn2"))
            y = norm(f.conv2d(y, state[f"{prefix}.conv3.weight"]), f"{prefix}.bn3")
            if block == 0:
                x = norm(f.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride), f"{prefix}.downsample.1")
            x = f.relu(x + y)
    x = x.mean((2, 3), keepdim=True)
    return torch.cat(
        [f.conv2d(x, state[f"final_layers.{i}.weight"], state[f"final_layers.{i}.bias"]) for i in range(7)], 1
    ).flatten(1)


def test_all_keys_of_net_recon_are_loaded(tmp_path, portrait, portrait_faces) -> None:
    pytest.importorskip("transformers")
    state = random_checkpoint(tmp_path / "epoch_20.pth")
    assert set(from_net_recon(state)) == set(ReconstructionNet().state_dict())
    regressor = Regressor(tmp_path / "epoch_20.pth")
    x = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(regressor._net(x), plain_resnet(state, x), atol=1e-4)
    found = regressor(portrait, portrait_faces[0].points)
    assert (
        found.coefficients.model == "bfm"
        and found.coefficients.identity.shape == (1, 80)
        and math.isnan(float(found.errors))
    )
    assert found.coefficients.gaze.abs().max() > 0


def test_bad_checkpoints_are_rejected(tmp_path) -> None:
    pytest.importorskip("transformers")
    torch.save({"net": 3}, tmp_path / "other.pth")
    torch.save({"net_recon": {"backbone.fc.weight": torch.zeros(2)}}, tmp_path / "keys.pth")
    torch.save({"net_recon": torch.nn.Linear(2, 2)}, tmp_path / "code.pth")
    (tmp_path / "cut.pth").write_bytes(b"123")
    for name in ("other.pth", "keys.pth", "code.pth", "cut.pth", "gone.pth"):
        with pytest.raises(WeightsError) as caught:
            Regressor(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_real_portraits_are_fitted(fitter) -> None:
    from faceveil.pipelines.imaging.load import load_image

    from ..conftest import DATA

    photos = sorted((DATA / "photos").glob("portrait_*.jpg"))[:4]
    if not photos:
        pytest.skip("the folder with real photos is missing")
    for path in photos:
        image = load_image(path).pixels
        assert float(fitter(image, detect_faces(image)[0].points).errors) < 0.02


def test_interfaces_list_every_slider() -> None:
    assert tuple(SHAPE) == SHAPE_SLIDERS and tuple(EXPRESSION) == EXPRESSION_SLIDERS


def test_reshape_warps_the_photo_to_the_edited_face(model, fitter, portrait, portrait_faces) -> None:
    """Landmarks detected in the warped photo match those of the edited face. Pixels outside the mask do not change."""
    found = fitter(portrait, portrait_faces[0].points)
    same, empty = reshape(model, portrait, found, found.coefficients)
    assert torch.equal(same, portrait) and empty.sum() == 0
    edited = apply_sliders(model, found.coefficients, {"jaw width": 3.0, "nose width": 3.0})
    warped, mask = reshape(model, portrait, found, edited)
    assert (
        torch.equal(warped[mask.expand_as(warped) == 0], portrait[mask.expand_as(warped) == 0])
        and 0.01 < mask.mean() < 0.3
    )
    detected = detect_faces(warped)[0].points
    back = invert(found.transforms[0].double().numpy())
    wanted, before = (
        apply(back, project_landmarks(model, c)[0].double().numpy()) for c in (edited, found.coefficients)
    )

    def width(points: np.ndarray) -> float:
        return float(points[12, 0] - points[4, 0])

    assert width(detected) - width(portrait_faces[0].points) == pytest.approx(width(wanted) - width(before), rel=0.5)
    with pytest.raises(InputError, match="2 edited faces do not match 1"):
        reshape(model, portrait, found, found.coefficients.rows([0, 0]))


def test_sampled_geometry_changes_the_shape_only(model, fitter, portrait, portrait_faces) -> None:
    own = fitter(portrait, portrait_faces[0].points).coefficients.rows([0, 0])
    near, far = (sample_geometry(own, level, 3, False) for level in (1, 10))
    assert (near.identity - own.identity).norm() < (far.identity - own.identity).norm()
    assert (
        torch.equal(far.identity[0], far.identity[1])
        and torch.equal(far.expression, own.expression)
        and torch.equal(far.texture, own.texture)
    )
    assert torch.equal(far.identity, sample_geometry(own, 10, 3, True).identity) and not torch.equal(
        sample_geometry(own, 10, 3, True).texture, own.texture
    )
    with pytest.raises(InputError, match="belong to bfm"):
        sample_geometry(neutral("bfm", (80, 64, 80)), 1, 0, False)


@pytest.mark.parametrize("name", [*SHAPE, *EXPRESSION])
def test_a_slider_moves_the_photo_s_pixels_as_far_as_it_says(model, portrait, portrait_faces, name) -> None:
    """Each pixel of the warped image says where it was before."""
    found = Fitter(model)(portrait, portrait_faces[0].points)
    height, width = portrait.shape[-2:]
    back = invert(found.transforms[0].double().numpy())
    ramp = pixel_grid(height, width).movedim(-1, 0)[None] / torch.tensor([width, height]).view(1, 2, 1, 1)
    places = torch.cat([ramp, ramp[:, :1]], 1)
    wanted, reached = 0.0, 0.0
    for value in (1.5, -1.5):
        edited = apply_sliders(model, found.coefficients, {name: value})
        warped, _ = reshape(model, places, found, edited)
        before, after = (
            apply(back, project_landmarks(model, c)[0].double().numpy()) for c in (found.coefficients, edited)
        )
        points = sorted({point for point, _, _ in {**SHAPE, **EXPRESSION}[name]})
        now = sample(warped, torch.from_numpy(after[points]).float()[None])[0, :2, 0].T.double().numpy()
        moved = after[points] - now * [width, height]
        wanted += float(((after - before)[points] ** 2).sum())
        reached += float((moved * (after - before)[points]).sum())
    assert 0.8 < reached / wanted < 1.2, reached / wanted
