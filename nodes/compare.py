"""Node that tells whether two pictures show the same person."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from .convert import image_to_pixels
from .sockets import ROOT


class CompareIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_CompareIdentity",
            display_name="Compare Identity",
            category=ROOT,
            is_output_node=True,
            description="Ask a recognizer whether the largest faces of two pictures are the same person.",
            inputs=[
                io.Image.Input("image_a", tooltip="One picture."),
                io.Image.Input("image_b", tooltip="The other picture."),
            ],
            outputs=[
                io.Float.Output(display_name="distance", tooltip="Smaller is more alike."),
                io.Boolean.Output(
                    display_name="same_person", tooltip="Whether the distance is below the recognizer's threshold."
                ),
                io.String.Output(display_name="verdict", tooltip="The same in words."),
            ],
        )

    @classmethod
    def execute(cls, image_a: torch.Tensor, image_b: torch.Tensor) -> io.NodeOutput:
        from ..pipelines.imaging.image import LoadedImage
        from ..pipelines.jobs.people import person_in
        from ..pipelines.recognition.dlib_resnet import default_recognizer
        from ..pipelines.recognition.verdict import judge

        recognizer = default_recognizer()
        a, b = (person_in(LoadedImage(image_to_pixels(image[:1]))) for image in (image_a, image_b))
        verdict = judge(recognizer, a, b)
        text = (
            f"{verdict.words}: {recognizer.name} distance {verdict.distance:.2f}, same person below"
            f" {verdict.threshold:.2f}"
        )
        return io.NodeOutput(verdict.distance, verdict.same, text, ui=ui.PreviewText(text))


NODES = [CompareIdentity]
