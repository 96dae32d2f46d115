"""Veil Faces: give each face a new identity, by any method of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels
from ..options import chosen_method, method_input
from ..schema import schema
from ..sockets import MAX_SEED, ROOT, FacesSocket, IdentitySocket, RecognizerSocket
from .policy import face_outputs, no_face_input, output_of, policy_of, unsafe_face_input

if TYPE_CHECKING:
    from ...pipelines.jobs.settings import GivenIdentity
    from ...pipelines.recognition.base import FaceRecognizer


class VeilFaces(io.ComfyNode):
    HELP = """
    Each face gets the appearance of a person who does not exist: another shape, another texture. With the default
    method the photo's light, color, grain and sharpness stay, because its own pixels are moved and multiplied.

    **What is checked.** Each result is compared with the original by dlib's recognizer (128-d, same person below 0.60)
    and by the *recognizer* that you connect. Up to three identities are tried. A face that a recognizer still matches,
    that is too small, or whose head is rotated by more than 45 degrees, is treated as *unsafe_face* says. No other
    recognizer is asked. People who know someone may go by hair, clothes and place.

    **What it cannot do.** With the default method: profiles, children's proportions, and glasses that hide half the
    face. Wrinkles and beards follow the original.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_VeilFaces",
            search_aliases=["anonymize", "de-identify", "face replace", "privacy", "deface"],
            display_name="Veil Faces",
            category=ROOT,
            description=(
                "Anonymize: give every face a new identity; keep pose, expression, gaze, hair, light and background."
                " The default method needs no download and no GPU."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 keeps the person, 1 is recommended, above 1 goes further and looks less natural.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                unsafe_face_input(),
                no_face_input(),
                io.Boolean.Input(
                    "same_person",
                    default=False,
                    tooltip="All faces are one person, as in frames or several photos, and get one identity.",
                ),
                # Last of the widgets: a host without dynamic combos ignores the saved values of its inner ones.
                method_input(),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Only these faces. Without it all faces are detected."
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip=(
                        "Show this identity instead of a new one: from Sample Identity, Map to Pseudonym, or another"
                        " Veil Faces."
                    ),
                ),
                RecognizerSocket.Input(
                    "recognizer",
                    optional=True,
                    tooltip="From Load Recognizer: it checks the results as well as dlib; the stricter one decides.",
                ),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        strength: float,
        seed: int,
        unsafe_face: str,
        no_face: str,
        same_person: bool,
        method: str | Mapping[str, Any],
        faces: Faces | None = None,
        identity: GivenIdentity | None = None,
        recognizer: FaceRecognizer | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.jobs.photo import anonymize_batch
        from ...pipelines.jobs.settings import Settings
        from ...pipelines.methods.registry import open_method

        name, options = chosen_method(method)
        policy = policy_of(unsafe_face, no_face)
        settings = Settings(method=name, strength=strength, seed=seed, policy=policy, same_person=same_person)
        result = anonymize_batch(
            image_to_pixels(image),
            settings,
            faces,
            method=open_method(name, options),
            identity=identity,
            recognizers=() if recognizer is None else (recognizer,),
            progress=bar(),
        )
        return output_of(result)


NODES = [VeilFaces]
