"""Node that finds faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class DetectFaces(io.ComfyNode):
    HELP = """
    Faces from about 24 px to the whole picture are found, also on their side. Look at the result with **Preview
    Faces** before you trust it: no detector finds every face. Lower the threshold when one is missed.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_DetectFaces",
            search_aliases=["face detection", "find faces"],
            display_name="Detect Faces",
            category=ROOT,
            description="Find the faces of each picture, with 68 landmarks. Works offline on the CPU.",
            inputs=[
                io.Image.Input("image", tooltip="Pictures to search."),
                io.Combo.Input(
                    "detector",
                    options=["auto", "centerface", "dlib"],
                    default="auto",
                    tooltip=(
                        "auto takes CenterFace, which also finds small faces; dlib finds frontal faces of 40 px and"
                        " more."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.45,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip=(
                        "Least confidence. Lower it when faces are missed; some of what is found will then be no face."
                    ),
                ),
                io.Boolean.Input(
                    "rotated",
                    default=True,
                    tooltip="Also look for heads lying on their side or upside down. Costs half a second a picture.",
                ),
            ],
            outputs=[
                FacesSocket.Output(display_name="faces", tooltip="For Select Faces, Veil Faces and the others."),
                io.Int.Output(display_name="count", tooltip="How many faces were found in all pictures together."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, detector: str, threshold: float, rotated: bool) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces, open_detector

        pixels, progress, opened = image_to_pixels(image), bar(), open_detector(detector)
        found = []
        for index in range(len(pixels)):
            progress(index, len(pixels), "detecting")
            for face in detect_faces(pixels[index : index + 1], opened, threshold, rotated):
                found.append(face.in_image(index))
        progress(len(pixels), len(pixels), "detecting")
        return io.NodeOutput(Faces(found), len(found))


NODES = [DetectFaces]
