"""Speed of ReferenceNet denoising: the naive formulation against ours, with the same weights, steps and dtype.

    python benchmarks/referencenet.py [--full] [--runs N]

The naive formulation is that of the published code: it computes queries for own, source and driving tokens, projects
the reference tokens in every step, and discards two thirds of the output. Without a GPU the benchmark counts FLOPs at
full size on the meta device and measures wall-clock time at a medium size. --full, the default if CUDA is available,
adds the size of Stable Diffusion 2.1 in bfloat16 at 512 pixels.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from faceveil.pipelines.methods.referencenet.attention import (
    SelfAttentionProcessor,
    States,
    attend,
    reading,
    self_attentions,
    split_heads,
)
from faceveil.pipelines.methods.referencenet.files import SD21_UNET
from torch import Tensor

MID = {
    **SD21_UNET,
    "block_out_channels": (160, 320, 640, 640),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "sample_size": 32,
}
BATCH = 1


class Naive(SelfAttentionProcessor):
    """Compute queries, keys and values of all 3 N tokens in every step and keep the first third of the output.

    Args:
        source, driving: states ``(B, N, C)``.
    """

    def __init__(self, source: Tensor, driving: Tensor) -> None:
        self._references = torch.cat([source, driving], 1)

    def attend_to(self, attention: Any, hidden_states: Tensor) -> Tensor:
        tokens = torch.cat([hidden_states, self._references], 1)
        query, key, value = (
            split_heads(p(tokens), attention) for p in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attend(attention, query, key, value).chunk(3, 1)[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--full", action="store_true", default=torch.cuda.is_available())
    options = parser.parse_args()
    passed = [flops(), wall_clock(options.runs)]
    if options.full:
        passed.append(full_size(options.runs))
    return 0 if all(passed) else 1


def flops() -> bool:
    """Count FLOPs at the size of SD 2.1, 512 pixels, two guidance rows, on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    counts = []
    with torch.device("meta"):
        net = _net(SD21_UNET)
        inputs, states = _inputs(net, 64, torch.float32, "meta")
        for formulation in (_naive, _ours):
            with formulation(net, *states), FlopCounterMode(display=False) as counter, torch.no_grad():
                net(*inputs)
            counts.append(counter.get_total_flops())
    print(f"FLOPs a step, SD 2.1, 512 px, 2 rows: naive {counts[0] / 1e12:.2f} T, ours {counts[1] / 1e12:.2f} T")
    return _bar("FLOP ratio", counts[0] / counts[1], 1.75)


def wall_clock(runs: int) -> bool:
    """Measure the median time of interleaved steps on the CPU, in float32.

    The network has (160, 320, 640, 640) channels; the latents are 32 x 32, with two guidance rows.
    """
    torch.manual_seed(0)
    net = _net(MID)
    inputs, states = _inputs(net, 32, torch.float32, "cpu")
    seconds, outputs = _interleaved(net, inputs, states, {"naive": _naive, "ours": _ours}, runs, lambda: None)
    print(
        f"CPU step, mid size: naive {seconds['naive']:.2f} s, ours {seconds['ours']:.2f} s ({runs} interleaved runs), "
        f"outputs differ by {float((outputs['naive'] - outputs['ours']).abs().max()):.1e}"
    )
    return _bar("CPU wall-clock ratio", seconds["naive"] / seconds["ours"], 1.35)


def full_size(runs: int) -> bool:
    """Measure time and memory at the size of SD 2.1 with random weights, in bfloat16 on the GPU."""
    device, dtype = "cuda", torch.bfloat16
    torch.manual_seed(0)
    net = _net(SD21_UNET).to(device, dtype)
    peak = _matmul_peak(device, dtype)
    print(f"{torch.cuda.get_device_name()}: bf16 matmul peak {peak / 1e12:.0f} TFLOP/s (8192 cubed)")
    inputs, states = _inputs(net, 64, dtype, device)
    seconds, _ = _interleaved(net, inputs, states, {"naive": _naive, "ours": _ours}, 4 * runs, torch.cuda.synchronize)
    net_flops = _count(net, inputs, states)
    for name, value in seconds.items():
        print(f"  eager {name}: {value * 1e3:.1f} ms a step, {net_flops[name] / value / peak:.0%} of the peak")
    eager = _bar("GPU ratio, eager against eager", seconds["naive"] / seconds["ours"], 1.3)
    _where_time_goes(net, inputs, states)
    for batch in (1, 8):
        print(
            f"  peak VRAM of a step, batch {batch}: {_vram(net, batch, dtype):.2f} GiB (the denoiser alone;"
            " ReferenceNets offloaded)"
        )
    net.compile(mode="max-autotune-no-cudagraphs")
    fast, _ = _interleaved(net, inputs, states, {"compiled": _ours}, 4 * runs, torch.cuda.synchronize)
    print(
        f"  compiled ours: {fast['compiled'] * 1e3:.1f} ms a step, {net_flops['ours'] / fast['compiled'] / peak:.0%} of"
        " the peak"
    )
    return all([eager, _bar("GPU ratio, compiled against naive eager", seconds["naive"] / fast["compiled"], 2.0)])


def _net(config: dict[str, Any]) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config).eval().requires_grad_(False)


def _inputs(
    net: Any, side: int, dtype: torch.dtype, device: str, batch: int = BATCH
) -> tuple[tuple[Tensor, ...], tuple[tuple[States, ...], States]]:
    """Create the arguments of one step with two guidance rows, and random states.

    The states have the shapes that a ReferenceNet of this size records.
    """
    width = net.config.cross_attention_dim
    x, t = torch.randn(2 * batch, 4, side, side, dtype=dtype, device=device), torch.tensor(500, device=device)
    context = torch.randn(2 * batch, 2, width, dtype=dtype, device=device)

    def states(rows: int) -> States:
        found: States = {}
        for layer in self_attentions(net):
            if layer.first:
                channels = net.get_submodule(layer.module).to_q.in_features
                block, index = layer.key[0].partition(".")[::2]
                depth = len(net.config.block_out_channels) - 1
                level = depth if block == "mid_block" else int(index) if block == "down_blocks" else depth - int(index)
                found[layer.key] = torch.randn(rows, (side >> level) ** 2, channels, dtype=dtype, device=device)
        return found

    return (x, t, context), ((states(1), states(batch)), states(batch))


@contextmanager
def _naive(net: Any, source: tuple[States, ...], driving: States) -> Any:
    before = dict(net.attn_processors)
    processors = dict(before)
    for layer in self_attentions(net):
        rows = torch.cat([part[layer.key].expand_as(driving[layer.key]) for part in source])
        processors[layer.name] = Naive(rows, torch.cat([driving[layer.key]] * len(source)))
    net.set_attn_processor(processors)
    yield
    net.set_attn_processor(before)


def _ours(net: Any, source: tuple[States, ...], driving: States) -> AbstractContextManager[None]:
    return reading(net, source, driving)


def _interleaved(
    net: Any,
    inputs: tuple[Tensor, ...],
    states: Any,
    formulations: dict[str, Callable[..., Any]],
    runs: int,
    synchronize: Callable[[], None],
) -> tuple[dict[str, float], dict[str, Tensor]]:
    times: dict[str, list[float]] = {name: [] for name in formulations}
    outputs = {}
    for run in range(runs + 1):
        for name, formulation in formulations.items():
            with formulation(net, *states), torch.no_grad():
                synchronize()
                start = time.perf_counter()
                outputs[name] = net(*inputs).sample
                synchronize()
                if run:
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}, outputs


def _count(net: Any, inputs: tuple[Tensor, ...], states: Any) -> dict[str, int]:
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for name, formulation in (("naive", _naive), ("ours", _ours)):
        with formulation(net, *states), FlopCounterMode(display=False) as counter, torch.no_grad():
            net(*inputs)
        counts[name] = counter.get_total_flops()
    return counts


def _matmul_peak(device: str, dtype: torch.dtype, size: int = 8192) -> float:
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _vram(net: Any, batch: int, dtype: torch.dtype) -> float:
    inputs, states = _inputs(net, 64, dtype, "cuda", batch)
    torch.cuda.reset_peak_memory_stats()
    with _ours(net, *states), torch.no_grad():
        net(*inputs)
    return torch.cuda.max_memory_allocated() / 2**30


def _where_time_goes(net: Any, inputs: tuple[Tensor, ...], states: Any) -> None:
    from torch.profiler import ProfilerActivity, profile

    with (
        _ours(net, *states),
        torch.no_grad(),
        profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler,
    ):
        net(*inputs)
    print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=8, max_name_column_width=50))


def _bar(name: str, value: float, minimum: float) -> bool:
    print(f"{'met ' if value >= minimum else 'MISS'}  {name:50} {value:6.2f}  (>= {minimum:g})")
    return value >= minimum


if __name__ == "__main__":
    sys.exit(main())
