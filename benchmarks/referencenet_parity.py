"""Parity with the authors' pipeline: recompute recorded cases of Face Anonymization Made Simple.

    python benchmarks/referencenet_parity.py [DIR]

DIR holds the networks in the public checkpoint's layout, ``manifest.json`` with the settings of each case, and
``case_<name>.safetensors`` with recorded inputs, noise and final latents; tests/methods/referencenet/fixture when
omitted.
Three figures a case: float32 and float64 from the recorded latents and embeddings, and end to end from the pictures.
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
from faceveil.pipelines.methods.referencenet.pipeline import Draws, Encoded, ReferenceNetPipeline
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
    """Largest absolute differences of the final latents of one case."""

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
    """Recompute one case three times."""
    from safetensors.torch import load_file

    recorded = load_file(str(folder / f"case_{case['name']}.safetensors"))
    pipeline.scheduler = scheduler_of(folder, case["scheduler"])
    single = from_recorded(pipeline, case, recorded)
    pipeline.to(torch.float64)
    double = from_recorded(pipeline, case, {k: v.double() for k, v in recorded.items() if v.is_floating_point()})
    pipeline.to(torch.float32)
    whole = from_pictures(folder, pipeline, case)
    return Errors(
        _apart(single, recorded["final_latents"]),
        _apart(double, recorded["final_latents_f64"]),
        _apart(whole, recorded["final_latents"]),
    )


def scheduler_of(folder: Path, name: str) -> Any:
    """A diffusers scheduler with the folder's configuration."""
    import diffusers

    kind = getattr(diffusers, SCHEDULERS.get(name, name))
    file = folder / "scheduler" / "scheduler_config.json"
    config = (
        {k: v for k, v in json.loads(file.read_text()).items() if not k.startswith("_")}
        if file.is_file()
        else SCHEDULER
    )
    return kind.from_config(config)


def from_recorded(pipeline: ReferenceNetPipeline, case: dict[str, Any], recorded: dict[str, Tensor]) -> Tensor:
    """Final latents from recorded latents, embeddings and noise; of doubled rows the last half is the conditional
    one."""
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
            conditions, encoded, case["guidance"], case["steps"], Draws.of(batch, [], False), recorded["init_latents"]
        )


def from_pictures(folder: Path, pipeline: ReferenceNetPipeline, case: dict[str, Any]) -> Tensor:
    """Final latents from the pictures, drawing like the authors' code."""
    generator = torch.manual_seed(case["global_seed"])
    if case.get("rng", "split") == "split":
        generator = torch.Generator().manual_seed(case["generator_seed"])
    draws = Draws.of(1, [generator], reference_rng=True)
    size = (case["height"], case["width"])
    driving = load(folder / case["driving"], size)
    source = driving if case["degree"] > 0 else load(folder / case["source"], size)
    encoded = pipeline.encode(source, driving, draws)
    conditions = pipeline.condition(encoded, max(case["degree"], 0.0), case["guidance"])
    return pipeline.denoise(conditions, encoded, case["guidance"], case["steps"], draws)


def load(path: Path, size: tuple[int, int]) -> Tensor:
    """``(1, 3, H, W)`` at ``size`` rounded down to multiples of 8, resized as the pipeline does."""
    from faceveil.pipelines.methods.referencenet.pipeline import fit
    from PIL import Image

    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(-1, 0)[None].float() / 255
    return fit(pixels, (size[0] // 8 * 8, size[1] // 8 * 8))


@contextmanager
def _step_noise(noise: Tensor | None) -> Iterator[None]:
    """Let schedulers draw the recorded noise of each step."""
    if noise is None:
        yield
        return
    drawn = iter(noise)
    modules = [
        m
        for name, m in list(sys.modules.items())
        if name.startswith("diffusers.schedulers.") and "randn_tensor" in vars(m)
    ]
    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(patch.object(module, "randn_tensor", lambda *_, **__: next(drawn)))
        yield


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


if __name__ == "__main__":
    sys.exit(main())
