"""Nodes that save and load identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..files import kept_path, output_path, saved_names, saved_stamp
from ..schema import schema
from ..sockets import NONE, IdentitySocket
from .common import CATEGORY, only_identity

if TYPE_CHECKING:
    from .common import SocketIdentity


class SaveIdentity(io.ComfyNode):
    HELP = """
    The safetensors file contains nothing about the origin of the identity. **Load Identity** reads it. An identity from
    Veil Faces must be of one face only: select that face with **Select Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveIdentity",
            search_aliases=["save embedding"],
            display_name="Save Identity",
            category=CATEGORY,
            is_output_node=True,
            description="Save an identity as a file: vectors, their space and the date, without images or image names.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="The identity to save. The embedding of a real person is personal data."
                ),
                io.String.Input(
                    "filename_prefix", default="identity", tooltip="File name prefix in ComfyUI's output folder."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, filename_prefix: str) -> io.NodeOutput:
        from ...pipelines.methods.identities import save_any_identity

        kept = only_identity(identity)
        path = output_path(filename_prefix)
        save_any_identity(path, kept)
        return io.NodeOutput(ui=ui.PreviewText(path.name))


class LoadIdentity(io.ComfyNode):
    HELP = """
    Choose a file of **Save Identity**. Press `r` to list a file that was saved after the page was loaded. An identity
    from **Veil Faces** works only with the same method.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadIdentity",
            search_aliases=["load embedding"],
            display_name="Load Identity",
            category=CATEGORY,
            description="Load an identity from a file of Save Identity.",
            inputs=[
                io.Combo.Input("file", options=saved_names(), tooltip="A file in ComfyUI's output or input folder.")
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces and the other identity nodes.")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = NONE, **_: object) -> str:
        return saved_stamp(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from ...pipelines.methods.identities import load_any_identity

        return io.NodeOutput(load_any_identity(kept_path(file, "Save Identity")))


NODES = [SaveIdentity, LoadIdentity]
