"""Nodes that take identities out: Veil Faces (a new face) and Redact Faces (a cover)."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..pipelines.faces.face import Faces
from ..pipelines.faces.redact import REDACTION_SHAPES, REDACTION_STYLES
from ..pipelines.jobs.policy import ACTIONS, Policy
from .convert import bar, image_to_pixels, mask_to_socket, pixels_to_image
from .sockets import ROOT, FacesSocket, IdentitySocket

_POLICY_TIP = (
    "redact covers it, stop ends the run with a message, pass lets it through unprotected and says so in the report."
)


class VeilFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_VeilFaces",
            display_name="Veil Faces",
            category=ROOT,
            description=(
                "Give every face a new identity; keep pose, expression, gaze, hair, light and background. No download,"
                " no GPU."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Pictures with faces."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip=(
                        "0 keeps the person, 1 is recommended, above 1 goes further and looks stranger. Costs no time."
                    ),
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                io.Int.Input(
                    "search",
                    default=15,
                    min=1,
                    max=64,
                    tooltip=(
                        "How many identities are tried against a recognizer for each face, a tenth of a second each. 15"
                        " hide better than 1."
                    ),
                ),
                io.Combo.Input(
                    "unsafe_face",
                    options=list(ACTIONS),
                    default="redact",
                    tooltip="A face that is too small, too turned, or still recognized afterwards: " + _POLICY_TIP,
                ),
                io.Combo.Input(
                    "no_face",
                    options=list(ACTIONS),
                    default="redact",
                    tooltip="A picture in which nobody is found: " + _POLICY_TIP + " redact covers the whole picture.",
                ),
                io.Boolean.Input(
                    "same_person",
                    default=False,
                    tooltip="All faces are one person, as in frames or several photos, and get one identity.",
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Only these faces. Without it all faces are detected."
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip=(
                        "Show this one instead of a new one: from Sample Identity, Map to Pseudonym, or another Veil"
                        " Faces."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The same pictures with new faces."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed; all others are untouched."),
                FacesSocket.Output(display_name="faces", tooltip="The faces as they were found."),
                IdentitySocket.Output(
                    display_name="identity",
                    tooltip="The last identity shown, to use again on other pictures of the person.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What happened to each face, as JSON. It holds no picture and no embedding.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        strength: float,
        seed: int,
        search: int,
        unsafe_face: str,
        no_face: str,
        same_person: bool,
        faces: Faces | None = None,
        identity: Any = None,
    ) -> io.NodeOutput:
        from ..pipelines.jobs.photo import anonymize_batch
        from ..pipelines.jobs.settings import Settings

        policy = Policy(no_face=no_face, out_of_range=unsafe_face, failed=unsafe_face, still_similar=unsafe_face)
        settings = Settings(strength=strength, seed=seed, trials=search, policy=policy, same_person=same_person)
        result = anonymize_batch(image_to_pixels(image), settings, faces, identity=identity, progress=bar())
        return io.NodeOutput(
            pixels_to_image(result.pixels),
            mask_to_socket(result.mask),
            result.faces,
            result.identity,
            result.report.to_json(),
        )


class RedactFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_RedactFaces",
            display_name="Redact Faces",
            category=ROOT,
            description=(
                "Redaction faces. Solid removes them for good; pixelate and blur leave traces that software can"
                " sometimes match."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Pictures with faces."),
                io.Combo.Input(
                    "cover",
                    options=list(REDACTION_STYLES),
                    default="solid",
                    tooltip="solid is safe. pixelate and blur are weaker. sticker lays a picture of yours over it.",
                ),
                io.Combo.Input(
                    "shape",
                    options=list(REDACTION_SHAPES),
                    default="ellipse",
                    tooltip="hull follows the landmarks closely, box and ellipse cover a little more.",
                ),
                io.Combo.Input(
                    "no_face",
                    options=list(ACTIONS),
                    default="redact",
                    tooltip="A picture in which nobody is found: " + _POLICY_TIP + " redact covers the whole picture.",
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Only these faces. Without it all faces are detected."
                ),
                io.Image.Input("sticker", optional=True, tooltip="For the sticker cover."),
                io.Mask.Input(
                    "sticker_mask", optional=True, tooltip="From Load Image: where the sticker is transparent."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with faces covered."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed; all others are untouched."),
                io.String.Output(display_name="report", tooltip="What happened to each face, as JSON."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        cover: str,
        shape: str,
        no_face: str,
        faces: Faces | None = None,
        sticker: torch.Tensor | None = None,
        sticker_mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ..pipelines.jobs.photo import anonymize_batch
        from ..pipelines.jobs.settings import Settings

        settings = Settings(
            method=cover, shape=shape, policy=Policy(no_face=no_face), sticker=_with_alpha(sticker, sticker_mask)
        )
        result = anonymize_batch(image_to_pixels(image), settings, faces, progress=bar())
        return io.NodeOutput(pixels_to_image(result.pixels), mask_to_socket(result.mask), result.report.to_json())


def _with_alpha(sticker: torch.Tensor | None, mask: torch.Tensor | None) -> torch.Tensor | None:
    from .convert import mask_from_socket

    if sticker is None:
        return None
    pixels = image_to_pixels(sticker[:1])
    # Load Image gives 1 where the picture is transparent.
    height, width = pixels.shape[-2:]
    alpha = torch.ones(1, 1, height, width) if mask is None else 1 - mask_from_socket(mask[:1], 1, height, width)
    return torch.cat([pixels, alpha], 1)


NODES = [VeilFaces, RedactFaces]
