"""Node with a public-domain image, so that the workflow templates run without other files."""

from __future__ import annotations

from comfy_api.latest import io

from ..convert import pixels_to_image
from ..schema import schema
from ..sockets import ROOT


class SamplePortrait(io.ComfyNode):
    HELP = """
    The workflow templates start with this node, so that they run without your own files. Replace it with
    **Load Image** to use your own photo.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SamplePortrait",
            search_aliases=["example image", "test image"],
            display_name="Sample Portrait",
            category=ROOT,
            description=(
                "Test image: astronaut Eileen Collins (NASA, public domain). Replace the node with Load Image for your"
                " own photos."
            ),
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=["portrait", "group"],
                    default="portrait",
                    tooltip="portrait: one face. group: three faces of different sizes.",
                )
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The test image.")],
        )

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        from ...pipelines.imaging.samples import astronaut, group
        from ...pipelines.imaging.uint8 import to_tensor

        array = group() if picture == "group" else astronaut()
        return io.NodeOutput(pixels_to_image(to_tensor(array)))


NODES = [SamplePortrait]
