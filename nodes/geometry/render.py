"""Nodes that render 3D faces and warp photos to them."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ..convert import image_to_pixels, mask_to_socket, pixels_to_image
from ..schema import schema
from ..sockets import CoefficientsSocket
from .common import CATEGORY, Geometry, overlaid, rendered


class Render3DFace(io.ComfyNode):
    HELP = """
    *normals* and *depth* are what ControlNets expect (depth: the nearest point is white). With an image, the faces
    are drawn at the picture's size where they belong; without one, each face fills a square.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...pipelines.geometry.names import STYLES

        return schema(
            node_id="FaceVeil_Render3DFace",
            search_aliases=["face depth", "face normals", "ControlNet face"],
            display_name="Render 3D Face",
            category=CATEGORY,
            description=(
                "Draw 3D faces alone or over their pictures: shaded, as normals or depth for ControlNet, as a mask or"
                " as wires."
            ),
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From any 3D node."),
                io.Combo.Input("style", options=list(STYLES), default="shaded", tooltip="What is drawn."),
                io.Int.Input(
                    "size", default=512, min=64, max=2048, step=64, tooltip="Of the square, when no image is connected."
                ),
                io.Float.Input("opacity", default=0.9, min=0.0, max=1.0, step=0.05, tooltip="Over an image."),
                io.Image.Input(
                    "image", optional=True, tooltip="The pictures that the coefficients come from, to draw over."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="One square a face, or the pictures with the faces over them."
                ),
                io.Mask.Output(display_name="mask", tooltip="Where the faces are."),
            ],
        )

    @classmethod
    def execute(
        cls,
        coefficients: Geometry,
        style: str,
        size: int,
        opacity: float,
        image: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if image is None:
            return io.NodeOutput(*rendered(coefficients, style, size))
        picture, mask = overlaid(coefficients, image_to_pixels(image), style, opacity)
        return io.NodeOutput(pixels_to_image(picture), mask_to_socket(mask))


class ReshapeFace(io.ComfyNode):
    HELP = """
    The photo's own pixels move; nothing is painted. What was hidden cannot appear, so turn a head by a few degrees
    only. **It hides nobody**: put *Veil Faces* behind it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ReshapeFace",
            search_aliases=["face warp", "liquify"],
            display_name="Reshape Face",
            category=CATEGORY,
            description="Bend the photo to an edited 3D face: its own pixels follow the surface.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the coefficients come from."),
                CoefficientsSocket.Input("coefficients", tooltip="The faces as they are, from Estimate Coefficients."),
                CoefficientsSocket.Input("edited", tooltip="The same faces after Edit, Replace, Perturb or Sample."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the faces reshaped."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels moved."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, coefficients: Geometry, edited: Geometry) -> io.NodeOutput:
        from ...pipelines.geometry.reshape import reshape

        pixels, pictures, masks = image_to_pixels(image), [], []
        if coefficients.images != edited.images:
            raise InputError(
                "the edited faces come from other pictures; connect both from the same Estimate Coefficients"
            )
        for i, rows in enumerate(coefficients.rows_by_image(len(pixels))):
            part = coefficients.estimate.rows(rows)
            picture, mask = reshape(
                coefficients.model, pixels[i : i + 1], part, edited.estimate.coefficients.rows(rows)
            )
            pictures.append(picture)
            masks.append(mask)
        return io.NodeOutput(pixels_to_image(torch.cat(pictures)), mask_to_socket(torch.cat(masks)))


NODES = [Render3DFace, ReshapeFace]
