"""The pack in a running ComfyUI, through its HTTP and websocket interface: what a user of the browser gets."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from faceveil.pipelines.imaging.image import LoadedImage, as_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.imaging.save import save_image
from server import Prompt, Server

pytestmark = pytest.mark.slow


def portrait() -> Prompt:
    return {"1": {"class_type": "LoadImage", "inputs": {"image": "portrait.png"}}}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": f"FaceVeil_{kind}", "inputs": inputs}


SAVE = {"filename_prefix": "out", "format": "png"}
VEIL = {"strength": 1.0, "seed": 0, "unsafe_face": "redact", "no_face": "redact", "same_person": False}


def veil(image: list[Any], **inputs: Any) -> dict[str, Any]:
    method = {"method": "appearance", "method.search": 6}
    return node("VeilFaces", image=image, **(VEIL | method | inputs))


def frames(count: int) -> Prompt:
    batch = {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": count}}
    return portrait() | {"2": batch}


def test_the_summary_and_a_preview_of_the_face_are_shown(server: Server) -> None:
    got = server.run(portrait() | {"2": veil(["1", 0]), "3": node("SaveDeidentifiedImage", **SAVE, image=["2", 0])})
    assert not got.error
    assert got.shown("2")["text"][0].startswith("1 face: 1 replaced")
    assert got.previews >= 1
    assert got.shown("3")["images"][0]["filename"].endswith(".png")


def test_frames_send_progress_at_once_and_stop_at_once(server: Server) -> None:
    """24 frames: progress within 2 seconds of the node's start, the end within 1 second of an interruption."""
    save = {"3": veil(["2", 0]), "4": node("SaveDeidentifiedImage", **SAVE, image=["3", 0])}
    for wait in (0.0, 2.5):
        got = server.run(frames(24) | save, interrupt_after=wait)
        begun = got.times("executing", "3")[0]
        first = min(t for t in got.times("progress", "3") if t >= begun)
        assert first - begun < 2
        assert got.interrupted_at is not None
        (ended,) = got.times("execution_interrupted")
        assert ended - got.interrupted_at < 1


def test_redaction_and_detection_of_frames_stop_at_once(server: Server) -> None:
    for work in (
        node("DetectFaces", image=["2", 0], detector="auto", sensitivity="high", rotated=True),
        node("RedactFaces", image=["2", 0], style="solid", shape="ellipse", no_face="redact"),
    ):
        end = {"4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}}
        got = server.run(frames(24) | {"3": work} | end, interrupt_after=0.5)
        (ended,) = got.times("execution_interrupted")
        assert got.interrupted_at is not None
        assert ended - got.interrupted_at < 1.5


def test_missing_files_are_named_with_the_remedy(server: Server) -> None:
    schema = json.loads(urllib.request.urlopen(f"http://{server.url}/object_info/FaceVeil_LoadReferenceNet").read())
    required = schema["FaceVeil_LoadReferenceNet"]["input"]["required"]
    # What the browser sends: the first choice of each list.
    inputs = {name: _first(spec) for name, spec in required.items()}
    end = {"2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
    got = server.run({"1": node("LoadReferenceNet", **inputs)} | end)
    assert "models/" in got.error
    assert "Required input is missing" not in got.error


def _first(spec: list[Any]) -> Any:
    kind, settings = spec[0], spec[1] if len(spec) > 1 else {}
    choices = kind if isinstance(kind, list) else settings.get("options")
    return choices[0] if choices else settings.get("default")


def test_results_are_readable_on_the_node(server: Server) -> None:
    got = server.run(
        portrait()
        | {
            "2": node("EmbedFaces", image=["1", 0], average=True),
            "3": node("CompareIdentity", image_a=["1", 0], image_b=["1", 0]),
            "4": node("SaveIdentity", identity=["2", 0], filename_prefix="mine"),
            "5": node("IdentityDistance", identity_a=["2", 0], identity_b=["2", 0]),
        }
    )
    assert not got.error, got.error
    assert "same person" in "".join(got.shown("3")["text"])
    assert "mine_00001_.safetensors" in "".join(got.shown("4")["text"])
    assert "0.0" in "".join(got.shown("5")["text"])


def test_a_file_that_was_overwritten_is_read_again(server: Server) -> None:
    from faceveil.pipelines.identity.identity import Identity, save_identity
    from faceveil.pipelines.identity.lds import builtin_sampler

    file = server.base / "output" / "person.safetensors"
    people = builtin_sampler("dlib").sample(2, 0).vectors
    prompt = {
        "1": node("LoadIdentity", file="person.safetensors"),
        "2": node("IdentityDistance", identity_a=["1", 0], identity_b=["1", 0]),
    }
    save_identity(file, Identity(people[:1], "dlib"))
    assert not server.run(prompt).error
    assert "1" in server.run(prompt).cached()
    save_identity(file, Identity(people[1:], "dlib"))
    again = server.run(prompt)
    assert "1" not in again.cached()
    file.unlink()
    assert "person.safetensors" in server.run(prompt).error


def test_a_tiff_is_shown_as_a_copy_without_metadata(server: Server) -> None:
    from PIL import Image

    save = node("SaveDeidentifiedImage", image=["1", 0], filename_prefix="deep", format="tiff")
    got = server.run(portrait() | {"2": save})
    (shown,) = got.shown("2")["images"]
    assert shown["type"] == "temp"
    with Image.open(server.base / "temp" / shown["filename"]) as copy:
        assert copy.format == "PNG"
        assert not copy.info
    assert (server.base / "output" / "deep_00001_.tiff").is_file()


def test_preview_nodes_store_no_prompt(server: Server) -> None:
    from PIL import Image

    faces = node("DetectFaces", image=["1", 0], detector="auto", sensitivity="normal", rotated=False)
    look = {"2": faces, "3": node("PreviewFaces", image=["1", 0], faces=["2", 0], landmarks=True, boxes=True)}
    got = server.run(portrait() | look)
    assert not got.error, got.error
    for shown in got.shown("3")["images"]:
        with Image.open(server.base / "temp" / shown["subfolder"] / shown["filename"]) as copy:
            assert "prompt" not in copy.info
            assert "workflow" not in copy.info


def test_alpha_comes_out(server: Server) -> None:
    import torch

    image = as_image(astronaut())
    alpha = torch.full_like(image.pixels[:, :1], 0.5)
    save_image(LoadedImage(image.pixels, alpha), server.base / "input" / "clear.png")
    from PIL import Image

    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "clear.png"}},
        "2": {"class_type": "InvertMask", "inputs": {"mask": ["1", 1]}},
        "3": {"class_type": "JoinImageWithAlpha", "inputs": {"image": ["1", 0], "alpha": ["1", 1]}},
        "4": veil(["3", 0]),
        "5": node("SaveDeidentifiedImage", image=["4", 0], filename_prefix="clear", format="png"),
    }
    got = server.run(prompt)
    assert not got.error, got.error
    with Image.open(server.base / "output" / "clear_00001_.png") as saved:
        assert saved.mode == "RGBA"
        values = saved.getchannel("A").getextrema()
    assert values[0] < 140
    assert values[1] == 255


HALF = {"upscale_method": "area", "scale_by": 0.5}
CASES: dict[str, tuple[Prompt, str]] = {
    "a plan of another image": (
        portrait()
        | {
            "2": node("SamplePortrait", picture="group"),
            "3": node("DetectFaces", image=["2", 0], detector="auto", sensitivity="normal", rotated=False),
            "4": node("RedactFaces", image=["1", 0], style="solid", shape="box", no_face="pass", faces=["3", 0]),
        },
        "the faces were detected in images of",
    ),
    "an image that was resized after the detection": (
        portrait()
        | {
            "2": {
                "class_type": "ImageScaleBy",
                "inputs": {"image": ["1", 0], "upscale_method": "area", "scale_by": 0.5},
            },
            "3": node("DetectFaces", image=["1", 0], detector="auto", sensitivity="normal", rotated=False),
            "4": veil(["2", 0], faces=["3", 0]),
        },
        "adapt the faces with Scale Faces",
    ),
    "a key name that is no name": (
        portrait()
        | {
            "2": node("EmbedFaces", image=["1", 0], average=True),
            "4": node("MapToPseudonym", identity=["2", 0], key="../mine", capacity=100, ledger=True),
        },
        "may contain only letters",
    ),
    "a face that is not there": (
        portrait()
        | {
            "2": node("DetectFaces", image=["1", 0], detector="auto", sensitivity="normal", rotated=False),
            "4": node("SelectFaces", faces=["2", 0], which="numbers", numbers="7", min_size=0),
        },
        "there is no face 7",
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_one_sentence_in_the_dialog(server: Server, kind: str) -> None:
    prompt, sentence = CASES[kind]
    end = {"9": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}}}
    got = server.run(prompt | end)
    assert sentence in got.error, got.error


@pytest.mark.parametrize("size", [(1, 1), (2, 300)])
def test_tiny_images_run(server: Server, size: tuple[int, int]) -> None:
    empty = {"class_type": "EmptyImage", "inputs": {"width": size[0], "height": size[1], "batch_size": 2, "color": 7}}
    redact = node("RedactFaces", image=["1", 0], style="solid", shape="box", no_face="redact")
    got = server.run({"1": empty, "2": redact, "3": node("SaveDeidentifiedImage", **SAVE, image=["2", 0])})
    assert not got.error, got.error
    assert "no face was found" in "".join(got.shown("2")["text"])


def test_a_mask_of_another_size_is_adapted(server: Server) -> None:
    mask = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 33, "height": 17}}
    redact = node("RedactFaces", image=["1", 0], style="sticker", shape="box", no_face="pass", sticker=["1", 0])
    redact["inputs"]["sticker_mask"] = ["2", 0]
    got = server.run(portrait() | {"2": mask, "3": redact, "4": node("SaveDeidentifiedImage", **SAVE, image=["3", 0])})
    assert not got.error, got.error
