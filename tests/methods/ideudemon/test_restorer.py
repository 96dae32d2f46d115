"""Restorers: our own network and its file, and networks that spandrel knows."""

from __future__ import annotations

import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.methods.ideudemon.restorer import (
    RestorerConfig,
    RestorerNetwork,
    is_own,
    load_restorer,
    open_restorer,
    save_restorer,
)

CONFIG = RestorerConfig(32, (8, 16), 1)


@pytest.fixture
def network() -> RestorerNetwork:
    torch.manual_seed(0)
    return RestorerNetwork(CONFIG).eval().requires_grad_(False)


def test_a_saved_restorer_is_the_same(tmp_path, network):
    path = tmp_path / "r.safetensors"
    save_restorer(path, network)
    assert is_own(path)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_restorer(path)(image), network(image), atol=2e-2, rtol=0)


def test_any_square_is_restored_at_the_network_s_size(tmp_path, network):
    path = tmp_path / "r.safetensors"
    save_restorer(path, network)
    restore = open_restorer(path)
    for size in (20, 32, 200):
        result = restore(torch.rand(1, 3, size, size))
        assert result.shape == (1, 3, 32, 32)
        assert float(result.min()) >= 0 and float(result.max()) <= 1


@pytest.mark.parametrize("values", [(32, (), 1), (32, (12,), 1), (30, (8, 16, 16), 1), (8, (8,), 1)])
def test_impossible_sizes_are_refused(values):
    with pytest.raises(InputError):
        RestorerConfig(*values)


def test_damaged_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(WeightsError, match="does not exist"):
        open_restorer(tmp_path / "gone.pth")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError):
        open_restorer(tmp_path / "x.safetensors")
    save_file(
        {"a": torch.zeros(1)}, str(tmp_path / "y.safetensors"), {"format": "faceveil.restorer/2", "network": "{}"}
    )
    with pytest.raises(WeightsError, match="incomplete"):
        open_restorer(tmp_path / "y.safetensors")


@pytest.mark.slow
def test_gfpgan_with_random_weights_goes_through(tmp_path):
    """The true architecture, whose values are from -1 to 1 although spandrel passes them from 0 to 1."""
    pytest.importorskip("spandrel")
    from faceveil.pipelines.methods.ideudemon.generator import new_generator
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    model = GFPGAN(
        out_size=512,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    )
    path = tmp_path / "gfpgan.pth"
    torch.save({"params_ema": model.state_dict()}, path)
    square = torch.rand(1, 3, 512, 512)
    restored = open_restorer(path)(square)
    with torch.no_grad():
        wanted = model.eval()(square * 2 - 1, return_rgb=False, randomize_noise=False)[0]
    torch.testing.assert_close(restored, ((wanted + 1) / 2).clamp(0, 1), atol=1e-4, rtol=0)
    assert open_restorer(path)(square[..., :128, :128]).shape == (1, 3, 512, 512)
    generator = new_generator(path, CONFIG)
    assert (generator.kind, generator.size) == ("GFPGAN", 512)
    generator.save(tmp_path / "tuned.safetensors")
    assert torch.allclose(open_restorer(tmp_path / "tuned.safetensors")(square), restored, atol=1e-4)


def test_weights_that_are_not_finite_and_absurd_sizes_are_refused(tmp_path, network):
    import json

    from safetensors.torch import save_file

    broken = RestorerNetwork(CONFIG)
    with torch.no_grad():
        broken.last.weight.fill_(float("nan"))
    save_restorer(tmp_path / "nan.safetensors", broken)
    with pytest.raises(WeightsError, match="not finite"):
        open_restorer(tmp_path / "nan.safetensors")
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    for size in (32.0, 1 << 20):
        facts = {"format": "faceveil.restorer/2"}
        facts["network"] = json.dumps({"size": size, "widths": [8, 16], "blocks": 1})
        save_file(tensors, str(tmp_path / "size.safetensors"), facts)
        with pytest.raises(WeightsError, match="incomplete"):
            open_restorer(tmp_path / "size.safetensors")
