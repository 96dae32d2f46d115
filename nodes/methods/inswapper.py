"""Node of the method inswapper, which uses model files that the user provides."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ..anonymize.policy import face_outputs, no_face_input, output_of, policy_of, unsafe_face_input
from ..convert import bar, image_alpha, image_to_pixels
from ..files import FACES, OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input, seed_input, strength_input
from ..schema import schema
from ..sockets import NONE, ROOT, BankSocket, IdentitySocket, RecognizerSocket

if TYPE_CHECKING:
    from ...pipelines.identity.bank import Bank
    from ...pipelines.jobs.settings import GivenIdentity
    from ...pipelines.recognition.base import FaceRecognizer


class SwapWithIdentity(io.ComfyNode):
    HELP = """
    This node needs `inswapper_128.onnx` and `w600k_r50.onnx`. Their licenses exclude commercial use. Connect *identity*
    or *bank*, or choose a *sampler*; *identity* has priority over *bank*, and *bank* over *sampler*. To render a
    specific person, embed a photo with the same recognizer and connect it to *identity*.

    **Checks.** As in **Veil Faces**, dlib's recognizer and the connected recognizer compare each result with the
    original. *unsafe_face* sets the action for faces that still match.

    **Limits.** The swapper works at 128 px, so larger faces become softer. It may paint over objects in front of
    a face.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SwapWithIdentity",
            search_aliases=["face swap", "inswapper"],
            display_name="Swap with Identity",
            category=ROOT,
            description=(
                "Replace every face with a synthetic identity, using your inswapper_128 model. Recognizers check the"
                " results."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                RecognizerSocket.Input(
                    "recognizer",
                    tooltip="From Load Recognizer: kind arcface with w600k_r50.onnx. inswapper needs its embeddings.",
                ),
                io.Combo.Input(
                    "swapper",
                    options=names(FACES, (".onnx",)) or [NONE],
                    tooltip="inswapper_128.onnx, from models/insightface or models/faceveil.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[NONE, *names(OWN, (".safetensors",), "lds_")],
                    tooltip=(
                        "Samples new identities. Train one with faceveil train lds --space arcface:w600k_r50.onnx and"
                        " put it into models/faceveil."
                    ),
                ),
                strength_input("extrapolates beyond it"),
                seed_input(),
                unsafe_face_input(),
                no_face_input(),
                BankSocket.Input(
                    "bank",
                    optional=True,
                    tooltip="Bank of synthetic people to choose from, built with the same recognizer.",
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="Render this identity on all faces, or one per face. It must be from the same recognizer.",
                ),
                optional_faces_input("Replace"),
            ],
            outputs=face_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, swapper: str = NONE, sampler: str = NONE, **_: object) -> str:
        return model_stamp(FACES, swapper, sampler)

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        recognizer: FaceRecognizer,
        swapper: str = NONE,
        sampler: str = NONE,
        strength: float = 1.0,
        seed: int = 0,
        unsafe_face: str = "redact",
        no_face: str = "redact",
        bank: Bank | None = None,
        identity: GivenIdentity | None = None,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.identity.lds import load_sampler
        from ...pipelines.jobs.photo import anonymize_batch
        from ...pipelines.jobs.settings import Settings
        from ...pipelines.methods.inswapper.method import NAME, InSwapperMethod
        from ...pipelines.methods.inswapper.network import InSwapper
        from ...pipelines.recognition.arcface import ArcFace

        if not isinstance(recognizer, ArcFace):
            raise InputError(
                "inswapper needs an arcface recognizer; choose kind arcface and file w600k_r50.onnx in Load Recognizer"
            )
        source = bank
        if source is None and sampler != NONE:
            source = load_sampler(path_of(OWN, sampler, "train a sampler with faceveil train lds"))
        network = InSwapper(path_of(FACES, swapper, "put inswapper_128.onnx there and reload the page"))
        settings = Settings(method=NAME, strength=strength, seed=seed, policy=policy_of(unsafe_face, no_face))
        progress = bar()
        result = anonymize_batch(
            image_to_pixels(image),
            settings,
            faces,
            method=InSwapperMethod(network, recognizer, source),
            identity=identity,
            recognizers=(recognizer,),
            alpha=image_alpha(image),
            progress=progress,
            preview=progress.preview,
        )
        return output_of(result)


NODES = [SwapWithIdentity]
