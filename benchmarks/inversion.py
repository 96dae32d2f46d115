"""Seconds of an inversion, ours against the authors' order of evaluations, on a random network in one run.

    python benchmarks/inversion.py [--full] [--sdxl] [--size 512] [--device cuda] [--steps 100]

Both compute the same latents; the largest difference is printed. The authors' NullFace also evaluates the steps above
the start, the prediction of k = 1, whose noise map is set to zero, and the first one of the generation once more.
Without ``--full`` the network is of middle size, with it that of Stable Diffusion 1.5 or SDXL.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from faceveil.pipelines.methods.inversion import nullface, reverse
from faceveil.pipelines.methods.inversion.denoiser import alphas_bar, draw
from faceveil.pipelines.methods.inversion.pipeline import Condition, UNetDenoiser
from faceveil.pipelines.methods.inversion.text import Text
from torch import Tensor

TOKENS = 81
MIDDLE = {"block_out_channels": (96, 192, 384), "layers_per_block": 1, "cross_attention_dim": 256}
SD15 = {"block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
BAR = 1.5


def network(full: bool, sdxl: bool, device: torch.device) -> Any:
    """A random UNet; half precision on a graphics chip."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    config: dict[str, Any] = dict(SDXL if sdxl else SD15 if full else MIDDLE)
    levels = len(config["block_out_channels"])
    config.setdefault("down_block_types", ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",))
    config.setdefault("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1))
    config.setdefault("attention_head_dim", 8)
    with torch.device(device):
        unet = UNet2DConditionModel(**config)
    return unet.eval().to(torch.float32 if device.type == "cpu" else torch.float16)


def denoiser(unet: Any, side: int) -> UNetDenoiser:
    """With random texts and people. The identity tokens are part of the text here: the adapter itself costs little."""
    g = torch.Generator().manual_seed(1)
    size = torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32)
    width, pooled = unet.config.cross_attention_dim, None
    if unet.config.addition_embed_type:
        pooled = torch.zeros(1, unet.config.projection_class_embeddings_input_dim - 6 * 256)

    def condition() -> Condition:
        return Condition(
            Text(torch.randn(1, TOKENS - 4, width, generator=g), pooled), torch.randn(1, 4, width, generator=g), size
        )

    empty = condition()
    return UNetDenoiser(unet, {"nothing": condition(), "empty": empty, "identity": condition(), "attributes": empty})


def ours(denoise: UNetDenoiser, x0: Tensor, steps: int, kind: str) -> Tensor:
    bars = alphas_bar()
    if kind == "nullface":
        depth = nullface.depth_of(steps, nullface.SKIP)
        return nullface.generate(denoise, bars, nullface.invert(denoise, bars, x0, draw(x0, depth, [0]), steps))
    times = reverse.timesteps_of(steps)
    return reverse.generate(denoise, bars, reverse.invert(denoise, bars, x0, draw(x0, len(times), [0]), times))


def authors(denoise: UNetDenoiser, x0: Tensor, steps: int, kind: str) -> Tensor:
    """The same latents with every evaluation that the authors' code makes."""
    if kind == "nullface":
        schedule = nullface.Schedule(alphas_bar(), steps)
        depth = nullface.depth_of(steps, nullface.SKIP)
        for k in [1, *range(depth + 1, steps + 1)]:
            denoise(x0, schedule.t(k), ("empty",))
        denoise(x0, schedule.t(depth), ("empty",))
        return ours(lambda x, t, rows: sum((denoise(x, t, (row,)) for row in rows), ()), x0, steps, kind)
    denoise(x0, reverse.timesteps_of(steps)[0], ("nothing",))
    return ours(denoise, x0, steps, kind)


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run().cpu()
    return result, time.perf_counter() - start


@torch.no_grad()
def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--sdxl", action="store_true", help="Reverse Personalization on SDXL's network")
    parser.add_argument("--size", type=int, default=256, help="pixels of a side")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    unet = network(options.full, options.sdxl, device)
    x0 = torch.randn(1, 4, options.size // 8, options.size // 8, generator=torch.Generator().manual_seed(2)).to(device)
    kind = "reverse_personalization" if options.sdxl else "nullface"
    denoise = denoiser(unet, options.size)
    timed(lambda: denoise(x0, 1, ("empty",))[0], device)
    rows, seconds, results = [], [], []
    for run in (authors, ours):
        denoise.rows = 0
        result, spent = timed(lambda run=run: run(denoise, x0, options.steps, kind), device)  # type: ignore[misc]
        rows.append(denoise.rows)
        seconds.append(spent)
        results.append(result)
    millions = sum(p.numel() for p in unet.parameters()) / 1e6
    ratio = seconds[0] / seconds[1]
    print(f"{kind}, {millions:.0f} M parameters, {options.size} px, {options.steps} steps, {device}")
    print(f"authors' order: {rows[0]} rows, {seconds[0]:.1f} s; ours: {rows[1]} rows, {seconds[1]:.1f} s; {ratio:.2f}x")
    print(f"largest difference of the latents {float((results[0] - results[1]).abs().max()):.1e}")
    if device.type == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    if kind == "nullface" and ratio < BAR:
        print(f"missed: {ratio:.2f}x < {BAR}x")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
