"""Training on four tiny triplets: the loss falls, a resumed run is exact, and the right parameters are trained."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.imaging.image import LoadedImage
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.methods.referencenet.files import open_pipeline, open_unet
from faceveil.pipelines.methods.referencenet.network import ReferenceNet
from faceveil.pipelines.methods.referencenet.pipeline import RandomSources
from faceveil.pipelines.methods.referencenet.training import PATHS, Config, Trainee, train
from faceveil.pipelines.methods.referencenet.triplets import (
    ResumableSampler,
    TripletDataset,
    build_triplets,
    read_triplets,
)
from faceveil.pipelines.training.config import read_config

FIXTURE = Path(__file__).parent / "fixture"
NETWORK = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 64),
    "layers_per_block": 1,
    "attention_head_dim": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "use_linear_projection": True,
    "norm_num_groups": 8,
}
SIZE = 32
WEIGHTS = "diffusion_pytorch_model.safetensors"


def random_image(seed: int) -> torch.Tensor:
    small = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """Four triplets of random color images, random networks, and a VAE without posterior noise, which cannot be
    predicted."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    root = tmp_path_factory.mktemp("training")
    lines = []
    for i in range(4):
        names = {"source_image": f"s{i}.png", "conditioning_image": f"d{i}.png", "ground_truth": f"t{i}.png"}
        for k, name in enumerate(names.values()):
            save_image(LoadedImage(random_image(3 * i + k)), root / "images" / name)
        lines.append(json.dumps({**names, "truth_is_real": i > 0}))
    (root / "triplets.jsonl").write_text("\n".join(lines))
    for seed, part in enumerate(("unet", "referencenet", "conditioning_referencenet")):
        torch.manual_seed(seed)
        UNet2DConditionModel(**NETWORK).save_pretrained(root / "start" / part)
    shutil.copytree(FIXTURE / "vae", root / "vae")
    tensors = load_file(str(root / "vae" / WEIGHTS))
    tensors["quant_conv.weight"][4:], tensors["quant_conv.bias"][4:] = 0, -30
    save_file(tensors, str(root / "vae" / WEIGHTS))
    return Config(
        str(root / "triplets.jsonl"),
        str(root / "images"),
        str(root / "start"),
        str(root / "vae"),
        str(FIXTURE / "image_encoder"),
        str(root / "out"),
        size=SIZE,
        batch=4,
        accumulation=1,
        steps=160,
        phase_one=160,
        learning_rate=2e-3,
        weight_decay=0.0,
        precision="no",
        checkpoint_gradients=False,
        workers=0,
        save_every=10_000,
        validate_every=80,
        validation=1,
    )


def losses(folder: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(Path(folder, "logs").rglob("events.*")).parent), {"scalars": 0, "images": 0})
    events.Reload()
    assert events.Tags()["images"]
    return [e.value for e in events.Scalars("loss")]


@pytest.mark.slow
def test_four_triplets_are_learned(config) -> None:
    train(config)
    loss_curve = losses(config.output)
    assert len(loss_curve) == config.steps
    assert sum(loss_curve[-40:]) / 40 < sum(loss_curve[:4]) / 4 / 10
    before, after = (
        open_pipeline(Path(folder), Path(config.vae), Path(config.image_encoder))
        for folder in (config.start, config.output)
    )
    errors = []
    for pipeline in (before, after):
        for i in range(4):
            source, driving, truth = (load_image(Path(config.images) / f"{k}{i}.png").pixels for k in "sdt")
            # Compare latents: the random VAE decodes all latents to nearly the same gray image.
            random_sources = RandomSources.of(1, [torch.Generator().manual_seed(i)], False)
            encoded = pipeline.encode(source, driving, random_sources)
            result = pipeline.denoise(pipeline.condition(encoded, 0.0, 1.0), encoded, 1.0, 25, random_sources)
            target = pipeline.encode(truth, truth, random_sources).source_latents
            errors.append(float((result - target).square().mean()))
    assert sum(errors[4:]) < sum(errors[:4]) / 5


def test_resumed_run_equals_an_uninterrupted_run(config, tmp_path) -> None:
    # Two phases, gradient accumulation, dropped sources and averaged weights are all active when the run stops.
    short = replace(
        config,
        steps=6,
        phase_one=4,
        batch=2,
        accumulation=2,
        ema=0.5,
        drop=0.4,
        save_every=3,
        validate_every=100,
        learning_rate=1e-3,
        warmup=4,
        output=str(tmp_path / "whole"),
    )
    train(short)
    parts = replace(short, output=str(tmp_path / "parts"))

    def stop(done: int, total: int, what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(parts, progress=stop)
    assert not (tmp_path / "parts" / "unet").exists()
    torch.manual_seed(99)
    train(parts, resume=True)
    from safetensors.torch import load_file

    for part in ("unet", "referencenet", "conditioning_referencenet"):
        a, b = (load_file(str(tmp_path / run / part / WEIGHTS)) for run in ("whole", "parts"))
        assert all(torch.equal(a[key], b[key]) for key in a)
    with pytest.raises(InputError, match="no saved state"):
        train(replace(short, output=str(tmp_path / "new")), resume=True)


def trainee(config: Config) -> Trainee:
    return Trainee(
        *(open_unet(Path(config.start) / part, "") for part in ("unet", "referencenet", "conditioning_referencenet"))
    )


def gradients(net: Trainee) -> dict[str, torch.Tensor | None]:
    g = torch.Generator().manual_seed(0)
    noisy, source, driving = (torch.randn(2, 4, 8, 8, generator=g) for _ in range(3))
    embeddings = [torch.randn(2, 1, 32, generator=g) for _ in range(2)]
    net(noisy, torch.tensor([10, 500]), source, embeddings[0], driving, embeddings[1]).square().mean().backward()
    return {name: p.grad for name, p in net.named_parameters()}


def test_exactly_the_trained_parameters_get_gradients(config) -> None:
    net = trainee(config)
    found = gradients(net)
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert found[name] is None
        else:
            assert found[name] is not None and bool(found[name].abs().max() > 0), name
    assert all(p.requires_grad for p in net.unet.parameters())
    trained = {n.split(".transformer_blocks")[0] for n, p in net.source.named_parameters() if p.requires_grad}
    assert trained == {"down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0"}


def test_gradient_checkpointing_gives_the_same_gradients(config) -> None:
    plain, checkpointed = trainee(config).train(), trainee(config).train()
    checkpointed.checkpoint_gradients()
    for (name, a), b in zip(gradients(plain).items(), gradients(checkpointed).values(), strict=True):
        assert (a is None) == (b is None), name
        assert a is None or torch.allclose(a, b, atol=1e-6), name


def test_networks_are_saved_in_the_public_layout(config, tmp_path) -> None:
    train(replace(config, steps=1, validate_every=9, output=str(tmp_path)))
    for part in ("unet", "referencenet", "conditioning_referencenet"):
        assert {p.name for p in (tmp_path / part).iterdir()} == {"config.json", WEIGHTS}
    pipeline = open_pipeline(tmp_path, Path(config.vae), Path(config.image_encoder))
    assert isinstance(pipeline.source_net, ReferenceNet)
    assert not list(tmp_path.glob("*.part"))


def test_flips_and_order_depend_only_on_seed_epoch_and_index(config, parity) -> None:
    triplets = read_triplets(Path(config.triplets), Path(config.images))
    processor = parity.open_fixture(FIXTURE).clip_processor
    data = TripletDataset(triplets, Path(config.images), 48, 7, processor)
    first, again = data[3, 1], data[3, 1]
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert first["truth"].shape == (3, 48, 48) and first["source_clip"].shape == (3, 224, 224)
    assert first["truth"].min() >= -1 and first["truth"].max() <= 1
    flipped = {bool((data[epoch, 1]["truth"] - first["truth"]).abs().max() > 1e-3) for epoch in range(12)}
    assert flipped == {True, False}
    straight = [pair for pair, _ in zip(ResumableSampler(5, 7), range(17), strict=False)]
    assert straight[6:] == [pair for pair, _ in zip(ResumableSampler(5, 7, start=6), range(11), strict=False)]
    assert sorted(i for _, i in straight[:5]) == list(range(5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps = [", "cannot be read as TOML"),
        ("speed = 3", "unknown settings: speed"),
        ("steps = 3", "lacks triplets"),
        (
            "triplets='a'\nimages='b'\nstart='c'\nvae='d'\nimage_encoder='e'\noutput='f'\nprecision='fp8'",
            "precision 'fp8' is not one of",
        ),
        ("triplets='a'\nimages='b'\nstart='c'\nvae='d'\nimage_encoder='e'\noutput='f'\nsize=100", "multiple of 8"),
    ],
)
def test_bad_settings_are_refused(tmp_path, text, message) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.toml", Config, PATHS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of t.jsonl is not a triplet"),
        ('{"source_image": "a"}', "is not a triplet"),
        ('{"source_image": "../x.png", "conditioning_image": "a.png", "ground_truth": "a.png"}', "not in"),
        ("", "contains no triplets"),
    ],
)
def test_bad_triplets_are_refused(tmp_path, line, message) -> None:
    (tmp_path / "images").mkdir()
    save_image(LoadedImage(random_image(0)), tmp_path / "images" / "a.png")
    save_image(LoadedImage(random_image(0)), tmp_path / "x.png")
    (tmp_path / "t.jsonl").write_text(line)
    with pytest.raises(InputError, match=message):
        read_triplets(tmp_path / "t.jsonl", tmp_path / "images")


def test_triplets_from_a_folder_of_people(tmp_path) -> None:
    for person, count in (("anna", 2), ("ben", 1)):
        for i in range(count):
            save_image(LoadedImage(random_image(10 * count + i)), tmp_path / "people" / person / f"{i}.png")
    seen = []

    def swap(person: torch.Tensor, scene: torch.Tensor) -> torch.Tensor | None:
        seen.append((person, scene))
        return None if len(seen) == 1 else (person + scene) / 2

    made = build_triplets(tmp_path / "people", tmp_path / "out", swap)
    # Two images of anna give two triplets of each kind; the first swap fails.
    assert [t.truth_is_real for t in made] == [True, False, True]
    assert read_triplets(tmp_path / "out" / "triplets.jsonl", tmp_path / "out") == made
    for triplet in made:
        source, truth = (
            (tmp_path / "out" / name).read_bytes() for name in (triplet.source_image, triplet.ground_truth)
        )
        assert source != truth
    with pytest.raises(InputError, match="at least two people"):
        build_triplets(tmp_path / "people" / "anna", tmp_path / "o", swap)


def test_command_line_trains_and_reports_errors(config, tmp_path, capsys) -> None:
    from faceveil.pipelines.cli import main

    lines = [f'{k} = "{getattr(config, k)}"' for k in ("triplets", "images", "start", "vae", "image_encoder")]
    more = [
        'output = "out"',
        'precision = "no"',
        "size = 64",
        "steps = 1",
        "phase_one = 1",
        "accumulation = 1",
        "workers = 0",
    ]
    (tmp_path / "c.toml").write_text("\n".join([*lines, *more]))
    assert main(["train", "referencenet", "--config", str(tmp_path / "c.toml")]) == 0
    assert '"steps": 1' in capsys.readouterr().out
    assert (tmp_path / "out" / "unet" / WEIGHTS).is_file()
    assert main(["train", "referencenet", "--config", str(tmp_path / "none.toml")]) == 1
    assert (
        main(
            [
                "triplets",
                str(tmp_path),
                "-o",
                str(tmp_path.parent / "t"),
                "--swapper",
                "x.onnx",
                "--recognizer",
                "y.onnx",
            ]
        )
        == 1
    )
    assert "x.onnx does not exist" in capsys.readouterr().err
