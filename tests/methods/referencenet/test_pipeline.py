"""The pipeline: parity with the authors' pipeline, batches, image sizes, and reuse of encoded images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.methods.referencenet.attention import (
    ReadStates,
    ReadStatesInTraining,
    ReferenceTokens,
    WriteState,
    read_in_training,
    self_attentions,
)
from faceveil.pipelines.methods.referencenet.network import mix, weaken
from faceveil.pipelines.methods.referencenet.pipeline import RandomSources, paper_scheduler

FIXTURE = Path(__file__).parent / "fixture"

CASES = json.loads((FIXTURE / "manifest.json").read_text())["cases"]


def faces(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_parity_with_the_authors(parity, folder, pipeline, case) -> None:
    errors = parity.check(folder, case, pipeline)
    assert errors.fp32 <= 2e-4
    assert errors.fp64 <= 1e-9
    assert errors.end_to_end <= 5e-4


def test_float64_parity_does_not_depend_on_float32_sine(parity, folder, pipeline, monkeypatch) -> None:
    """The float32 exp, sin and cos of another CPU can differ in the last bit; here all values are one unit larger."""
    from diffusers.models import embeddings

    exact = embeddings.get_timestep_embedding

    def larger(*args, **kwargs) -> torch.Tensor:
        values = exact(*args, **kwargs)
        return torch.nextafter(values, torch.full_like(values, 2.0))

    monkeypatch.setattr(embeddings, "get_timestep_embedding", larger)
    errors = parity.check(folder, CASES[0], pipeline)
    assert errors.fp64 <= 1e-9
    assert errors.fp32 <= 2e-4


def test_time_steps_equal_the_authors(parity, folder) -> None:
    for case in CASES:
        scheduler = parity.scheduler_of(folder, case["scheduler"])
        scheduler.set_timesteps(case["steps"])
        assert scheduler.timesteps.tolist() == case["timesteps"]
    scheduler = paper_scheduler()
    scheduler.set_timesteps(200)
    assert scheduler.timesteps[:2].tolist() == [996, 991]
    assert scheduler.timesteps[-1] == 1


def test_only_the_first_state_of_each_block_is_recorded(pipeline) -> None:
    recorded = pipeline.source_net.record(torch.zeros(1, 4, 16, 16), torch.zeros(1, 1, 32))
    assert len(self_attentions(pipeline.unet)) == 11
    assert list(recorded) == [
        ("down_blocks.0", 0),
        ("down_blocks.1", 0),
        ("mid_block", 0),
        ("up_blocks.1", 0),
        ("up_blocks.2", 0),
    ]


@pytest.mark.parametrize("kind", ["write", "read", "read in training"])
@pytest.mark.parametrize("name", ["attention_mask", "encoder_hidden_states"])
def test_masks_and_encoder_states_are_refused(pipeline, kind, name) -> None:
    tokens = ReferenceTokens((torch.zeros(1, 2, 4, 8),), torch.zeros(1, 2, 4, 8))
    processor = {
        "write": WriteState({}, None, False),
        "read": ReadStates(tokens, tokens),
        "read in training": ReadStatesInTraining({("mid_block", 0): (torch.zeros(1, 4, 16),) * 2}, ("mid_block", 0)),
    }[kind]
    attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    hidden = torch.zeros(1, 4, 16)
    assert processor(attention, hidden, encoder_hidden_states=None, attention_mask=None).shape == hidden.shape
    with pytest.raises(InputError, match=f"{name} is not supported in the self-attentions of referencenet"):
        processor(attention, hidden, **{name: torch.zeros(1, 4, 16)})


def test_unet_refuses_an_attention_mask(pipeline) -> None:
    latents, context = torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 32)
    read_in_training(pipeline.unet)
    with pytest.raises(InputError, match="attention_mask is not supported"):
        pipeline.unet(latents, 1, context, attention_mask=torch.ones(1, 64))


@pytest.mark.parametrize("degree", [0.5, 1.0, 1.25])
def test_batch_equals_single_faces(pipeline, degree) -> None:
    images = faces(2)
    both = pipeline.anonymize(images, degree, steps=3, generators=seeded(3, 4))
    for i in range(2):
        alone = pipeline.anonymize(images[i : i + 1], degree, steps=3, generators=seeded(3 + i))
        assert (both[i] - alone[0]).abs().max() < 1e-4


def test_batch_equals_single_faces_with_stochastic_scheduler(pipeline) -> None:
    pipeline.scheduler = paper_scheduler()
    images = faces(3)
    both = pipeline.swap(images, images.flip(-1), steps=3, generators=seeded(3, 4, 5))
    first_and_last = pipeline.swap(images[[0, 2]], images.flip(-1)[[0, 2]], steps=3, generators=seeded(3, 5))
    assert (both[[0, 2]] - first_and_last).abs().max() < 1e-4


def test_same_seed_same_image_other_seed_other_image(pipeline) -> None:
    first, again, other = (pipeline.anonymize(faces(1), steps=3, generators=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)


def test_given_latents_are_used(pipeline) -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    a, b = (pipeline.anonymize(faces(1), steps=2, generators=seeded(1), latents=scale * noise) for scale in (1, -1))
    assert not torch.allclose(a, b, atol=1e-2)
    with pytest.raises(InputError, match=r"need \(1, 4, 8, 8\)"):
        pipeline.anonymize(faces(1), latents=noise[..., :4])


def count(monkeypatch, owner, name: str) -> list[int]:
    calls: list[int] = []
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args[0].shape[0] if args and isinstance(args[0], torch.Tensor) else 1)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


def test_several_degrees_encode_once(pipeline, monkeypatch) -> None:
    vae, clip = count(monkeypatch, pipeline.vae, "encode"), count(monkeypatch, pipeline.image_encoder, "forward")
    driving, source = (
        count(monkeypatch, pipeline.driving_net.unet, "forward"),
        count(monkeypatch, pipeline.source_net.unet, "forward"),
    )
    images = faces(1)
    encoded = pipeline.encode(images, images, RandomSources.of(1, seeded(1), False))
    for degree in (0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        pipeline.generate(encoded, degree, 4.0, 1, RandomSources.of(1, seeded(1), False))
    # The VAE samples twice from its posterior, as in the authors' code. The source net runs once for the unconditional
    # row, and once for each degree except 1.
    assert (len(vae), len(clip), len(driving), len(source)) == (2, 1, 1, 1 + 6)
    again = pipeline.encode(images, images, RandomSources.of(1, seeded(2), False))
    assert len(source) == 7
    assert again.unconditional is encoded.unconditional


@pytest.mark.parametrize(("degree", "guidance", "rows"), [(1.25, 4.0, 2), (1.0, 4.0, 1), (1.25, 1.0, 1), (0.5, 0.0, 1)])
def test_one_row_if_guidance_has_no_effect(pipeline, monkeypatch, degree, guidance, rows) -> None:
    calls = count(monkeypatch, pipeline.unet, "forward")
    pipeline.anonymize(faces(1), degree, guidance, steps=2, generators=seeded(1))
    assert calls == [rows, rows]


def test_guidance_has_no_effect_at_degree_one(pipeline) -> None:
    a, b = (pipeline.anonymize(faces(1), 1.0, g, steps=3, generators=seeded(1)) for g in (1.0, 9.0))
    assert torch.equal(a, b)


def test_equations() -> None:
    z, s, u = torch.ones(1, 1, 2), {("a", 0): torch.ones(1, 2, 2)}, {("a", 0): torch.full((1, 2, 2), 3.0)}
    assert weaken(z, 1.25).unique().item() == -0.25
    assert mix(s, u, 1.25)[("a", 0)].unique().item() == -0.25 * 1 + 1.25 * 3
    assert torch.equal(mix(s, u, 0.0)[("a", 0)], s[("a", 0)])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 60), (72, 40)])
def test_other_image_sizes(pipeline, height, width) -> None:
    result = pipeline.anonymize(faces(1, height, width), steps=2, generators=seeded(1))
    assert result.shape == (1, 3, height // 8 * 8, width // 8 * 8)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("degree", [0.0, -0.5, 2.5, float("nan")])
def test_degrees_out_of_range_are_refused(pipeline, degree) -> None:
    with pytest.raises(InputError, match="degree must be above 0"):
        pipeline.anonymize(faces(1), degree)


def test_bad_batches_are_refused(pipeline) -> None:
    with pytest.raises(InputError, match="2 source images but 1 driving images"):
        pipeline.swap(faces(2), faces(1))
    with pytest.raises(InputError, match="2 faces need 2 generators, got 1"):
        pipeline.anonymize(faces(2), generators=seeded(1))
    with pytest.raises(InputError, match="too small"):
        pipeline.anonymize(faces(1, 7, 7))
    with pytest.raises(InputError, match="exactly one generator"):
        pipeline.anonymize(faces(1), generators=seeded(1, 2), reference_rng=True)


def test_processors_of_the_denoiser_are_restored(pipeline) -> None:
    before = dict(pipeline.unet.attn_processors)
    pipeline.anonymize(faces(1), steps=1)
    assert pipeline.unet.attn_processors == before

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.anonymize(faces(1), steps=1, progress=stop)
    assert pipeline.unet.attn_processors == before


def test_bfloat16_works(pipeline) -> None:
    exact = pipeline.anonymize(faces(1), steps=2, generators=seeded(1))
    rough = pipeline.to(torch.bfloat16).anonymize(faces(1), steps=2, generators=seeded(1))
    assert rough.dtype == torch.float32
    assert torch.isfinite(rough).all()
    assert (rough - exact).abs().mean() < 0.1


def test_offloading_does_not_change_the_result(pipeline, monkeypatch) -> None:
    plain = pipeline.anonymize(faces(1), steps=2, generators=seeded(1))
    moved = []
    original = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda net, *where: moved.append((net, str(where[0]))) or original(net, *where)
    )
    pipeline.offload = True
    assert torch.equal(pipeline.anonymize(faces(1), steps=2, generators=seeded(1)), plain)
    # Each network is moved to the device and back, except the denoiser.
    names = {
        id(n): k
        for k, n in (
            ("vae", pipeline.vae),
            ("clip", pipeline.image_encoder),
            ("source", pipeline.source_net.unet),
            ("driving", pipeline.driving_net.unet),
            ("unet", pipeline.unet),
        )
    }
    assert {names[id(net)] for net, _ in moved if id(net) in names} == {"vae", "clip", "source", "driving"}
