"""AdaIN, texture attention and the denoiser against the formulas of the paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.methods.diffdeid.network import (
    AdaIN,
    Conditions,
    Denoiser,
    NetworkConfig,
    TextureAttention,
    describe,
)

from .conftest import randomized


def noisy(config: NetworkConfig, rows: int) -> torch.Tensor:
    return torch.randn(rows, 3, config.size, config.size, generator=torch.Generator().manual_seed(9))


def test_adain_is_equation_7():
    g = torch.Generator().manual_seed(1)
    layer = AdaIN(5, 7)
    with torch.no_grad():
        layer.affine.weight.normal_(generator=g)
    features, c = torch.randn(2, 5, 6, 4, generator=g), torch.randn(2, 7, generator=g)
    scale, shift = (c @ layer.affine.weight.T + layer.affine.bias).split(5, 1)
    for b in range(2):
        for k in range(5):
            plane = features[b, k]
            spread = (plane.var(unbiased=False) + 1e-5).sqrt()
            expected = (plane - plane.mean()) / spread * scale[b, k] + shift[b, k]
            assert torch.allclose(layer(features, c)[b, k], expected, atol=1e-5)


def test_adain_starts_as_instance_normalization():
    features = torch.randn(2, 5, 6, 4)
    expected = torch.nn.functional.instance_norm(features)
    assert torch.allclose(AdaIN(5, 7)(features, torch.randn(2, 7)), expected, atol=1e-5)


@pytest.mark.parametrize("residual", ["noise", "background"])
def test_texture_attention_is_equations_5_and_6(residual):
    g = torch.Generator().manual_seed(2)
    layer = TextureAttention(6, residual)
    with torch.no_grad():
        layer.tau.fill_(0.7)
    noise, background = (torch.randn(2, 6, 3, 4, generator=g) for _ in range(2))
    flat = lambda conv, x: conv(x).flatten(2).transpose(1, 2)  # noqa: E731
    q, k, v = flat(layer.query, noise), flat(layer.key, background), flat(layer.value, background)
    attention = torch.softmax(q @ k.transpose(1, 2) / 6**0.5, -1)
    read = (attention @ v).transpose(1, 2).reshape(noise.shape)
    expected = 0.7 * read + (noise if residual == "noise" else background)
    assert torch.allclose(layer(noise, background), expected, atol=1e-5)


def test_a_new_network_ignores_the_texture_branch(config, conditions):
    """tau = 0: the same as a network without texture attention."""
    taus = {name: attention.tau.clone() for name, attention in Denoiser(config).attention.items()}
    assert len(taus) == 2
    network = randomized(Denoiser(config))
    with torch.no_grad():
        for name, attention in network.attention.items():
            attention.tau.copy_(taus[name])
    bare = Denoiser(replace(config, attention=()))
    bare.load_state_dict(network.state_dict(), strict=False)
    x, time = noisy(config, 3), torch.tensor([0, 400, 999])
    other = Conditions(conditions.face, -conditions.masked, conditions.identity, conditions.coefficients)
    expected = bare.eval()(x, time, *conditions.parts())
    assert torch.allclose(network(x, time, *conditions.parts()), expected, atol=1e-5)
    assert torch.allclose(network(x, time, *other.parts()), expected, atol=1e-5)


def test_every_condition_matters_and_stays_in_its_row(config, network, conditions):
    x, time = noisy(config, 3), torch.tensor([10, 500, 900])
    before = network(x, time, *conditions.parts())
    for name in ("face", "masked", "identity", "coefficients"):
        value = getattr(conditions, name).clone()
        value[1] += 0.5
        after = network(x, time, *replace(conditions, **{name: value}).parts())
        assert not torch.allclose(after[1], before[1], atol=1e-4), name
        assert torch.allclose(after[[0, 2]], before[[0, 2]], atol=1e-5), name


def test_textures_can_be_computed_once(config, network, conditions):
    x = noisy(config, 3)
    textures = network.textures(conditions.masked, network.condition(conditions.identity, conditions.coefficients))
    for t in (0, 700):
        time = torch.full((3,), t)
        given = network(x, time, *conditions.parts(), textures=textures)
        assert torch.equal(given, network(x, time, *conditions.parts()))


def test_a_window_of_coefficients(config, conditions):
    clip = replace(config, identity=0, window=27)
    network = randomized(Denoiser(clip))
    window = torch.randn(3, 27, config.coefficients)
    still = Conditions(conditions.face, conditions.masked, torch.zeros(3, 0), window)
    x, time = noisy(config, 3), torch.tensor([10, 500, 900])
    before = network(x, time, *still.parts())
    changed = window.clone()
    changed[0, 26] += 1
    after = network(x, time, *replace(still, coefficients=changed).parts())
    assert not torch.allclose(after[0], before[0], atol=1e-5)
    assert torch.allclose(after[1:], before[1:], atol=1e-6)


def test_sizes_are_counted():
    # About 100 million parameters, as the specification estimates.
    words = describe(NetworkConfig(coefficients=261))
    assert words.startswith("256 px: 104.")
    assert "multiply-adds" in words


@pytest.mark.parametrize(
    "values", [{"size": 100}, {"window": 2}, {"attention": (7,)}, {"residual": "sum"}], ids=lambda v: next(iter(v))
)
def test_impossible_sizes_are_refused(values):
    with pytest.raises(InputError):
        NetworkConfig(**values)
