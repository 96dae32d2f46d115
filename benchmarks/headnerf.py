"""HeadNeRF: our factored evaluation against the plain form, in the same run, and a fit of known codes.

    python benchmarks/headnerf.py [--threads 1] [--rays 32] [--image 256] [--fit 60]

The plain form is the published network as it is written: 1x1 convolutions over ``(1, C, rays, samples)`` with the codes
repeated at every point. Weights are random; ``--dense`` makes the head opaque, as a trained one is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from faceveil.pipelines.methods.ideudemon.cameras import NerfCamera
from faceveil.pipelines.methods.ideudemon.fitting import fit_head
from faceveil.pipelines.methods.ideudemon.headnerf import (
    SAMPLES,
    HeadCodes,
    HeadNeRF,
    HeadNeRFConfig,
    encode,
    samples,
)
from torch import Tensor
from torch.nn import functional

TOLERANCE, RATIO, DECIBELS = 1e-4, 3.0, 30.0
DENSE, GAIN = 40.0, 2.2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rays", type=int, default=32)
    parser.add_argument("--image", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--fit", type=int, default=0, help="iterations of the fit of known codes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = random_network(HeadNeRFConfig(options.rays, options.image), options.dense)
    codes, camera = random_codes(1), NerfCamera.free()
    with torch.no_grad():
        ours, plain = network(codes, camera).image, plain_image(network, codes, camera)
        difference = float((ours - plain).abs().max())
        print(f"largest difference: {difference:.1e} ({TOLERANCE:.0e})")
        print(f"covered: {float(network(codes, camera).coverage.mean()):.2f} of the rays")
        ratio = compared(
            "drawing", lambda: network(codes, camera), lambda: plain_image(network, codes, camera), options.runs
        )
    compared(
        "drawing and gradients",
        lambda: gradients(lambda c: network(c, camera).image, codes),
        lambda: gradients(lambda c: plain_image(network, c, camera), codes),
        options.runs,
    )
    met = difference <= TOLERANCE and ratio >= RATIO
    if options.fit:
        met &= fitted(network, camera, options.fit)
    return 0 if met else 1


def random_network(config: HeadNeRFConfig, dense: bool = False, seed: int = 0) -> HeadNeRF:
    """A network whose images depend on its codes."""
    torch.manual_seed(seed)
    network = HeadNeRF(config).eval().requires_grad_(False)
    for name, weight in network.named_parameters():
        if name.endswith("weight"):
            # The initialization of PyTorch lets values vanish over so many layers.
            weight.mul_(GAIN)
    if dense:
        network.fg_CD_predictor.density_module.weight.mul_(DENSE)
    network.neural_render.bg_featmap.normal_(std=0.3)
    return network


def random_codes(seed: int, scale: float = 0.25) -> HeadCodes:
    generator = torch.Generator().manual_seed(seed)
    parts = (part + scale * torch.randn(part.shape, generator=generator) for part in HeadCodes.average().parts)
    return HeadCodes(*parts)


def plain_image(network: HeadNeRF, codes: HeadCodes, camera: NerfCamera) -> Tensor:
    """The image ``(1, 3, S, S)`` by 1x1 convolutions over all points."""
    field, side = network.fg_CD_predictor, network.config.features
    origins, directions = camera.rays(side)
    points, steps = samples(origins[0], directions[0])
    rays = len(points)
    shape, appearance = (c[..., None, None].expand(-1, -1, rays, SAMPLES) for c in (codes.shape, codes.appearance))
    first = torch.cat([encode(points).permute(2, 0, 1)[None], shape], 1)
    x = first
    for index in range(8):
        x = functional.relu(getattr(field, f"FeaExt_module_{index}")(x))
        if index == 4:
            x = torch.cat([first, x], 1)
    density = functional.relu(field.density_module(x))
    x = field.RGB_layer_1(torch.cat([field.RGB_layer_0(x), appearance], 1))
    features = field.RGB_layer_2(functional.relu(x))
    alpha = 1 - torch.exp(-density * steps)
    passed = torch.cumprod(functional.pad(1 - alpha + 1e-10, (1, 0), value=1.0), -1)[..., :-1]
    weights = alpha * passed
    summed = (weights * features).sum(-1).view(1, -1, side, side)
    behind = 1 - weights.sum(-1).view(1, 1, side, side)
    image: Tensor = network.neural_render(summed + behind * network.neural_render.bg_featmap)
    return image


def gradients(draw: Callable[[HeadCodes], Tensor], codes: HeadCodes) -> Tensor:
    given = [part.clone().requires_grad_(True) for part in codes.parts]
    draw(HeadCodes(*given)).square().mean().backward()
    return given[0].grad if given[0].grad is not None else torch.zeros(())


def compared(what: str, ours: Callable[[], object], plain: Callable[[], object], runs: int) -> float:
    """How many times faster ours is, alternately measured; the fastest runs count."""
    times: list[list[float]] = [[], []]
    for _ in range(runs):
        for place, call in enumerate((ours, plain)):
            start = time.perf_counter()
            call()
            times[place].append(time.perf_counter() - start)
    fast, slow = (min(values) for values in times)
    print(f"{what}: factored {fast:.2f} s, plain {slow:.2f} s, ratio {slow / fast:.2f} ({RATIO:g})")
    return slow / fast


def fitted(network: HeadNeRF, camera: NerfCamera, iterations: int) -> bool:
    """Whether known codes and a known camera are found again from a disturbed start."""
    goal = random_codes(2)
    with torch.no_grad():
        image = network(goal, camera).image
        start = HeadCodes(*(part + 0.4 * torch.randn_like(part) for part in goal.parts))
        moved = camera.moved(torch.tensor([[0.02, -0.03, 0.01]]), torch.tensor([[0.03, 0.02, -0.05]]))
        before = decibels(network(start, moved).image, image)
    fit = fit_head(network, image, torch.ones(1, 1, *image.shape[-2:]), start, moved, None, iterations)
    after = decibels(fit.image, image)
    print(
        f"fit of known codes: {before:.1f} dB before, {after:.1f} dB after {len(fit.losses)} iterations ({DECIBELS:g})"
    )
    return after >= DECIBELS


def decibels(drawn: Tensor, true: Tensor) -> float:
    """PSNR of images in [0, 1]."""
    return float(-10 * torch.log10((drawn - true).square().mean().clamp(min=1e-12)))


if __name__ == "__main__":
    sys.exit(main())
