"""The pipeline and the method on the recorded tiny networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from faceveil.pipelines.core.errors import CannotReplace, InputError
from faceveil.pipelines.faces.align import apply, five_points
from faceveil.pipelines.faces.face import inter_ocular
from faceveil.pipelines.faces.landmarks import fit_landmarks
from faceveil.pipelines.faces.regions import region_masks
from faceveil.pipelines.methods.base import View
from faceveil.pipelines.methods.inversion import nullface
from faceveil.pipelines.methods.inversion.denoiser import alphas_bar, draw
from faceveil.pipelines.methods.inversion.dials import Algorithm
from faceveil.pipelines.methods.inversion.method import InversionMethod
from faceveil.pipelines.methods.inversion.pipeline import InversionPipeline, UNetDenoiser, held_mask, latent_mask
from faceveil.pipelines.recognition.arcface import SPACE
from faceveil.pipelines.recognition.base import FaceRecognizer
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

FAMILIES: dict[str, Algorithm] = {"sd15": "nullface", "sdxl": "reverse_personalization"}


@pytest.fixture(params=FAMILIES)
def pipeline(request, networks_of) -> InversionPipeline:
    return InversionPipeline(networks_of(request.param), FAMILIES[request.param], 10)


def faces(height: int, width: int, count: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(2)
    small = torch.rand(count, 3, 6, 6, generator=g)
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)


def people(pipeline: InversionPipeline, count: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.nn.functional.normalize(
        torch.randn(count, pipeline.networks.adapter.embedding_size, generator=g), dim=1
    )


def test_strength_0_is_the_round_trip(pipeline) -> None:
    images = faces(64, 64)
    with torch.no_grad():
        trip = pipeline.decode(pipeline.encode(images))
    assert torch.equal(pipeline.anonymize(images, people(pipeline, 1), 0.0), trip)
    assert not torch.equal(pipeline.anonymize(images, people(pipeline, 1), 0.2), trip)


def test_odd_sizes_and_a_batch(pipeline) -> None:
    images, who = faces(64, 91, 2), people(pipeline, 2)
    both = pipeline.anonymize(images, who, seeds=[5, 6])
    assert both.shape == (2, 3, 64, 88)
    for row in (0, 1):
        alone = pipeline.anonymize(images[row : row + 1], who[row : row + 1], seeds=[5 + row])
        assert (both[row : row + 1] - alone).abs().max() < 1e-3
    again = pipeline.anonymize(images, who, seeds=[5, 6])
    assert torch.equal(both, again)
    assert (both - pipeline.anonymize(images, who, seeds=[7, 8])).abs().max() > 0.01


def test_rows_together_equal_rows_apart(pipeline) -> None:
    x = draw(torch.zeros(2, 4, 8, 8), 1, [0, 1])[0]
    rows = ("empty", "identity") if pipeline.algorithm == "nullface" else ("nothing", "identity")
    denoise = UNetDenoiser(pipeline.networks.unet, pipeline.conditions(people(pipeline, 2), 64, 64))
    for together, row in zip(denoise(x, 201, rows), rows, strict=True):
        assert (together - denoise(x, 201, (row,))[0]).abs().max() < 1e-5


def test_bfloat16(pipeline) -> None:
    images, who = faces(64, 64), people(pipeline, 1)
    exact = pipeline.anonymize(images, who, 0.3)
    pipeline.networks.unet.to(torch.bfloat16)
    rough = pipeline.anonymize(images, who, 0.3)
    assert rough.dtype == torch.float32 and (exact - rough).abs().mean() < 0.05


def test_it_stops_at_once(pipeline) -> None:
    calls = []

    def progress(done: int, total: int, what: str) -> None:
        calls.append(what)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.anonymize(faces(64, 64), people(pipeline, 1), progress=progress)
    assert len(calls) == 5


def test_bad_input(pipeline) -> None:
    with pytest.raises(InputError, match="too small"):
        pipeline.anonymize(faces(7, 64), people(pipeline, 1))
    with pytest.raises(InputError, match="as many embeddings"):
        pipeline.anonymize(faces(64, 64, 2), people(pipeline, 1))
    with pytest.raises(InputError, match="strength"):
        pipeline.anonymize(faces(64, 64), people(pipeline, 1), 1.7)


def test_a_mask_of_pixels_becomes_cells() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:32, 8:40] = 0.6
    cells = latent_mask(mask, 8, 8)
    assert set(cells.unique().tolist()) == {0.0, 1.0}
    hole = torch.ones(1, 1, 64, 64)
    hole[..., 33, 33] = 0
    assert held_mask(hole, 8, 8).sum() == 63 and latent_mask(hole, 8, 8).sum() == 64
    assert cells[0, 0, 2:4, 1:5].all() and cells.sum() == 8


class Stand(FaceRecognizer):
    """Instead of w600k_r50, which no test has."""

    name, alignment = SPACE, "none"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def embed_many(self, images: Any, landmarks: Any) -> np.ndarray:
        return np.full((len(images), self.dimension), self.dimension**-0.5)


def method_of(pipeline: InversionPipeline, **options: Any) -> InversionMethod:
    size = pipeline.networks.adapter.embedding_size
    return InversionMethod(pipeline, Stand(size), 96, **options)


def test_the_method_changes_the_face_alone(pipeline, portrait, portrait_faces) -> None:
    method, face = method_of(pipeline), portrait_faces[0]
    assert method.unsupported_reason(face) is None
    prepared = method.prepare(View(portrait, face, np.zeros(1)))
    who = method.sample_identity([prepared], 4)
    change = method.render(prepared, who, 1.0)
    x, y = change.origin
    height, width = change.patch.shape[-2:]
    before = portrait[..., y : y + height, x : x + width]
    same = (change.patch == before).all(1, keepdim=True)
    assert bool((same | (change.mask > 0)).all())
    assert 0.1 < float(change.mask.mean()) < 0.9
    assert torch.equal(method.render(prepared, who, 1.0).patch, change.patch)
    assert torch.equal(method.render(prepared, who, 0.0).patch, before)
    other = method.render(prepared, method.sample_identity([prepared], 5), 1.0)
    assert (other.patch - change.patch).abs().max() > 0.01


def test_kept_eyes_keep_their_latents(pipeline, portrait, portrait_faces, monkeypatch) -> None:
    method, face = method_of(pipeline, keep=("eyes",)), portrait_faces[0]
    prepared = method.prepare(View(portrait, face, np.zeros(1)))
    inside = apply(prepared.transform, face.points)
    monkeypatch.setattr(pipeline, "decode", lambda latents: latents)
    who = torch.from_numpy(prepared.embedding).float()[None]
    changing = method._changing(prepared.square, inside)
    assert changing is not None
    kept = held_mask(changing, 12, 12) == 0
    assert 0 < kept.sum() < 30
    with torch.no_grad():
        trip = pipeline.encode(prepared.square)
    held, free = (pipeline.anonymize(prepared.square, who, 1.0, [4], mask) for mask in (changing, None))
    assert torch.equal(held[kept.expand_as(held)], trip[kept.expand_as(trip)])
    assert (free - trip)[kept.expand_as(trip)].abs().mean() > 0.01
    assert (held - trip)[~kept.expand_as(trip)].abs().mean() > 0.01


def test_the_landmarks_and_the_opening_of_kept_eyes_stay(portrait, portrait_faces) -> None:
    """On pixels as latents, so that the result is a picture that landmarks can be measured in."""
    face, bars = portrait_faces[0], alphas_bar()
    masks = region_masks(portrait, face.points, ("eyes", "face"))
    x0 = pixel_unshuffle(portrait, 8) * 2 - 1

    def denoise(x, t, rows):
        # Pulls towards paler skin where the row has the identity.
        away = torch.where(torch.tensor([row == "identity" for row in rows]).view(-1, 1, 1, 1, 1), x0 * 0.6 + 0.2, x0)
        return tuple((x - bars[t] ** 0.5 * goal) / (1 - bars[t]) ** 0.5 for goal in away)

    inverted = nullface.invert(denoise, bars, x0, draw(x0, 30, [0]), 100)
    cells = held_mask(masks["face"] * (1 - masks["eyes"]), 64, 64)
    pictures = [
        pixel_shuffle(nullface.generate(denoise, bars, inverted, 1.0, mask=mask, hold=True) / 2 + 0.5, 8).clamp(0, 1)
        for mask in (cells, held_mask(masks["face"], 64, 64))
    ]
    box = np.concatenate([face.points.min(0), face.points.max(0)])
    trip, kept, free = (
        fit_landmarks(picture, box, five_points(face.points), 2)[36:48] for picture in (portrait, *pictures)
    )
    iod = inter_ocular(face.points)
    moved = [np.linalg.norm(points - trip, axis=1).max() / iod for points in (kept, free)]
    assert moved[0] < 0.05 and moved[0] <= moved[1] + 0.01
    eyes = masks["eyes"].expand(1, 3, -1, -1) > 0.5
    assert torch.allclose(pictures[0][eyes], portrait[eyes], atol=1e-6)
    assert (pictures[1] - portrait)[eyes].abs().mean() > 0.05


def test_the_rows_have_the_recorded_tokens(case_of, networks_of) -> None:
    """NullFace's person is the opposite embedding, that of Reverse Personalization the embedding itself."""
    for family, name in (("sd15", "nullface_full_mask"), ("sdxl", "reverse_personalization")):
        c = case_of(name).recorded
        embedding = c["face_embedding"].reshape(1, -1)
        rows = InversionPipeline(networks_of(family), FAMILIES[family]).conditions(embedding, 96, 96)
        assert (rows["identity"].tokens - c["tokens_id"]).abs().max() < 1e-5
        assert (rows["empty"].tokens - c["tokens_zero"]).abs().max() < 1e-5
        if family == "sdxl":
            assert torch.equal(rows["nothing"].text.states, c["text_inversion_negative"])
            assert torch.equal(rows["empty"].size, torch.tensor([[96.0, 96, 0, 0, 96, 96]]))


def test_a_face_without_an_embedding_is_not_replaced(pipeline, portrait, portrait_faces, monkeypatch) -> None:
    method = method_of(pipeline)
    for bad in (np.nan, 0.0):
        monkeypatch.setattr(method.recognizer, "embed_many", lambda *_, b=bad: np.full((1, 4), b))
        with pytest.raises(CannotReplace, match="no embedding"):
            method.prepare(View(portrait, portrait_faces[0], np.zeros(1)))


def test_the_method_refuses_what_does_not_fit(pipeline) -> None:
    other = Stand(8)
    other.name = "dlib"
    with pytest.raises(InputError, match="w600k_r50"):
        InversionMethod(pipeline, other, 96)
    with pytest.raises(InputError, match="region"):
        method_of(pipeline, keep=("ears",))
