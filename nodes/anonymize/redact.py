"""Redact Faces: remove faces without a replacement."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ...pipelines.faces.face import Faces
from ...pipelines.faces.names import REDACTION_SHAPES, REDACTION_STYLES, RedactionShape
from ...pipelines.jobs.policy import Action, Policy
from ..convert import bar, image_alpha, image_to_pixels, mask_from_socket, mask_to_socket, pixels_to_image
from ..inputs import optional_faces_input
from ..schema import schema
from ..sockets import ROOT
from .policy import no_face_input, summary_output


class RedactFaces(io.ComfyNode):
    HELP = """
    Use *solid* for real protection: it removes all pixels of the face. Pixelation and blur scale with the size of the
    face and are weaker, because face recognition software can sometimes match the remaining pixels.

    For *sticker*, connect an image to *sticker*. Connect the mask of **Load Image** to *sticker_mask* if the sticker
    is transparent in places. The face below is filled first.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_RedactFaces",
            search_aliases=["censor", "blur faces", "pixelate faces", "mosaic", "hide face"],
            display_name="Redact Faces",
            category=ROOT,
            description=(
                "Remove faces with a solid fill, pixelation, blur or a sticker. Solid removes them permanently;"
                " pixelation and blur leave traces that software can sometimes match."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                io.Combo.Input(
                    "style",
                    options=list(REDACTION_STYLES),
                    default="solid",
                    tooltip="solid is safe. pixelate and blur are weaker. sticker pastes your image over a solid fill.",
                ),
                io.Combo.Input(
                    "shape",
                    options=list(REDACTION_SHAPES),
                    default="ellipse",
                    tooltip="hull follows the landmarks closely; box and ellipse are slightly larger.",
                ),
                no_face_input(),
                optional_faces_input("Redact"),
                io.Image.Input("sticker", optional=True, tooltip="Image for the style sticker."),
                io.Mask.Input(
                    "sticker_mask", optional=True, tooltip="Transparent parts of the sticker, from Load Image."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images with the faces redacted."),
                io.Mask.Output(
                    display_name="mask", tooltip="Pixels that may have changed. All other pixels are unchanged."
                ),
                io.String.Output(display_name="report", tooltip="The outcome for each face, as JSON."),
                summary_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        style: str,
        shape: RedactionShape,
        no_face: Action,
        faces: Faces | None = None,
        sticker: torch.Tensor | None = None,
        sticker_mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.jobs.photo import anonymize_batch
        from ...pipelines.jobs.settings import Settings

        policy, rgba = Policy(no_face=no_face), _with_alpha(sticker, sticker_mask)
        settings = Settings(method=style, shape=shape, policy=policy, sticker=rgba)
        pixels, alpha, progress = image_to_pixels(image), image_alpha(image), bar()
        result = anonymize_batch(pixels, settings, faces, alpha=alpha, progress=progress, preview=progress.preview)
        image = pixels_to_image(result.pixels, result.alpha)
        report, text = result.report.to_json(), result.report.text()
        return io.NodeOutput(image, mask_to_socket(result.mask), report, text, ui=ui.PreviewText(text))


def _with_alpha(sticker: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
    """Combine sticker and mask to RGBA ``(1, 4, h, w)``. The mask of Load Image is 1 where the image is transparent."""
    if sticker is None:
        return None
    pixels = image_to_pixels(sticker[:1])
    height, width = pixels.shape[-2:]
    alpha = torch.ones(1, 1, height, width) if mask is None else 1 - mask_from_socket(mask[:1], 1, height, width)
    return torch.cat([pixels, alpha], 1)


NODES = [RedactFaces]
