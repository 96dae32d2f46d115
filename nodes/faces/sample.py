"""Node with a public-domain image, so that templates run at once."""

from __future__ import annotations

from comfy_api.latest import io

from ..convert import pixels_to_image
from ..schema import schema
from ..sockets import ROOT


class SamplePortrait(io.ComfyNode):
    HELP = """
    Templates start from this picture, so that they run before you load anything. Put **Load Image** in its place
    for your own.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SamplePortrait",
            search_aliases=["example image", "test image"],
            display_name="Sample Portrait",
            category=ROOT,
            description=(
                "Astronaut Eileen Collins (NASA, public domain), to try things on. Replace it by Load Image for your"
                " own photos."
            ),
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=["portrait", "group"],
                    default="portrait",
                    tooltip="One face, or three of different sizes.",
                )
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture.")],
        )

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        from ...pipelines.imaging.samples import astronaut, group
        from ...pipelines.imaging.uint8 import from_uint8

        array = group() if picture == "group" else astronaut()
        return io.NodeOutput(pixels_to_image(from_uint8(array)))


NODES = [SamplePortrait]
