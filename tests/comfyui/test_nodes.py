"""The nodes inside a real ComfyUI."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.methods.registry import method_specs

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
QUICK = {"method": "appearance", "search": 2}
"""Veil Faces' dynamic combo, with a short search."""


@pytest.fixture(scope="module")
def image(run, nodes) -> torch.Tensor:
    return run("SamplePortrait")[0]


@pytest.fixture(scope="module")
def group(run, nodes) -> torch.Tensor:
    return run("SamplePortrait", picture="group")[0]


def test_every_text_is_there_and_up_to_date(run, nodes, build) -> None:
    schemas = [node.GET_SCHEMA() for node in nodes.values()]
    pages = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "web" / "docs").glob("*.md")}
    assert set(pages) == set(nodes)
    # An older ComfyUI without dynamic combos does not tell the texts of the inner widgets.
    with_methods = ("FaceVeil_VeilFaces", "FaceVeil_VeilVideo")
    shown = [node for name, node in nodes.items() if name not in with_methods or _has_options(nodes)]
    assert all(pages[node.GET_SCHEMA().node_id] == build.page(node) for node in shown)
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert not _has_options(nodes) or english == build.definitions(schemas)
    chinese = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(chinese) == set(nodes)
    for schema in schemas:
        texts = chinese[schema.node_id]
        assert set(texts.get("inputs", {})) == {i.id for i in schema.inputs}, schema.node_id
        assert set(texts.get("outputs", {})) == {str(n) for n in range(len(schema.outputs))}, schema.node_id
        # A name of a product, such as ReferenceNet or VAE, may stay as it is; a title and a description may not.
        assert all(_is_chinese(texts[key]) for key in ("display_name", "description")), schema.node_id
        names = [item["name"] for part in ("inputs", "outputs") for item in texts.get(part, {}).values()]
        assert all(names) and sum(map(_is_chinese, names)) >= len(names) / 2, schema.node_id


def _is_chinese(text: str) -> bool:
    return any("\u4e00" <= letter <= "\u9fff" for letter in text)


def test_every_method_can_be_chosen(nodes) -> None:
    """With its options as widgets, and files or a remedy where it needs files."""
    choice = _method_input(nodes)
    assert {getattr(o, "key", o) for o in choice.options} == set(method_specs())
    if not _has_options(nodes):
        pytest.skip("this ComfyUI has no dynamic combo, so methods use their default options")
    options = {o.key: {i.id: i for i in o.inputs} for o in choice.options}
    assert options["appearance"]["search"].default == 16
    assert (
        options["referencenet"]["checkpoint"].options and "Put hkung" in options["referencenet"]["checkpoint"].tooltip
    )


def test_a_new_method_is_found(nodes, run, image, monkeypatch) -> None:
    """The dummy is one package; Veil Faces offers and runs it without another edit."""
    veil = nodes["FaceVeil_VeilFaces"]
    methods = importlib.import_module(f"{veil.__module__.partition('.nodes.')[0]}.pipelines.methods")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(HELPERS)])
    choice = next(i for i in veil.define_schema().inputs if i.id == "method")
    assert "dummy" in {getattr(o, "key", o) for o in choice.options}
    out = run("VeilFaces", image=image, unsafe_face="pass", method={"method": "dummy", "red": 0.5})[0]
    assert ((out == torch.tensor([0.5, 0, 0])).all(-1)).float().mean() > 0.01


def _has_options(nodes) -> bool:
    return hasattr(_method_input(nodes).options[0], "inputs")


def _method_input(nodes):
    return next(i for i in nodes["FaceVeil_VeilFaces"].GET_SCHEMA().inputs if i.id == "method")


def test_a_method_without_its_files_says_what_to_do(run, image) -> None:
    method = {"method": "referencenet", "checkpoint": "none", "vae": "none", "image_encoder": "none", "steps": 2}
    with pytest.raises(
        Exception, match="the method referencenet needs a file for checkpoint; put hkung/face-anon-simple into"
    ):
        run("VeilFaces", image=image, method=method)
    with pytest.raises(Exception, match=r"needs two files: inswapper_128\.onnx as --inswapper-swapper"):
        run("VeilFaces", image=image, method={"method": "inswapper"})


def test_a_second_recognizer_is_asked(run, image) -> None:
    (recognizer,) = run("LoadRecognizer", kind="dlib")
    report = json.loads(run("VeilFaces", image=image, method=QUICK, recognizer=recognizer)[4])
    assert [c["recognizer"] for c in report["faces"][0]["checks"]] == ["dlib", "faceveil", "dlib"]


def test_veil_changes_the_face_and_nothing_else(run, nodes, image) -> None:
    out, mask, faces, identity, report, summary = run("VeilFaces", image=image, method=QUICK)
    assert out.shape == image.shape and out.dtype == torch.float32
    assert len(faces) == 1 and len(identity) == 1 and identity[0].method == "appearance"
    assert json.loads(report)["faces"][0]["outcome"] == "replaced" and summary == "1 face: 1 replaced"
    same = mask[..., None] == 0
    assert torch.equal(torch.where(same, out, 0), torch.where(same, image, 0))
    again = run("VeilFaces", image=image, method=QUICK, identity=identity)[0]
    assert torch.equal(again, out)


def test_batches_alpha_and_odd_sizes(run, nodes, image) -> None:
    rgba = torch.cat([image, torch.full_like(image[..., :1], 0.5)], -1)[:, :509, :507]
    out, mask, *_ = run("VeilFaces", image=rgba.repeat(2, 1, 1, 1), method=QUICK)
    assert out.shape == (2, 509, 507, 4) and mask.shape == (2, 509, 507)
    # Alpha becomes opaque where pixels change, and stays elsewhere.
    assert mask.any() and torch.equal(out[..., 3], torch.where(mask > 0, 1.0, 0.5))
    assert torch.equal(out[0], out[1])


def test_select_and_keep_one(run, nodes, group) -> None:
    faces, count = run("DetectFaces", image=group)
    assert count == 3
    selected, others = run("SelectFaces", faces=faces, which="largest")
    assert (len(selected), len(others)) == (1, 2)
    out, *_ = run("VeilFaces", image=group, faces=others, method=QUICK)
    x1, y1, x2, y2 = (round(v) for v in selected[0].box)
    assert torch.equal(out[:, y1:y2, x1:x2], group[:, y1:y2, x1:x2])
    drawn = run("PreviewFaces", image=group, faces=faces)[0]
    assert drawn.shape == group.shape


def test_nobody_chosen_is_not_nobody_found(run, image) -> None:
    faces, _ = run("DetectFaces", image=image)
    nobody = faces.only([])
    for node in ("VeilFaces", "RedactFaces"):
        out, *_, summary = run(node, image=image, faces=nobody)
        assert summary == "no face was chosen, so nothing was changed"
        assert torch.equal(out, image[..., :3])


@pytest.mark.parametrize(
    "node", ["VeilFaces", "RedactFaces", "DetectFaces", "EmbedFaces", "SaveDeidentifiedImage", "EstimateCoefficients"]
)
def test_an_empty_batch_is_one_sentence(run, node) -> None:
    with pytest.raises(Exception, match="the image batch is empty"):
        run(node, image=torch.zeros(0, 64, 64, 3))


def test_select_by_person_needs_the_pictures(run, nodes, group, image) -> None:
    faces, _ = run("DetectFaces", image=group)
    with pytest.raises(Exception, match="connect the images"):
        run("SelectFaces", faces=faces, only_person=image)
    selected, others = run("SelectFaces", faces=faces, image=group, not_person=image)
    assert (len(selected), len(others)) == (0, 3)


def test_select_by_a_painted_mask(run, nodes, group) -> None:
    faces, _ = run("DetectFaces", image=group)
    x, y = (int(sum(faces[1].box[i::2]) / 2) for i in (0, 1))
    mask = torch.zeros(1, *group.shape[1:3])
    mask[:, y - 2 : y + 2, x - 2 : x + 2] = 1
    selected, others = run("SelectFaces", faces=faces, mask=mask)
    assert (list(selected), len(others)) == ([faces[1]], 2)


@pytest.mark.parametrize("alignment", ["ffhq", "arcface", "box"])
def test_crop_and_paste_round_trip(run, nodes, group, alignment) -> None:
    faces, _ = run("DetectFaces", image=group)
    crops, masks, places = run("CropFaces", image=group, faces=faces, size=256, alignment=alignment)
    assert crops.shape == (3, 256, 256, 3) and masks.shape == (3, 256, 256)
    out, changed = run("PasteFaces", image=group, crops=crops, places=places)
    assert (out - group).abs().mean() < 0.01
    _, changed = run("PasteFaces", image=group, crops=crops * 0, places=places, masks=masks[:1] * 0 + 1)
    assert changed.mean() > 0.05
    with pytest.raises(Exception, match="do not fit"):
        run("PasteFaces", image=group, crops=crops[:2], places=places)
    with pytest.raises(Exception, match="resize them to squares"):
        run("PasteFaces", image=group, crops=crops[:, :200], places=places)


@pytest.mark.parametrize("style", ["solid", "pixelate", "blur"])
def test_redact(run, nodes, image, style) -> None:
    _, mask, report, _ = run("RedactFaces", image=image, style=style)
    assert json.loads(report)["faces"][0]["outcome"] == "redacted"
    assert 0.01 < mask.mean() < 0.3


def test_policies_reach_the_user(run, nodes) -> None:
    empty = torch.full((1, 64, 64, 3), 0.2)
    with pytest.raises(Exception, match="no face was found"):
        run("VeilFaces", image=empty, no_face="stop")
    assert torch.all(run("VeilFaces", image=empty)[0] == 0.5)
    with pytest.raises(Exception, match="not finite"):
        run("VeilFaces", image=empty * float("nan"))


def test_compare(run, nodes, image) -> None:
    distance, same, verdict = run("CompareIdentity", image_a=image, image_b=image)
    assert distance < 0.01 and same and "same person" in verdict


def test_saved_files_hold_nothing_but_pixels(run, nodes, image, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    run("SaveDeidentifiedImage", image=image, filename_prefix="a/b", format="png")
    files = list((tmp_path / "a").iterdir())
    assert [f.suffix for f in files] == [".png"]
    from PIL import Image

    assert Image.open(files[0]).info == {}
    with pytest.raises(Exception):  # noqa: B017  # ComfyUI's own refusal to leave its folder
        run("SaveDeidentifiedImage", image=image, filename_prefix="../../b", format="png")


def test_alpha_comes_out_opaque_where_faces_were(run, image) -> None:
    gray = image.mean(-1, keepdim=True)
    out, mask, *_ = run("VeilFaces", image=torch.cat([image, gray], -1), method=QUICK)
    assert torch.all(out[..., 3][mask > 0] == 1) and torch.equal(out[..., 3][mask == 0], gray[..., 0][mask == 0])


def test_a_plan_of_other_images_is_refused(run, image, group) -> None:
    """Another size, another scene, another number; Scale Faces adapts the first on purpose."""
    faces, _ = run("DetectFaces", image=image)
    half = torch.nn.functional.interpolate(image.movedim(-1, 1), scale_factor=0.5, mode="area").movedim(1, -1)
    with pytest.raises(Exception, match="detected in images of 512 x 512 pixels, but these are 256 x 256"):
        run("RedactFaces", image=half, faces=faces)
    with pytest.raises(Exception, match="detected in another image than image 0"):
        run("RedactFaces", image=image.flip(2), faces=faces)
    with pytest.raises(Exception, match="detected in 1 images, but there are 2"):
        run("VeilFaces", image=image.repeat(2, 1, 1, 1), faces=faces)
    both, _ = run("DetectFaces", image=image.repeat(2, 1, 1, 1))
    with pytest.raises(Exception, match="a face in image 1, but there is 1"):
        run("CropFaces", image=image, faces=both)
    (scaled,) = run("ScaleFaces", faces=faces, image=half)
    _, mask, *_ = run("RedactFaces", image=half, faces=scaled)
    x, y = (int(v) for v in scaled[0].points[30])
    assert mask[0, y, x] == 1
    with pytest.raises(Exception, match="another image"):
        run("ScaleFaces", faces=faces, image=half.flip(2))


def test_a_chain_of_nodes_works_on_its_own_results(run, group) -> None:
    """The second node gets the first one's image with the faces of the original."""
    faces, _ = run("DetectFaces", image=group)
    largest, others = run("SelectFaces", faces=faces, which="largest")
    first = run("RedactFaces", image=group, faces=others)[0]
    out, _, _, identity, *_ = run("VeilFaces", image=first, faces=largest, method=QUICK)
    assert (out != first).any() and None not in identity


def test_veil_faces_can_be_interrupted_in_the_search(run, image) -> None:
    """Before the first rendering of a search that would take a minute."""
    import comfy.model_management as management

    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("VeilFaces", image=image.repeat(4, 1, 1, 1), method={"method": "appearance", "search": 64})


def test_progress_is_sent_for_every_rendering(run, image, monkeypatch) -> None:
    import comfy.utils

    sent = []
    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", lambda self, *step: sent.append(step))
    run("VeilFaces", image=image, method={"method": "appearance", "search": 6})
    assert len(sent) > 8 and sent[-1][0] == sent[-1][1]


def test_boxes_are_a_socket_and_never_a_widget(nodes):
    """The frontend would make a widget with a box of 512 px, and Detect Faces would add it as a face."""
    (boxes,) = [item for item in nodes["FaceVeil_DetectFaces"].GET_SCHEMA().inputs if item.id == "bboxes"]
    assert boxes.as_dict()["forceInput"] is True
