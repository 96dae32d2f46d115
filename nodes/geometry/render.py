"""Nodes that render 3D faces and warp photos to edited 3D faces."""

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
    *normals* and *depth* follow the conventions of ControlNet (depth: the nearest point is white). With *image*, the
    faces are rendered over it, at its size and at the positions of the faces. Without it, each face fills a square.
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
                "Render 3D faces alone or over their images: shaded, as normals or depth for ControlNet, as a mask, or"
                " as a wireframe."
            ),
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From any 3D node."),
                io.Combo.Input("style", options=list(STYLES), default="shaded", tooltip="Type of the rendering."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=64,
                    tooltip="Side of the square in pixels, if no image is connected.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Opacity of the faces over the image. It has no effect without an image.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The images that were used for the estimate, to render the faces over them.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="One square per face, or the images with the rendered faces."
                ),
                io.Mask.Output(display_name="mask", tooltip="Pixels that show a rendered face."),
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
        rendered_images, mask = overlaid(coefficients, image_to_pixels(image), style, opacity)
        return io.NodeOutput(pixels_to_image(rendered_images), mask_to_socket(mask))


class ReshapeFace(io.ComfyNode):
    HELP = """
    Connect the estimated faces to *coefficients* and the edited faces to *edited*. The node only moves pixels of the
    photo. Parts of the face that the photo does not show cannot appear, so rotate a head by a few degrees only.

    **This node does not anonymize.** Add **Veil Faces** after it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ReshapeFace",
            search_aliases=["face warp", "liquify"],
            display_name="Reshape Face",
            category=CATEGORY,
            description="Warp the photo to an edited 3D face: its pixels move with the surface.",
            inputs=[
                io.Image.Input("image", tooltip="The images that were used for the estimate."),
                CoefficientsSocket.Input("coefficients", tooltip="The original faces, from Estimate Coefficients."),
                CoefficientsSocket.Input(
                    "edited",
                    tooltip="The same faces after an edit, for example from Edit Coefficients.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images with reshaped faces."),
                io.Mask.Output(display_name="mask", tooltip="Pixels that have moved."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, coefficients: Geometry, edited: Geometry) -> io.NodeOutput:
        from ...pipelines.geometry.reshape import reshape

        pixels, images, masks = image_to_pixels(image), [], []
        if coefficients.images != edited.images:
            raise InputError(
                "the edited faces belong to other images; connect coefficients and edited from the same Estimate"
                " Coefficients node"
            )
        for i, rows in enumerate(coefficients.rows_by_image(len(pixels))):
            part = coefficients.estimate.rows(rows)
            warped, mask = reshape(coefficients.model, pixels[i : i + 1], part, edited.estimate.coefficients.rows(rows))
            images.append(warped)
            masks.append(mask)
        return io.NodeOutput(pixels_to_image(torch.cat(images)), mask_to_socket(torch.cat(masks)))


NODES = [Render3DFace, ReshapeFace]
