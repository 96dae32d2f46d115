"""Nodes that keep identities as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from comfy_api.latest import io, ui

from ..files import kept_path, output_path
from ..schema import schema
from ..sockets import IdentitySocket
from .common import CATEGORY, only_identity

if TYPE_CHECKING:
    from .common import SocketIdentity


class SaveIdentity(io.ComfyNode):
    HELP = """
    safetensors with the space and the date. Nothing says where the vector came from.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveIdentity",
            search_aliases=["save embedding"],
            display_name="Save Identity",
            category=CATEGORY,
            is_output_node=True,
            description="Keep an identity as a file: vectors, their space and the date, no picture and no name of one.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Mind that the vector of a real person can find that person again."
                ),
                io.String.Input(
                    "filename_prefix", default="identity", tooltip="Name of the file below ComfyUI's output folder."
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
    Files that are damaged or of another kind are refused with a reason.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadIdentity",
            search_aliases=["load embedding"],
            display_name="Load Identity",
            category=CATEGORY,
            description="Read an identity that Save Identity wrote.",
            inputs=[
                io.String.Input(
                    "file", default="identity_00001_.safetensors", tooltip="Below ComfyUI's output or input folder."
                )
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces and the other identity nodes.")
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from ...pipelines.methods.identities import load_any_identity

        return io.NodeOutput(load_any_identity(kept_path(file, "Save Identity")))


NODES = [SaveIdentity, LoadIdentity]
