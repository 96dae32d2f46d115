"""The U-Net, its attention, and both conditions against direct computations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.lds import alphas_cumprod
from faceveil.pipelines.methods.iddiffuse.conditions import blended, patch_statistics
from faceveil.pipelines.methods.iddiffuse.network import Denoiser, NetworkConfig
from faceveil.pipelines.methods.iddiffuse.unet import AttentionBlock, UNet, UNetConfig, small_config
from torch.nn import functional

from .conftest import SIZE


@pytest.mark.parametrize("grid", [3, 5])
def test_patch_statistics_are_mean_and_standard_deviation(grid):
    features = torch.randn(2, 4, 3 * grid, 2 * grid, generator=torch.Generator().manual_seed(1))
    mean, std = patch_statistics(features, grid)
    assert mean.shape == std.shape == (2, grid * grid, 4)
    for row in range(grid):
        for column in range(grid):
            patch = features[:, :, 3 * row : 3 * row + 3, 2 * column : 2 * column + 2].flatten(2)
            number = row * grid + column
            assert torch.allclose(mean[:, number], patch.mean(2), atol=1e-5)
            assert torch.allclose(std[:, number], patch.std(2, unbiased=False), atol=1e-3)


def test_a_constant_patch_has_no_spread_and_a_gradient():
    features = torch.full((1, 2, 6, 6), 3.0, requires_grad=True)
    mean, std = patch_statistics(features, 3)
    assert (std < 2e-3).all()
    (mean.sum() + std.sum()).backward()
    assert torch.isfinite(features.grad).all()


def test_attention_is_equation_8():
    """Keys and values of the tokens stand in front of the features' own; one softmax."""
    g = torch.Generator().manual_seed(2)
    block = AttentionBlock(32, 16, 12)
    with torch.no_grad():
        block.proj_out.weight.normal_(generator=g)
    x, tokens = torch.randn(2, 32, 3, 3, generator=g), torch.randn(2, 5, 12, generator=g)
    flat = x.flatten(2)
    # Guided diffusion's layout: query, key and value of a head lie together.
    qkv = block.qkv(block.norm(flat)).reshape(2 * 2, 3 * 16, 9)
    q, k, v = qkv.split(16, 1)
    ek, ev = block.encoder_kv(tokens.transpose(1, 2)).reshape(2 * 2, 2 * 16, 5).split(16, 1)
    k, v = torch.cat([ek, k], 2), torch.cat([ev, v], 2)
    weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / 4, -1)
    read = torch.einsum("bts,bcs->bct", weights, v).reshape(2, 32, 9)
    expected = (flat + block.proj_out(read)).reshape(x.shape)
    assert torch.allclose(block(x, tokens), expected, atol=1e-5)


def test_number_and_order_of_the_tokens(config, network, monkeypatch):
    assert NetworkConfig().tokens == 75
    assert NetworkConfig(grid=3).tokens == 59
    seen = []
    monkeypatch.setattr(network.unet, "forward", lambda x, time, added, tokens: seen.append((added, tokens)) or x)
    identity, texture = torch.randn(1, 50, 48), torch.randn(1, 10, 48)
    network(torch.zeros(1, 3, SIZE, SIZE), torch.tensor([3]), identity, texture)
    added, tokens = seen[0]
    assert torch.allclose(added, network.to_time(identity[:, 0]) * network.scale)
    assert torch.equal(tokens, torch.cat([identity[:, 1:], texture], 1))
    assert tokens.shape[1] == config.tokens


def test_sizes_are_dcfaces():
    config = UNetConfig()
    assert config.sides == [112, 56, 28, 14, 7, 7]
    with torch.device("meta"):
        unet = UNet(config)
        out = unet(torch.empty(1, 3, 112, 112), torch.empty(1), torch.empty(1, 512), torch.empty(1, 75, 512))
    assert out.shape == (1, 3, 112, 112)
    heads = [m._heads for m in unet.modules() if isinstance(m, AttentionBlock)]
    # Once down, once in the middle, twice up.
    assert heads == [8, 8, 8, 8]
    assert unet.out[2].weight.shape[0] == 6


def test_the_same_design_at_256_px():
    config = small_config(256, 64)
    assert config.sides == [256, 128, 64, 32, 16, 8, 8]
    with torch.device("meta"):
        out = UNet(config)(torch.empty(1, 3, 256, 256), torch.empty(1), torch.empty(1, 256), torch.empty(1, 75, 512))
    assert out.shape == (1, 3, 256, 256)


def test_every_condition_matters_and_stays_in_its_row(network):
    g = torch.Generator().manual_seed(4)
    x, time = torch.randn(3, 3, SIZE, SIZE, generator=g), torch.tensor([10, 500, 900])
    identity, texture = torch.randn(3, 50, 48, generator=g), torch.randn(3, 10, 48, generator=g)
    before = network(x, time, identity, texture)
    for part in (identity[:, :1], identity[:, 1:], texture):
        old = part[1].clone()
        part[1] += 1.0
        after = network(x, time, identity, texture)
        part[1] = old
        assert not torch.allclose(after[1], before[1], atol=1e-4)
        assert torch.allclose(after[[0, 2]], before[[0, 2]], atol=1e-5)


def test_encoders(network):
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    vectors = functional.normalize(torch.randn(2, 256))
    assert network.identity(faces, vectors).shape == (2, 50, 48)
    assert network.texture(faces).shape == (2, 10, 48)
    statistics = network.texture.statistics(faces)
    assert statistics.shape == (2, 10, 96)
    # The first row is that of the whole face.
    assert torch.allclose(statistics[:, 0, :48], statistics[:, 1:, :48].mean(1), atol=1e-5)


def test_the_frozen_recognizer_stays_as_it_is(network):
    encoder = network.texture.train()
    before = {k: v.clone() for k, v in encoder.stage.state_dict().items()}
    encoder(torch.rand(2, 3, 112, 112))
    assert all(torch.equal(v, before[k]) for k, v in encoder.stage.state_dict().items())
    assert not any(p.requires_grad for p in encoder.stage.parameters())
    network.eval()


def test_gamma_moves_between_the_people():
    g = torch.Generator().manual_seed(5)
    real, synthetic = torch.randn(2, 50, 48, generator=g), torch.randn(2, 50, 48, generator=g)
    assert torch.allclose(blended(real, synthetic, 1.0), real, atol=1e-5)
    assert torch.allclose(blended(real, synthetic, 0.0), synthetic, atol=1e-5)
    to_real = [
        functional.cosine_similarity(blended(real, synthetic, gamma)[:, 0], real[:, 0]).mean()
        for gamma in (1, 0.75, 0.5, 0.25, 0)
    ]
    assert to_real == sorted(to_real, reverse=True)
    with pytest.raises(InputError, match="gamma"):
        blended(real, synthetic, 1.5)


@pytest.mark.parametrize("values", [{"base": 100}, {"size": 90}], ids=["base", "size"])
def test_impossible_sizes_are_refused(values):
    with pytest.raises(InputError):
        UNetConfig(**values)


def test_the_noise_follows_from_the_velocity(network):
    torch.manual_seed(0)
    x, time = torch.randn(2, 3, SIZE, SIZE), torch.tensor([10, 800])
    tokens = torch.randn(2, 50, 48), torch.randn(2, 10, 48)
    velocity_network = Denoiser(replace(network.config, output="velocity"))
    velocity_network.load_state_dict(network.state_dict())
    noise_network = Denoiser(replace(network.config, output="noise"))
    noise_network.load_state_dict(network.state_dict())
    with torch.no_grad():
        velocity, noise = noise_network.eval()(x, time, *tokens), velocity_network.eval()(x, time, *tokens)
    alpha = alphas_cumprod()[time].view(-1, 1, 1, 1)
    # v = sqrt(abar) eps - sqrt(1 - abar) x_0, and x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps.
    clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    torch.testing.assert_close(alpha.sqrt() * noise - (1 - alpha).sqrt() * clean, velocity, atol=1e-4, rtol=1e-3)


def test_an_unknown_output_is_refused(config):
    with pytest.raises(InputError, match="output"):
        replace(config, output="image")
