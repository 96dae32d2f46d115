"""FaceID files: both formats, other kinds of adapters, and damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.core.errors import InputError, WeightsError
from faceveil.pipelines.methods.inversion.adapter import open_adapter
from faceveil.pipelines.methods.inversion.attention import install
from safetensors.torch import save_file


def tensors(channels=(16, 32), context=24, size=8, rank=2) -> dict[str, torch.Tensor]:
    """A tiny adapter in the published names, with one transformer block a number of channels."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g) * 0.1

    found = {
        "image_proj.proj.0.weight": draw(2 * size, size),
        "image_proj.proj.0.bias": draw(2 * size),
        "image_proj.proj.2.weight": draw(4 * context, 2 * size),
        "image_proj.proj.2.bias": draw(4 * context),
        "image_proj.norm.weight": draw(context),
        "image_proj.norm.bias": draw(context),
    }
    for block, width in enumerate(channels):
        for number in (2 * block, 2 * block + 1):
            for part in ("to_q", "to_k", "to_v", "to_out"):
                inner = context if number % 2 and part in ("to_k", "to_v") else width
                found[f"ip_adapter.{number}.{part}_lora.down.weight"] = draw(rank, inner)
                found[f"ip_adapter.{number}.{part}_lora.up.weight"] = draw(width, rank)
        for part in ("to_k_ip", "to_v_ip"):
            found[f"ip_adapter.{2 * block + 1}.{part}.weight"] = draw(width, context)
    return found


def save_pickle(path: Path, flat: dict[str, torch.Tensor]) -> None:
    nested: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in flat.items():
        part, _, rest = name.partition(".")
        nested.setdefault(part, {})[rest] = value
    torch.save(nested, path)


def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    flat = tensors()
    save_pickle(tmp_path / "a.bin", flat)
    save_file(flat, tmp_path / "a.safetensors")
    one, two = (open_adapter(tmp_path / f"a{suffix}") for suffix in (".bin", ".safetensors"))
    e = torch.nn.functional.normalize(torch.ones(3, 8), dim=1)
    assert torch.equal(one.tokens(e), two.tokens(e))
    assert one.tokens(e).shape == (3, 4, 24)
    assert [site.channels for site in one.sites] == [16, 32]
    assert sorted(one.sites[0].self_lora) == ["to_k", "to_out", "to_q", "to_v"]
    assert one.tokens(torch.zeros(1, 8)).abs().max() > 0


def test_more_than_ten_layers_stay_in_their_order(tmp_path: Path) -> None:
    save_file(tensors(channels=tuple(range(8, 32))), tmp_path / "a.safetensors")
    assert [site.channels for site in open_adapter(tmp_path / "a.safetensors").sites] == list(range(8, 32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"image_proj.proj.3.weight": torch.ones(2)}), "Plus and Portrait"),
        (lambda t: t.update({"image_proj.perceiver_resampler.latents": torch.ones(2)}), "Plus and Portrait"),
        (lambda t: t.pop("image_proj.norm.bias"), "not a plain FaceID"),
        (lambda t: [t.pop(k) for k in list(t) if "_lora." in k], "no LoRA, as Portrait"),
        (lambda t: [t.pop(k) for k in list(t) if "ip_adapter.2." in k], "incomplete"),
        (lambda t: t.update({"ip_adapter.0.to_q_lora.up.weight": torch.ones(17, 2)}), "incomplete"),
        (lambda t: t.update({"image_proj.proj.0.bias": torch.ones(3)}), "incomplete"),
        (lambda t: t.update({"image_proj.norm.weight": torch.ones(0)}), "incomplete"),
        (lambda t: t.pop("ip_adapter.1.to_v_ip.weight"), "incomplete"),
        (lambda t: t.pop("ip_adapter.0.to_q_lora.up.weight"), "incomplete"),
        (lambda t: t.update({"ip_adapter.1.to_k_ip.weight": torch.ones(3, 3)}), "incomplete"),
        (lambda t: t.update({"ip_adapter.1.to_k_ip.weight": torch.full((16, 24), torch.nan)}), "not finite"),
        (lambda t: t.update({"ip_adapter.extra": torch.ones(1)}), "unknown tensor"),
        (lambda t: [t.pop(k) for k in list(t) if k.startswith("ip_adapter")], "not an IP-Adapter"),
    ],
)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, change, message: str) -> None:
    flat = tensors()
    change(flat)
    save_file(flat, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=message):
        open_adapter(tmp_path / "a.safetensors")


def test_damaged_and_foreign_pickles(tmp_path: Path) -> None:
    save_pickle(tmp_path / "a.bin", tensors())
    data = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[: len(data) // 2])
    torch.save({"image_proj": torch.nn.Linear(2, 2)}, tmp_path / "code.bin")
    torch.save({"image_proj": 1, "ip_adapter": "x"}, tmp_path / "odd.bin")
    for name in ("cut.bin", "code.bin", "odd.bin", "none.bin", "none.safetensors"):
        with pytest.raises(WeightsError, match="ip-adapter-faceid_sd15"):
            open_adapter(tmp_path / name)


def test_an_adapter_of_another_family_is_refused(tmp_path: Path, networks_of) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    adapter = open_adapter(tmp_path / "a.safetensors")
    networks = networks_of("sd15")
    with pytest.raises(WeightsError, match="made for checkpoints with 24 numbers"):
        install(networks.unet, adapter)
    with pytest.raises(InputError, match="w600k_r50"):
        adapter.tokens(torch.zeros(1, 512))
