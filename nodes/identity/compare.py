"""Nodes that compare two faces or two identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from ..convert import image_to_pixels, pixels_to_image
from ..schema import schema
from ..sockets import ROOT, IdentitySocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from .common import SocketIdentity


class CompareIdentity(io.ComfyNode):
    HELP = """
    The node uses dlib's recognizer (CC0). A distance below 0.60 means *same person*; the mean distance between
    different people is about 0.85. The node displays the verdict; **Preview Any** displays the other outputs.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_CompareIdentity",
            search_aliases=["same person", "face similarity", "face recognition"],
            display_name="Compare Identity",
            category=ROOT,
            is_output_node=True,
            description="Check whether a recognizer matches the largest faces of two images.",
            inputs=[
                io.Image.Input("image_a", tooltip="First image. Only the first image of a batch is used."),
                io.Image.Input("image_b", tooltip="Second image. Only the first image of a batch is used."),
            ],
            outputs=[
                io.Float.Output(
                    display_name="distance", tooltip="Distance of the embeddings. Smaller means more similar."
                ),
                io.Boolean.Output(
                    display_name="same_person", tooltip="True if the distance is below the recognizer's threshold."
                ),
                io.String.Output(display_name="verdict", tooltip="The result as text."),
            ],
        )

    @classmethod
    def execute(cls, image_a: torch.Tensor, image_b: torch.Tensor) -> io.NodeOutput:
        from ...pipelines.imaging.image import LoadedImage
        from ...pipelines.jobs.people import embed_reference
        from ...pipelines.recognition.dlib_resnet import default_recognizer
        from ...pipelines.recognition.verdict import judge

        recognizer = default_recognizer()
        a, b = (embed_reference(LoadedImage(image_to_pixels(image[:1]))) for image in (image_a, image_b))
        verdict = judge(recognizer, a, b)
        text = (
            f"{verdict.words}: {recognizer.name} distance {verdict.distance:.2f}, same person below"
            f" {verdict.threshold:.2f}"
        )
        return io.NodeOutput(verdict.distance, verdict.same, text, ui=ui.PreviewText(text))


class IdentityDistance(io.ComfyNode):
    HELP = """
    Both identities must be from the same recognizer. Identities are unit vectors, so the distances differ from those of
    **Compare Identity**: dlib's threshold of 0.6 for raw embeddings is 0.396 for unit vectors.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_IdentityDistance",
            search_aliases=["face similarity", "embedding distance"],
            display_name="Identity Distance",
            category=CATEGORY,
            is_output_node=True,
            description="Measure the distance between two identities, as a number, as text and as a plot.",
            inputs=[
                IdentitySocket.Input("identity_a", tooltip="First identity."),
                IdentitySocket.Input("identity_b", tooltip="Second identity, from the same recognizer."),
            ],
            outputs=[
                io.Float.Output(
                    display_name="distance", tooltip="Distance of the embeddings. Smaller means more similar."
                ),
                io.Boolean.Output(display_name="same_person", tooltip="True if the distance is below the threshold."),
                io.String.Output(display_name="verdict", tooltip="The result as text."),
                io.Image.Output(display_name="plot", tooltip="Plot of the distance and the threshold."),
            ],
        )

    @classmethod
    def execute(cls, identity_a: SocketIdentity, identity_b: SocketIdentity) -> io.NodeOutput:
        from ...pipelines.identity.compare import compare_identities
        from ...pipelines.imaging.uint8 import from_pillow
        from ...pipelines.viz.sheets import distance_plot

        verdict = compare_identities(one_identity(identity_a), one_identity(identity_b))
        text = f"{verdict.words}: distance {verdict.distance:.2f}, same person below {verdict.threshold:.2f}"
        plot = pixels_to_image(from_pillow(distance_plot(verdict.distance, verdict.threshold)))
        return io.NodeOutput(verdict.distance, verdict.same, text, plot, ui=ui.PreviewText(text))


NODES = [CompareIdentity, IdentityDistance]
