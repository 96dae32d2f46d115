"""Nodes that crop faces to aligned squares and paste the squares back."""

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
    Send the squares through any other nodes, such as inpainting, face restoration or a face model, then connect them
    to **Paste Faces** together with *places*. Keep the number and the order of the squares.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_CropFaces",
            search_aliases=["face crop", "align faces"],
            display_name="Crop Faces",
            category=ROOT,
            description="Crop every face to an aligned square, to edit it with other nodes and paste it back.",
            inputs=[
                io.Image.Input("image", tooltip="The images in which the faces were detected."),
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
                    tooltip="ffhq: the whole head, upright. arcface: the inner face, upright. box: not rotated.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="crops", tooltip="One square per face."),
                io.Mask.Output(display_name="masks", tooltip="The face in each square, with a soft edge."),
                CropsSocket.Output(display_name="places", tooltip="Positions of the squares, for Paste Faces."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, size: int, alignment: str) -> io.NodeOutput:
        from ...pipelines.faces.crops import crop_faces

        crops = crop_faces(image_to_pixels(image), faces, size, alignment, bar())
        return io.NodeOutput(pixels_to_image(crops.images), mask_to_socket(crops.masks), crops.places)


class PasteFaces(io.ComfyNode):
    HELP = """
    Connect the edited squares and the *places* of **Crop Faces**. The squares may have another size, but must be
    square, and their number and order must stay the same.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PasteFaces",
            search_aliases=["uncrop faces", "face composite"],
            display_name="Paste Faces",
            category=ROOT,
            description=(
                "Paste edited squares back into their images. Small faces come first, so that larger faces in front of"
                " them stay complete."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The images from which the faces were cropped."),
                io.Image.Input("crops", tooltip="The edited squares, in the order of Crop Faces."),
                CropsSocket.Input("places", tooltip="From Crop Faces."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Parts of the squares to paste. Without it, the face with a soft edge.",
                ),
                io.Boolean.Input(
                    "match_color",
                    default=False,
                    tooltip="Match the colors of each square to the face that it replaces.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images with the squares pasted in."),
                io.Mask.Output(display_name="mask", tooltip="Pixels that have changed."),
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
