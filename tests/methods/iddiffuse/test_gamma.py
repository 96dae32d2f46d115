"""The dial: on a tiny network that knows two people by heart, gamma moves the face from one to the other."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.methods.iddiffuse.conditions import blended
from faceveil.pipelines.methods.iddiffuse.network import Denoiser, NetworkConfig
from faceveil.pipelines.methods.iddiffuse.pipeline import IDDiffusePipeline
from faceveil.pipelines.methods.iddiffuse.training import resized
from faceveil.pipelines.methods.iddiffuse.unet import UNetConfig
from faceveil.pipelines.methods.sampling import SCHEDULER, default_scheduler
from torch import Tensor

STEPS = 600
GAMMAS = (1.0, 0.75, 0.5, 0.25, 0.0)


@pytest.fixture(scope="module")
def people(pairs) -> tuple[Tensor, Tensor, Tensor]:
    """Squares ``(2, 3, 14, 14)`` and ``(2, 3, 112, 112)`` of two people, and their vectors."""
    squares = pairs._people.rows("square", [0, 1]).float() / 127.5 - 1
    return resized(squares, 14), squares, pairs._vectors[:2]


@pytest.fixture(scope="module")
def trained(people) -> Denoiser:
    from diffusers import DDPMScheduler

    small, large, vectors = people
    torch.manual_seed(0)
    network = Denoiser(NetworkConfig(UNetConfig(14, 32, (1, 2), 7, (1,), 16, 48), 3, 256))
    with torch.no_grad():
        # Both people have one texture here, so that only the identity tells them apart.
        texture = network.eval().texture(large).mean(0, keepdim=True).expand(8, -1, -1).clone()
        network.scale.fill_(1.0)
    trained = [*network.unet.parameters(), *network.to_time.parameters(), network.scale]
    optimizer = torch.optim.Adam(trained, 3e-3)
    noise_schedule = DDPMScheduler(**SCHEDULER)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        tokens = network.identity(large, vectors)
    for _ in range(STEPS):
        rows = torch.arange(8) % 2
        noise = torch.randn(8, 3, 14, 14, generator=generator)
        time = torch.randint(0, 1000, (8,), generator=generator)
        noisy = noise_schedule.add_noise(small[rows], noise, time)
        loss = (network(noisy, time, tokens[rows], texture) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


def test_gamma_moves_the_face_from_real_to_synthetic(trained, people):
    small, large, vectors = people
    tokens = trained.identity(large, vectors)
    texture = trained.texture(large).mean(0, keepdim=True)
    pipeline = IDDiffusePipeline(trained, default_scheduler(), eta=0.0)
    to_real, to_synthetic = [], []
    for gamma in GAMMAS:
        drawn = torch.cat(
            [
                pipeline.sample(
                    blended(tokens[:1], tokens[1:], gamma), texture, [torch.Generator().manual_seed(seed)], 20
                )
                for seed in range(3)
            ]
        )
        distances = [float(((drawn * 2 - 1) - face).square().mean()) for face in small]
        to_real.append(distances[0])
        to_synthetic.append(distances[1])
    assert to_real == sorted(to_real)
    assert to_synthetic == sorted(to_synthetic, reverse=True)
    # At both ends the person is plain.
    assert to_real[0] < 0.8 * to_synthetic[0]
    assert to_synthetic[-1] < 0.8 * to_real[-1]
