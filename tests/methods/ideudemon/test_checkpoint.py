"""Public checkpoints of HeadNeRF are converted once, without running what a pickle asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.methods.ideudemon.checkpoint import convert_headnerf, open_headnerf

from .conftest import head_network

LAYOUTS = [(32, 256), (32, 512), (64, 512)]


@pytest.mark.parametrize(("features", "image"), LAYOUTS)
def test_each_public_layout_is_converted(tmp_path, features, image):
    network = head_network(features, image)
    sizes = {"featmap_size": features, "featmap_nc": 256, "pred_img_size": image}
    source, output = tmp_path / "model.pth", tmp_path / "headnerf.safetensors"
    torch.save({"para": sizes, "net": network.state_dict()}, source)
    assert main(["convert-headnerf", str(source), "-o", str(output)]) == 0
    opened = open_headnerf(output)
    assert opened.config == network.config
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in opened.state_dict().items())


def test_an_existing_file_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "in.pth").write_bytes(b"x")
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    assert main(["convert-headnerf", str(tmp_path / "in.pth"), "-o", str(tmp_path / "out.safetensors")]) != 0
    assert (tmp_path / "out.safetensors").read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err


class _Harmful:
    """Unpickled without care, it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_damaged_and_foreign_files_are_refused(tmp_path, tiny):
    marker, source = tmp_path / "marker", tmp_path / "bad.pth"
    torch.save({"para": _Harmful(marker), "net": {}}, source)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        convert_headnerf(source, tmp_path / "a.safetensors")
    assert not marker.exists()
    state = tiny.state_dict()
    state.pop("fg_CD_predictor.density_module.bias")
    torch.save({"para": {"featmap_size": 8, "featmap_nc": 64, "pred_img_size": 32}, "net": state}, source)
    with pytest.raises(WeightsError, match="not a HeadNeRF checkpoint"):
        convert_headnerf(source, tmp_path / "a.safetensors")
    for sizes, weights in (
        ({"featmap_size": float("inf"), "featmap_nc": 64, "pred_img_size": 32}, tiny.state_dict()),
        ({"featmap_size": 8, "featmap_nc": 64, "pred_img_size": 32}, {1: torch.zeros(2)}),
    ):
        torch.save({"para": sizes, "net": weights}, source)
        with pytest.raises(WeightsError, match="not a HeadNeRF checkpoint"):
            convert_headnerf(source, tmp_path / "a.safetensors")
    torch.save([1, 2], source)
    with pytest.raises(WeightsError, match=r"bad\.pth"):
        convert_headnerf(source, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="does not exist"):
        convert_headnerf(tmp_path / "gone.pth", tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()
    with pytest.raises(WeightsError, match="convert"):
        open_headnerf(source)
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        open_headnerf(tmp_path / "x.safetensors")
