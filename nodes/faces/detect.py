"""Node that detects faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.names import BUILT_IN_DETECTORS
from ..convert import bar, image_alpha, image_to_pixels
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class DetectFaces(io.ComfyNode):
    HELP = """
    The node detects faces from about 24 px up to the size of the image, also rotated ones. No detector finds every
    face: check the result with **Preview Faces**, and lower *threshold* if a face is missed.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_DetectFaces",
            search_aliases=["face detection", "find faces"],
            display_name="Detect Faces",
            category=ROOT,
            description="Detect the faces in each image, with 68 landmarks. Works offline on the CPU.",
            inputs=[
                io.Image.Input("image", tooltip="Images to search."),
                io.Combo.Input(
                    "detector",
                    options=list(BUILT_IN_DETECTORS),
                    default="auto",
                    tooltip=(
                        "auto uses CenterFace, which also detects small faces; dlib detects frontal faces of 40 px or"
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
                        "Minimum confidence. Lower it if faces are missed; this also gives more false detections."
                    ),
                ),
                io.Boolean.Input(
                    "rotated",
                    default=True,
                    tooltip="Also detect sideways and upside-down heads. Takes half a second per image.",
                ),
            ],
            outputs=[
                FacesSocket.Output(
                    display_name="faces", tooltip="The detected faces, for Select Faces, Veil Faces and other nodes."
                ),
                io.Int.Output(display_name="count", tooltip="Total number of detected faces in all images."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, detector: str, threshold: float, rotated: bool) -> io.NodeOutput:
        from ...pipelines.faces.detect import open_detector
        from ...pipelines.faces.transparency import detect_in_transparent

        pixels, progress = image_to_pixels(image), bar()
        found = detect_in_transparent(pixels, image_alpha(image), open_detector(detector), progress, threshold, rotated)
        progress(len(pixels), len(pixels), "detecting faces")
        return io.NodeOutput(found, len(found))


NODES = [DetectFaces]
