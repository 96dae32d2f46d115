"""The built-in model on the public-domain portrait."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.faces.align import five_points
from faceveil.pipelines.faces.face import Face, eye_opening, inter_ocular, mouth_gap, yaw_proxy
from faceveil.pipelines.faces.landmarks import fit_landmarks
from faceveil.pipelines.methods.appearance.canonical import REGIONS, SIZE, mirrored
from faceveil.pipelines.methods.appearance.latent import appearance_of, latent_of
from faceveil.pipelines.methods.appearance.method import AppearanceMethod, Prepared
from faceveil.pipelines.methods.appearance.network import FILE, AppearanceModel, aligned, load_model
from faceveil.pipelines.methods.appearance.shading import apply_gain, from_log, to_log
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.identities import MethodIdentity, load_any_identity, save_any_identity
from faceveil.pipelines.recognition.dlib_resnet import default_recognizer
from faceveil.weights.builtin import open_builtin
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def method() -> AppearanceMethod:
    return AppearanceMethod(trials=8)


@pytest.fixture(scope="module")
def model(method) -> AppearanceModel:
    return method.model


@pytest.fixture(scope="module")
def view(portrait, portrait_faces) -> View:
    face = portrait_faces[0]
    return View(portrait, face, default_recognizer().embed(portrait, face.points))


@pytest.fixture(scope="module")
def prepared(method, view) -> Prepared:
    return method.prepare(view)


@pytest.fixture(scope="module")
def identity(method, prepared) -> MethodIdentity:
    return method.sample_identity([prepared], 3)


def test_from_log_inverts_to_log() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(from_log(to_log(image)), image, atol=1e-6)
    assert torch.allclose(apply_gain(image, torch.zeros(1)), image, atol=1e-6)


def test_region_masks_sum_to_one(model) -> None:
    total = sum(model.canonical.regions.values())
    assert (total - 1).abs().max() < 1e-4


def test_codes_round_trip(model) -> None:
    rng = np.random.default_rng(0)
    codes = {n: rng.normal(size=r.components).astype(np.float32) * 0.3 for n, r in model.regions.items()}
    detail = model.decode(codes)
    assert detail.shape == (1, 3, SIZE, SIZE)
    again = model.decode(model.encode(detail))
    assert (again - detail).abs().mean() < 0.15 * detail.abs().mean()


def test_mirroring_is_a_change_of_signs(model, prepared) -> None:
    detail = prepared.subject.decomposition.detail * model.canonical.core
    plain, flipped = model.encode(detail), model.encode(detail.flip(-1))
    for name in REGIONS:
        assert np.abs(flipped[name] - plain[name] * model.regions[name].sign).max() < 1e-3
    assert np.array_equal(mirrored(mirrored(model.canonical.mean)), model.canonical.mean)


def test_strength_zero_is_the_photo(method, prepared, identity, portrait) -> None:
    change = method.render(prepared, identity, 0.0)
    x, y = change.origin
    patch = portrait[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]]
    assert (change.patch - patch).abs().max() < 1.5 / 255


def test_distance_increases_with_strength(method, prepared, identity, view) -> None:
    recognizer = default_recognizer()
    distances = []
    for strength in (0.0, 0.4, 0.8, 1.0):
        change = method.render(prepared, identity, strength)
        distances.append(
            recognizer.distance(recognizer.embed(change.patch, change.points - np.array(change.origin)), view.embedding)
        )
    assert distances == sorted(distances)
    assert distances[0] < 0.25
    assert distances[-1] >= 0.6
    beyond = method.render(prepared, identity, 1.5)
    assert torch.isfinite(beyond.patch).all()
    assert (beyond.patch - change.patch).abs().mean() > 1e-3


def test_the_seed_determines_the_identity(method, prepared, identity) -> None:
    again = method.sample_identity([prepared], 3)
    assert all(np.array_equal(again.codes[n], identity.codes[n]) for n in REGIONS)
    assert torch.equal(method.render(prepared, again, 1.0).patch, method.render(prepared, identity, 1.0).patch)
    other = method.sample_identity([prepared], 4)
    assert not np.array_equal(other.codes["eyes"], identity.codes["eyes"])


def test_pixels_outside_the_mask_are_unchanged(method, prepared, identity, portrait) -> None:
    change = method.render(prepared, identity, 1.0)
    x, y = change.origin
    patch = portrait[..., y : y + change.patch.shape[-2], x : x + change.patch.shape[-1]]
    assert torch.equal(torch.where(change.mask > 0, patch, change.patch), patch)
    assert 0.05 < change.mask.mean() < 0.9


def test_pose_and_expression_are_kept(method, prepared, view) -> None:
    before, changes = view.face.points, []
    for seed in range(5):
        change = method.render(prepared, method.sample_identity([prepared], seed), 1.0)
        meant = change.points - np.array(change.origin)
        # Measure with landmarks that are detected in the result.
        points = fit_landmarks(change.patch, np.concatenate([meant.min(0), meant.max(0)]), five_points(meant))
        changes.append([abs(f(points) - f(before)) for f in (yaw_proxy, mouth_gap, eye_opening)])
        assert abs(inter_ocular(points) / inter_ocular(before) - 1) < 0.2
    # Single landmarks are noisy.
    assert (np.mean(changes, axis=0) < [0.014, 0.015, 0.02]).all()
    assert (np.max(changes, axis=0) < [0.06, 0.04, 0.05]).all()


def test_a_joint_search_protects_both_photos(method, prepared, portrait, portrait_faces) -> None:
    dark = portrait**1.4
    embedding = default_recognizer().embed(dark, portrait_faces[0].points)
    second = method.prepare(View(dark, portrait_faces[0], embedding))
    shared = method.sample_identity([prepared, second], 1)
    for one, original in ((prepared, prepared.subject.embeddings[0]), (second, embedding)):
        change = method.render(one, shared, 1.0)
        rendered = default_recognizer().embed(change.patch, change.points - np.array(change.origin))
        assert np.linalg.norm(rendered - original) > 0.55


def test_identity_file_round_trips(tmp_path, model, identity, prepared) -> None:
    path = tmp_path / "person.safetensors"
    save_any_identity(path, identity)
    again = load_any_identity(path)
    a, b = (appearance_of(model, latent_of(model, p), prepared.subject).textures for p in (identity, again))
    assert all(np.abs(a[n] - b[n]).max() < 1e-4 for n in REGIONS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "does not exist"),
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "not a complete safetensors file"),
        (lambda p: p.write_bytes(b"\x80\x04K\x01."), "not a complete safetensors file"),
        (lambda p: _rewrite(p, lambda t, m: (t, {})), "not an identity file"),
        (lambda p: _rewrite(p, lambda t, m: ({k: v[:3].clone() for k, v in t.items()}, m)), "another appearance model"),
        (lambda p: _rewrite(p, lambda t, m: ({k: v * float("nan") for k, v in t.items()}, m)), "not finite"),
    ],
)
def test_bad_identity_files_are_refused(tmp_path, model, identity, spoil, message) -> None:
    path = tmp_path / "person.safetensors"
    save_any_identity(path, identity)
    spoil(path)
    with pytest.raises(InputError, match=message):
        latent_of(model, load_any_identity(path))


def _rewrite(path, change) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(path), "pt") as file:
        tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()
    tensors, metadata = change(tensors, metadata)
    save_file(tensors, str(path), metadata)


def test_unsupported_faces_are_refused(method, portrait_faces) -> None:
    face = portrait_faces[0]
    assert method.unsupported_reason(face) is None
    assert "no landmarks" in method.unsupported_reason(Face(face.box))
    assert "too small" in method.unsupported_reason(face.with_points(face.points * 0.2))
    model = method.model.shapes
    angle = np.radians(55)
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    profile = (80 * model.mean @ rotation[:2].T + [200, -200]) * [1, -1]
    assert "yaw is too large" in method.unsupported_reason(face.with_points(profile))


def test_a_damaged_model_is_refused(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        load_model(path)
    with pytest.raises(WeightsError, match="does not exist"):
        load_model(tmp_path / "none.safetensors")
    tensors, metadata = open_builtin(FILE)
    for name, value in (("eyes.scale", torch.ones(3)), ("eyes.sign", torch.ones(4))):
        save_file({k: v.contiguous() for k, v in (tensors | {name: value}).items()}, path, metadata)
        with pytest.raises(WeightsError, match="is damaged"):
            load_model(path)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata | {"shape_noise": "much"})
    with pytest.raises(WeightsError, match="is damaged"):
        load_model(path)


def test_a_given_identity_is_approached(method, prepared, view) -> None:
    from faceveil.pipelines.identity.identity import Identity
    from faceveil.pipelines.identity.lds import builtin_sampler

    recognizer = default_recognizer()
    target = Identity(builtin_sampler("dlib").sample(1, 4).vectors, "dlib")
    change = method.render(prepared, method.from_identity([prepared], target, 0), 1.0)
    embedding = recognizer.embed(change.patch, change.points - np.asarray(change.origin))
    cosines = [
        builtin_sampler("dlib").cosine(v / np.linalg.norm(v), target.vector).item() for v in (view.embedding, embedding)
    ]
    assert cosines[1] > cosines[0] + 0.2
    with pytest.raises(InputError, match="needs an identity of the space dlib"):
        method.from_identity([prepared], Identity(np.ones(512), "arcface-w600k"), 0)


def test_seeds_give_different_identities(method, prepared) -> None:
    embedding = []
    for seed in range(3):
        change = method.render(prepared, method.sample_identity([prepared], seed), 1.0)
        embedding.append(default_recognizer().embed(change.patch, change.points - np.asarray(change.origin)))
    distances = [float(np.linalg.norm(embedding[a] - embedding[b])) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(distances) > 0.15


def test_products_do_not_depend_on_the_place_of_a_vector_in_the_memory(model) -> None:
    matrix, code = model.regions["eyes"].even, np.random.default_rng(1).normal(size=model.regions["eyes"].even.shape[1])
    products = set()
    for offset in range(16):
        space = np.empty(len(code) + 16, np.float32)
        space[offset : offset + len(code)] = code
        moved = space[offset : offset + len(code)]
        products.add((matrix @ aligned(moved)).numpy().tobytes())
    assert len(products) == 1
