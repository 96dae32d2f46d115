"""Nodes that cut aligned squares out and paste them back."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.crops import ALIGNMENTS, Place
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, mask_from_socket, mask_to_socket, pixels_to_image
from ..schema import schema
from ..sockets import ROOT, CropsSocket, FacesSocket


class CropFaces(io.ComfyNode):
    HELP = """
    The squares can go through any other node: an inpainting graph, a restorer, a face model. Keep their order.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_CropFaces",
            search_aliases=["face crop", "align faces"],
            display_name="Crop Faces",
            category=ROOT,
            description="Cut every face out as an aligned square, to work on it with any other node and paste it back.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures the faces were found in."),
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Side of the squares in pixels. 512 suits Stable Diffusion 1.5 and 2.1.",
                ),
                io.Combo.Input(
                    "alignment",
                    options=list(ALIGNMENTS),
                    default="ffhq",
                    tooltip="ffhq shows the whole head upright, arcface the inner face, box is not turned.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="crops", tooltip="One square a face."),
                io.Mask.Output(display_name="masks", tooltip="The face in each square, with a soft edge."),
                CropsSocket.Output(display_name="places", tooltip="Where the squares belong, for Paste Faces."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, size: int, alignment: str) -> io.NodeOutput:
        from ...pipelines.faces.crops import crop_faces

        crops = crop_faces(image_to_pixels(image), faces, size, alignment, bar())
        return io.NodeOutput(pixels_to_image(crops.images), mask_to_socket(crops.masks), crops.places)


class PasteFaces(io.ComfyNode):
    HELP = """
    Squares may have been resized on the way, but none may be added or dropped.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PasteFaces",
            search_aliases=["uncrop faces", "face composite"],
            display_name="Paste Faces",
            category=ROOT,
            description=(
                "Put worked-on squares back into their pictures, smallest face first, so that overlapping faces stay"
                " whole."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the faces were cropped from."),
                io.Image.Input("crops", tooltip="The changed squares, in the order of Crop Faces."),
                CropsSocket.Input("places", tooltip="From Crop Faces."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="What to paste of each square; without it the face with a soft edge.",
                ),
                io.Boolean.Input(
                    "match_color", default=False, tooltip="Give each square the colors of the face it replaces."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the squares pasted in."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        crops: torch.Tensor,
        places: tuple[Place, ...],
        masks: torch.Tensor | None = None,
        match_color: bool = False,
    ) -> io.NodeOutput:
        from ...pipelines.faces.crops import paste_faces

        pixels, squares = image_to_pixels(image), image_to_pixels(crops)
        given = None if masks is None else mask_from_socket(masks, len(squares), *squares.shape[-2:])
        result = paste_faces(pixels, squares, places, given, match_color, bar())
        changed = (result != pixels).any(1, keepdim=True).float()
        return io.NodeOutput(pixels_to_image(result), mask_to_socket(changed))


NODES = [CropFaces, PasteFaces]
