"""Node that adapts detected faces to resized images."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ..convert import image_to_pixels
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class ScaleFaces(io.ComfyNode):
    HELP = """
    Faces belong to the images that they were detected in. Connect this node where the images were resized between
    *Detect Faces* and the node that uses the faces. Cropped or other images are refused: detect their faces again.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ScaleFaces",
            search_aliases=["resize faces", "scale boxes"],
            display_name="Scale Faces",
            category=ROOT,
            description="Adapt detected faces to the same images at another size.",
            inputs=[
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Image.Input("image", tooltip="The same images, resized."),
            ],
            outputs=[FacesSocket.Output(display_name="faces", tooltip="The faces in the resized images.")],
        )

    @classmethod
    def execute(cls, faces: Faces, image: torch.Tensor) -> io.NodeOutput:
        return io.NodeOutput(faces.scaled(image_to_pixels(image)))


NODES = [ScaleFaces]
