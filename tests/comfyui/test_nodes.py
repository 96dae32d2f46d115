"""The nodes inside a real ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def _run(nodes: dict[str, Any], name: str, **inputs: Any) -> Any:
    node = nodes[f"FaceVeil_{name}"]
    defaults = {i.id: i.default for i in node.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
    # As ComfyUI does it: every node runs in inference mode.
    with torch.inference_mode():
        return node.PREPARE_CLASS_CLONE({}).execute(**(defaults | inputs)).result


@pytest.fixture(scope="module")
def image(nodes) -> torch.Tensor:
    return _run(nodes, "SamplePortrait")[0]


@pytest.fixture(scope="module")
def group(nodes) -> torch.Tensor:
    return _run(nodes, "SamplePortrait", picture="group")[0]


def test_every_text_is_there_and_up_to_date(nodes, build) -> None:
    schemas = [node.GET_SCHEMA() for node in nodes.values()]
    for schema in schemas:
        assert (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8") == build.page(schema)
    assert json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")) == build.definitions(schemas)
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(chinese) == set(nodes)
    for schema in schemas:
        assert set(chinese[schema.node_id].get("inputs", {})) == {i.id for i in schema.inputs}
        assert len(chinese[schema.node_id].get("outputs", {})) == len(schema.outputs)


def test_veil_changes_the_face_and_nothing_else(nodes, image) -> None:
    out, mask, faces, identity, report = _run(nodes, "VeilFaces", image=image, search=2)
    assert out.shape == image.shape and out.dtype == torch.float32
    assert len(faces) == 1 and identity is not None
    assert json.loads(report)["faces"][0]["outcome"] == "replaced"
    same = mask[..., None] == 0
    assert torch.equal(torch.where(same, out, 0), torch.where(same, image, 0))
    again = _run(nodes, "VeilFaces", image=image, search=2, identity=identity)[0]
    assert torch.equal(again, out)


def test_batches_alpha_and_odd_sizes(nodes, image) -> None:
    rgba = torch.cat([image, torch.ones_like(image[..., :1])], -1)[:, :509, :507]
    out, mask, *_ = _run(nodes, "VeilFaces", image=rgba.repeat(2, 1, 1, 1), search=1)
    assert out.shape == (2, 509, 507, 3)
    assert mask.shape == (2, 509, 507)
    assert torch.equal(out[0], out[1])


def test_select_and_keep_one(nodes, group) -> None:
    faces, count = _run(nodes, "DetectFaces", image=group)
    assert count == 3
    selected, others = _run(nodes, "SelectFaces", faces=faces, which="largest")
    assert (len(selected), len(others)) == (1, 2)
    out, *_ = _run(nodes, "VeilFaces", image=group, faces=others, search=1)
    x1, y1, x2, y2 = (round(v) for v in selected[0].box)
    assert torch.equal(out[:, y1:y2, x1:x2], group[:, y1:y2, x1:x2])
    drawn = _run(nodes, "PreviewFaces", image=group, faces=faces)[0]
    assert drawn.shape == group.shape


def test_select_by_person_needs_the_pictures(nodes, group, image) -> None:
    faces, _ = _run(nodes, "DetectFaces", image=group)
    with pytest.raises(Exception, match="connect the pictures"):
        _run(nodes, "SelectFaces", faces=faces, only_person=image)
    selected, others = _run(nodes, "SelectFaces", faces=faces, image=group, not_person=image)
    assert (len(selected), len(others)) == (0, 3)


@pytest.mark.parametrize("alignment", ["ffhq", "arcface", "box"])
def test_crop_and_paste_round_trip(nodes, group, alignment) -> None:
    faces, _ = _run(nodes, "DetectFaces", image=group)
    crops, masks, places = _run(nodes, "CropFaces", image=group, faces=faces, size=256, alignment=alignment)
    assert crops.shape == (3, 256, 256, 3) and masks.shape == (3, 256, 256)
    out, changed = _run(nodes, "PasteFaces", image=group, crops=crops, places=places)
    assert (out - group).abs().mean() < 0.01
    _, changed = _run(nodes, "PasteFaces", image=group, crops=crops * 0, places=places, masks=masks[:1] * 0 + 1)
    assert changed.mean() > 0.05
    with pytest.raises(Exception, match="do not fit"):
        _run(nodes, "PasteFaces", image=group, crops=crops[:2], places=places)


@pytest.mark.parametrize("cover", ["solid", "pixelate", "blur"])
def test_redact(nodes, image, cover) -> None:
    _, mask, report = _run(nodes, "RedactFaces", image=image, cover=cover)
    assert json.loads(report)["faces"][0]["outcome"] == "redacted"
    assert 0.01 < mask.mean() < 0.3


def test_policies_reach_the_user(nodes) -> None:
    empty = torch.full((1, 64, 64, 3), 0.2)
    with pytest.raises(Exception, match="no face was found"):
        _run(nodes, "VeilFaces", image=empty, no_face="stop")
    assert torch.all(_run(nodes, "VeilFaces", image=empty)[0] == 0.5)
    with pytest.raises(Exception, match="not finite"):
        _run(nodes, "VeilFaces", image=empty * float("nan"))


def test_compare(nodes, image) -> None:
    distance, same, verdict = _run(nodes, "CompareIdentity", image_a=image, image_b=image)
    assert distance < 0.01 and same and "same person" in verdict


def test_saved_files_hold_nothing_but_pixels(nodes, image, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    _run(nodes, "SaveDeidentifiedImage", image=image, filename_prefix="a/b", format="png")
    files = list((tmp_path / "a").iterdir())
    assert [f.suffix for f in files] == [".png"]
    from PIL import Image

    assert Image.open(files[0]).info == {}
    with pytest.raises(Exception):  # noqa: B017  # ComfyUI's own refusal to leave its folder
        _run(nodes, "SaveDeidentifiedImage", image=image, filename_prefix="../../b", format="png")
