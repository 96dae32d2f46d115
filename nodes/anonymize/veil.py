"""Veil Faces: give each face a new identity with any method of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ..convert import bar, image_alpha, image_to_pixels
from ..inputs import optional_faces_input, seed_input, strength_input
from ..options import chosen_method, method_input, method_stamp
from ..schema import schema
from ..sockets import ROOT, IdentitySocket, RecognizerSocket
from .policy import face_outputs, no_face_input, output_of, policy_of, unsafe_face_input

if TYPE_CHECKING:
    from ...pipelines.jobs.settings import GivenIdentity
    from ...pipelines.recognition.base import FaceRecognizer


class VeilFaces(io.ComfyNode):
    HELP = """
    Each face gets the shape and texture of a synthetic person. The default method, *appearance*, warps and multiplies
    the pixels of the photo, so light, color, grain and sharpness stay.

    **Checks.** dlib's recognizer (128-d, same person below 0.60) and the connected *recognizer* compare each result
    with the original. Up to three identities are tried. *unsafe_face* sets the action for a face that still matches
    the original, is too small, or has more than 45 degrees of yaw. Recognizers that are not connected may
    still match it. People who know the person may recognize hair, clothes or the place.

    **Limits of the default method.** It cannot replace profiles, faces of small children, and faces that are half
    hidden. Glasses, wrinkles and beards stay as in the original.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_VeilFaces",
            search_aliases=["anonymize", "de-identify", "face replace", "privacy", "deface"],
            display_name="Veil Faces",
            category=ROOT,
            description=(
                "Anonymize: give every face a new identity and keep pose, expression, gaze, hair, light and background."
                " The default method needs no download and no GPU."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                strength_input("changes more and looks less natural"),
                seed_input(),
                unsafe_face_input(),
                no_face_input(),
                io.Boolean.Input(
                    "same_person",
                    default=False,
                    tooltip="All faces show one person (several photos, video frames) and get one identity.",
                ),
                # This widget is last: ComfyUI without dynamic combos ignores the saved values of its inner widgets.
                method_input(),
                optional_faces_input("Replace"),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip=(
                        "Render this identity instead of a new one. From Sample Identity, Map to Pseudonym, or another"
                        " Veil Faces."
                    ),
                ),
                RecognizerSocket.Input(
                    "recognizer",
                    optional=True,
                    tooltip="Second recognizer for the check, from Load Recognizer. A result must pass both checks.",
                ),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, method: str | Mapping[str, Any] | None = None, **_: object) -> str:
        return method_stamp(method)

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
        progress = bar()
        settings = Settings(method=name, strength=strength, seed=seed, policy=policy, same_person=same_person)
        result = anonymize_batch(
            image_to_pixels(image),
            settings,
            faces,
            method=open_method(name, options),
            identity=identity,
            recognizers=() if recognizer is None else (recognizer,),
            alpha=image_alpha(image),
            progress=progress,
            preview=progress.preview,
        )
        return output_of(result)


NODES = [VeilFaces]
