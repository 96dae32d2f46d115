"""Node that detects faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.names import BUILT_IN_DETECTORS, SENSITIVITY_NAMES, SensitivityName
from ..convert import bar, boxes_from_socket, image_alpha, image_to_pixels
from ..schema import schema
from ..sockets import ROOT, BoxesSocket, FacesSocket


class DetectFaces(io.ComfyNode):
    HELP = """
    The node detects faces from 12 px up to the size of the image, also rotated ones. No detector finds every face:
    check the result with **Preview Faces**, and raise *sensitivity* if a face is missed. Faces that the detector is not
    sure of have no landmarks: other nodes redact them instead of replacing them.

    **Another detector.** Connect the boxes of ComfyUI's own face detector (*Detect Face Landmarks (MediaPipe)*) to
    *bboxes*; its faces are added where none was found.
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
                io.Combo.Input(
                    "sensitivity",
                    options=list(SENSITIVITY_NAMES),
                    default="normal",
                    tooltip=(
                        "high finds smaller and more hidden faces in several times the time, with more false"
                        " detections. maximum takes everything that could be a head."
                    ),
                ),
                io.Boolean.Input(
                    "rotated",
                    default=True,
                    tooltip="Also detect sideways and upside-down heads. Takes a few tenths of a second per image.",
                ),
                BoxesSocket.Input(
                    "bboxes",
                    optional=True,
                    tooltip="Boxes of faces by another detector, which are added.",
                    # Without this, the frontend makes a widget of it whose default box is added as a face.
                    extra_dict={"forceInput": True},
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
    def execute(
        cls, image: torch.Tensor, detector: str, sensitivity: SensitivityName, rotated: bool, bboxes: object = None
    ) -> io.NodeOutput:
        from ...pipelines.faces.detectors import open_detector
        from ...pipelines.faces.transparency import detect_in_transparent
        from ...pipelines.faces.unite import faces_in_boxes, unite

        pixels, progress = image_to_pixels(image), bar()
        opened = open_detector(detector)
        found = detect_in_transparent(pixels, image_alpha(image), opened, progress, sensitivity, rotated)
        if bboxes is not None:
            found = unite(pixels, found, faces_in_boxes(pixels, boxes_from_socket(bboxes)))
        progress(len(pixels), len(pixels), "detecting faces")
        return io.NodeOutput(found, len(found))


NODES = [DetectFaces]
