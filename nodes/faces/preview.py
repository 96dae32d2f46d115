"""Node that displays the detected faces with numbers."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ...pipelines.faces.face import Faces
from ..convert import image_to_pixels, pixels_to_image
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class PreviewFaces(io.ComfyNode):
    HELP = """
    Enter the number of a box in *numbers* of **Select Faces** to select that face.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PreviewFaces",
            search_aliases=["show faces", "face boxes"],
            display_name="Preview Faces",
            category=ROOT,
            is_output_node=True,
            description="Draw numbered boxes and landmarks on the images.",
            inputs=[
                io.Image.Input("image", tooltip="The images in which the faces were detected."),
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Boolean.Input("landmarks", default=True, tooltip="Draw the 68 landmarks of each face."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The images with boxes and landmarks.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, landmarks: bool) -> io.NodeOutput:
        from ...pipelines.imaging.uint8 import from_pillow
        from ...pipelines.viz.sheets import draw_faces

        pixels = image_to_pixels(image)
        annotated = [from_pillow(draw_faces(pixels, faces, i, landmarks)) for i in range(len(pixels))]
        result = pixels_to_image(torch.cat(annotated))
        return io.NodeOutput(result, ui=ui.PreviewImage(result))


NODES = [PreviewFaces]
