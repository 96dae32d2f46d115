"""Node that masks the parts of faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, mask_to_socket
from ..files import OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input
from ..schema import schema
from ..sockets import ROOT

LANDMARKS = "none: landmarks"
_TIPS = {
    "face": "Skin, brows, eyes, nose, mouth and ears: what identifies a person.",
    "head": "The face with hair and glasses, without neck and hat.",
    "skin": "Skin and ears.",
    "brows": "Both brows.",
    "eyes": "Both eyes.",
    "nose": "The nose.",
    "mouth": "Lips and the inner mouth.",
    "hair": "The hair; without a parser, a rim around the face.",
    "glasses": "Glasses; empty without a parser.",
}


def parser_input() -> io.Combo.Input:
    """The choice of a face parser."""
    offered = [name for name in names(OWN, (".onnx", ".safetensors")) if "pars" in name]
    return io.Combo.Input(
        "parser",
        options=[LANDMARKS, *offered],
        tooltip=(
            "A face parser in models/faceveil with pars in its name: BiSeNet as .onnx, or the model.safetensors of a"
            " SegFormer folder. Without one, the landmarks' outlines are used."
        ),
    )


class ParseFace(io.ComfyNode):
    HELP = """
    Each mask covers all faces of an image. With a parser, they follow the pixels. Without one, they are outlines of the
    68 landmarks: enough for eyes and mouth, rough for the face, and they know no hair.

    BiSeNet: an ONNX file with 19 classes at 512 px, such as uniface's. SegFormer: a folder of transformers with
    `config.json` and `model.safetensors`, whose classes are those of CelebAMask-HQ.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ParseFace",
            search_aliases=["face parsing", "BiSeNet", "segment face", "face mask"],
            display_name="Parse Face",
            category=ROOT,
            description="Mask the parts of each face: skin, brows, eyes, nose, mouth, hair, glasses.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                parser_input(),
                optional_faces_input("Parse"),
            ],
            outputs=[io.Mask.Output(display_name=name, tooltip=tip) for name, tip in _TIPS.items()],
        )

    @classmethod
    def fingerprint_inputs(cls, parser: str = LANDMARKS, **_: object) -> str:
        return model_stamp(OWN, parser)

    @classmethod
    def execute(cls, image: Tensor, parser: str = LANDMARKS, faces: Faces | None = None) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.faces.parse import open_parser
        from ...pipelines.faces.regions import region_masks

        pixels = image_to_pixels(image)
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        chosen = [face for face in found if face.landmarks]
        if not chosen:
            raise InputError("no face with landmarks was found; connect images that show a face from the front")
        opened = None if parser == LANDMARKS else open_parser(path_of(OWN, parser, "put a face parser there"))
        masks = {name: torch.zeros_like(pixels[:, :1]) for name in _TIPS}
        progress = bar()
        for done, face in enumerate(chosen):
            progress(done, len(chosen), "parsing faces")
            regions = region_masks(pixels[face.image : face.image + 1], face.points, tuple(_TIPS), opened)
            for name, mask in regions.items():
                masks[name][face.image] = torch.maximum(masks[name][face.image], mask[0])
        progress(len(chosen), len(chosen), "parsing faces")
        return io.NodeOutput(*(mask_to_socket(mask) for mask in masks.values()))


NODES = [ParseFace]
