"""Parity with the authors' pipeline: recompute recorded runs of Face Anonymization Made Simple.

    python benchmarks/referencenet_parity.py [DIR]

DIR contains the networks in the layout of the public checkpoint, ``manifest.json`` with the settings of each case, and
``case_<name>.safetensors`` with recorded inputs, noise and final latents. The default is
tests/methods/referencenet/fixture.

Each case gives three errors: float32 and float64 from the recorded latents and embeddings, and float32 end to end from
the images.

Three tables are float32 in diffusers even if the networks run in float64: the sinusoidal time embeddings
(``get_timestep_embedding`` in models/embeddings.py; the same code in 0.25.1, 0.42.0 and 0.42.1), the betas of the
schedulers and the products of 1 - beta. Their last bit depends on the CPU and on the build of torch, because exp, sin,
cos and products of many factors are not exactly rounded. One unit in the last place changes the final latents by up to
4e-7, far above the bar of 1e-9. So the float64 error uses recorded tables, from ``float32_tables.safetensors`` in DIR
if the file exists: ``betas`` (1000,), ``timesteps`` (T,), and for these ``time_embeddings`` (T, C) and
``alphas_cumprod`` (T,). The tables of the fixture were computed with diffusers 0.42.1 and torch 2.14.1; with them the
recorded float64 latents are reproduced to 3e-14.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from faceveil.pipelines.methods.referencenet.files import open_pipeline
from faceveil.pipelines.methods.referencenet.network import SCHEDULER
from faceveil.pipelines.methods.referencenet.pipeline import Encoded, RandomSources, ReferenceNetPipeline
from torch import Tensor

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "methods" / "referencenet" / "fixture"
FP32, FP64, END_TO_END = 2e-4, 1e-9, 5e-4
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "dpmsolver": "DPMSolverMultistepScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "deis": "DEISMultistepScheduler",
}


@dataclass(frozen=True)
class Errors:
    """Largest absolute errors of the final latents of one case."""

    fp32: float
    fp64: float
    end_to_end: float

    @property
    def met(self) -> bool:
        return self.fp32 <= FP32 and self.fp64 <= FP64 and self.end_to_end <= END_TO_END


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FIXTURE)
    folder = parser.parse_args().folder
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    pipeline = open_fixture(folder)
    print(f"{'case':32} {'fp32':>9} {'float64':>9} {'from PNG':>9}")
    found = {}
    for case in cases:
        found[case["name"]] = errors = check(folder, case, pipeline)
        print(
            f"{case['name']:32} {errors.fp32:9.1e} {errors.fp64:9.1e} {errors.end_to_end:9.1e} "
            f" {'met' if errors.met else 'MISS'}"
        )
    worst = [max(getattr(e, key) for e in found.values()) for key in ("fp32", "fp64", "end_to_end")]
    print(
        f"{'worst of all':32} {worst[0]:9.1e} {worst[1]:9.1e} {worst[2]:9.1e}  (bars {FP32:g}, {FP64:g},"
        f" {END_TO_END:g})"
    )
    return 0 if all(e.met for e in found.values()) else 1


def open_fixture(folder: Path) -> ReferenceNetPipeline:
    return open_pipeline(folder, folder / "vae", folder / "image_encoder")


def check(folder: Path, case: dict[str, Any], pipeline: ReferenceNetPipeline) -> Errors:
    """Recompute one case in float32, in float64, and in float32 from the images."""
    from safetensors.torch import load_file

    recorded = load_file(str(folder / f"case_{case['name']}.safetensors"))
    pipeline.scheduler = scheduler_of(folder, case["scheduler"])
    single = from_recorded(pipeline, case, recorded)
    pipeline.to(torch.float64)
    with float32_tables(folder, pipeline):
        double = from_recorded(pipeline, case, {k: v.double() for k, v in recorded.items() if v.is_floating_point()})
    pipeline.to(torch.float32)
    whole = from_images(folder, pipeline, case)
    return Errors(
        _max_difference(single, recorded["final_latents"]),
        _max_difference(double, recorded["final_latents_f64"]),
        _max_difference(whole, recorded["final_latents"]),
    )


def scheduler_of(folder: Path, name: str) -> Any:
    """Build a diffusers scheduler with the config of the folder.

    Args:
        name: a key of ``SCHEDULERS`` or the name of a diffusers class.
    """
    import diffusers

    kind = getattr(diffusers, SCHEDULERS.get(name, name))
    file = folder / "scheduler" / "scheduler_config.json"
    config = (
        {k: v for k, v in json.loads(file.read_text()).items() if not k.startswith("_")}
        if file.is_file()
        else SCHEDULER
    )
    return kind.from_config(config)


class RecordedTimes(torch.nn.Module):
    """Replacement for ``UNet2DConditionModel.time_proj`` that looks up recorded time embeddings.

    Args:
        timesteps: ``(T,)``.
        embeddings: ``(T, C)``.
    """

    def __init__(self, timesteps: Tensor, embeddings: Tensor) -> None:
        super().__init__()
        self._rows = dict(zip(timesteps.tolist(), embeddings, strict=True))

    def forward(self, timesteps: Tensor) -> Tensor:
        """Look up the embeddings ``(B, C)`` of time steps ``(B,)``."""
        return torch.stack([self._rows[t] for t in timesteps.tolist()])


@contextmanager
def float32_tables(folder: Path, pipeline: ReferenceNetPipeline) -> Iterator[None]:
    """Use the recorded tables inside the context, if the folder has them."""
    from safetensors.torch import load_file

    file = folder / "float32_tables.safetensors"
    if not file.is_file():
        yield
        return
    tables = load_file(str(file))
    nets = (pipeline.unet, pipeline.source_net.unet, pipeline.driving_net.unet)
    scheduler, embedders = pipeline.scheduler, [net.time_proj for net in nets]
    pipeline.scheduler = type(scheduler).from_config(scheduler.config, trained_betas=tables["betas"].tolist())
    for net in nets:
        net.time_proj = RecordedTimes(tables["timesteps"], tables["time_embeddings"])
    cumprod = torch.cumprod

    def recorded_products(factors: Tensor, dim: int) -> Tensor:
        products = cumprod(factors, dim=dim)
        products[tables["timesteps"]] = tables["alphas_cumprod"]
        return products

    try:
        # The pipeline builds its schedulers anew.
        with patch.object(torch, "cumprod", recorded_products):
            yield
    finally:
        pipeline.scheduler = scheduler
        for net, embedder in zip(nets, embedders, strict=True):
            net.time_proj = embedder


def from_recorded(pipeline: ReferenceNetPipeline, case: dict[str, Any], recorded: dict[str, Tensor]) -> Tensor:
    """Compute the final latents from recorded latents, embeddings and noise.

    If a recorded tensor has unconditional and conditional rows, the conditional rows are the last half.
    """
    batch = recorded["init_latents"].shape[0]
    source, source_embedding, driving, driving_embedding = (
        recorded[key][-batch:].contiguous()
        for key in ("source_latents", "source_embeds", "driving_latents", "driving_embeds")
    )
    with torch.no_grad():
        encoded = Encoded(
            source,
            source_embedding,
            driving_embedding,
            pipeline.driving_net.record(driving, driving_embedding),
            pipeline.source_net.unconditional(source, source_embedding),
        )
    conditions = pipeline.condition(encoded, max(case["degree"], 0.0), case["guidance"])
    with _step_noise(recorded.get("variance_noise")):
        return pipeline.denoise(
            conditions,
            encoded,
            case["guidance"],
            case["steps"],
            RandomSources.of(batch, [], False),
            recorded["init_latents"],
        )


def from_images(folder: Path, pipeline: ReferenceNetPipeline, case: dict[str, Any]) -> Tensor:
    """Compute the final latents from the images, with random numbers in the order of the authors' code."""
    generator = torch.manual_seed(case["global_seed"])
    if case.get("rng", "split") == "split":
        generator = torch.Generator().manual_seed(case["generator_seed"])
    random_sources = RandomSources.of(1, [generator], reference_rng=True)
    size = (case["height"], case["width"])
    driving = load(folder / case["driving"], size)
    source = driving if case["degree"] > 0 else load(folder / case["source"], size)
    encoded = pipeline.encode(source, driving, random_sources)
    conditions = pipeline.condition(encoded, max(case["degree"], 0.0), case["guidance"])
    return pipeline.denoise(conditions, encoded, case["guidance"], case["steps"], random_sources)


def load(path: Path, size: tuple[int, int]) -> Tensor:
    """Load an image ``(1, 3, H, W)`` at ``size`` (height, width) rounded down to multiples of 8, resized as in the
    pipeline."""
    from faceveil.pipelines.methods.referencenet.preprocess import fit
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(-1, 0)[None].float() / 255
    return fit(pixels, (size[0] // 8 * 8, size[1] // 8 * 8))


@contextmanager
def _step_noise(noise: Tensor | None) -> Iterator[None]:
    """Make the schedulers use the recorded noise of each step inside the context."""
    if noise is None:
        yield
        return
    recorded = iter(noise)
    modules = [
        m
        for name, m in list(sys.modules.items())
        if name.startswith("diffusers.schedulers.") and "randn_tensor" in vars(m)
    ]
    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(patch.object(module, "randn_tensor", lambda *_, **__: next(recorded)))
        yield


def _max_difference(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


if __name__ == "__main__":
    sys.exit(main())
