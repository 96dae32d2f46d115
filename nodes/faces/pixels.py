"""Node that converts the latents of denoisers that work on pixels."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ..convert import pixels_to_image
from ..schema import schema
from ..sockets import ROOT


class DecodePixels(io.ComfyNode):
    HELP = """
    DiffDeID and IDDiffuse work on pixels, so there is no VAE. Connect the result to **Paste Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_DecodePixels",
            search_aliases=["pixel space", "VAE Decode", "DiffDeID", "IDDiffuse"],
            display_name="Decode Pixels",
            category=ROOT,
            description="Convert the LATENT of a network that works on pixels to images, without a VAE.",
            inputs=[io.Latent.Input("latent", tooltip="From KSampler with the model of DiffDeID or IDDiffuse.")],
            outputs=[io.Image.Output(display_name="crops", tooltip="One square per face, for Paste Faces.")],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any]) -> io.NodeOutput:
        samples = latent["samples"]
        if samples.dim() != 4 or samples.shape[1] != 3:
            raise InputError(
                f"this latent has the shape {tuple(samples.shape)}, not three channels; connect KSampler with the model"
                " of Load DiffDeID or Load IDDiffuse"
            )
        return io.NodeOutput(pixels_to_image((samples.float().cpu() + 1) / 2))


NODES = [DecodePixels]
