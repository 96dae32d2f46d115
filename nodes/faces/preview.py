"""Node that shows numbered faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ...pipelines.faces.face import Faces
from ..convert import image_to_pixels, pixels_to_image
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class PreviewFaces(io.ComfyNode):
    HELP = """
    The number at each box is the one that *Select Faces* understands.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PreviewFaces",
            search_aliases=["show faces", "face boxes"],
            display_name="Preview Faces",
            category=ROOT,
            is_output_node=True,
            description="Show numbered boxes and landmarks on the pictures.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures the faces were found in."),
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Boolean.Input("landmarks", default=True, tooltip="Draw the 68 points of each face."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The pictures with boxes drawn on them.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, landmarks: bool) -> io.NodeOutput:
        from ...pipelines.imaging.uint8 import from_pillow
        from ...pipelines.viz.sheets import draw_faces

        pixels = image_to_pixels(image)
        drawn = [from_pillow(draw_faces(pixels, faces, i, landmarks)) for i in range(len(pixels))]
        result = pixels_to_image(torch.cat(drawn))
        return io.NodeOutput(result, ui=ui.PreviewImage(result, cls=cls))


NODES = [PreviewFaces]
