"""Swap with Identity: the method inswapper, with the model files that the user has."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..pipelines.core.errors import InputError
from ..pipelines.faces.face import Faces
from ..pipelines.jobs.policy import ACTIONS, Policy
from .convert import bar, image_to_pixels, mask_to_socket, pixels_to_image
from .files import FACES, OWN, names, path_of
from .identity import one_identity
from .sockets import ROOT, BankSocket, FacesSocket, IdentitySocket, RecognizerSocket


class SwapWithIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SwapWithIdentity",
            display_name="Swap with Identity",
            category=ROOT,
            description=(
                "Give every face a drawn or mapped identity with the inswapper_128 model that you have. Results are"
                " checked and policies act."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Pictures with faces."),
                RecognizerSocket.Input(
                    "recognizer",
                    tooltip="From Load Recognizer: arcface with w600k_r50.onnx, which inswapper was taught with.",
                ),
                io.Combo.Input(
                    "swapper",
                    options=names(FACES, (".onnx",)),
                    tooltip="inswapper_128.onnx, from models/insightface or models/faceveil.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=["none", *names(OWN, (".safetensors",), "lds_")],
                    tooltip=(
                        "Draws new people: from faceveil train lds --space arcface:w600k_r50.onnx, put into"
                        " models/faceveil."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 keeps the person, 1 shows the new identity, above 1 goes past it.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                io.Combo.Input(
                    "unsafe_face",
                    options=list(ACTIONS),
                    default="redact",
                    tooltip=(
                        "A face that is too small or still recognized afterwards: redact covers it, stop ends the run,"
                        " pass lets it through."
                    ),
                ),
                io.Combo.Input(
                    "no_face",
                    options=list(ACTIONS),
                    default="redact",
                    tooltip="A picture in which nobody is found; redact covers it all.",
                ),
                BankSocket.Input(
                    "bank", optional=True, tooltip="Synthetic people to choose from, built with the same recognizer."
                ),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="Show this one on all faces, or one for each face, of the same recognizer.",
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Only these faces. Without it all faces are detected."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The same pictures with new faces."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed; all others are untouched."),
                FacesSocket.Output(display_name="faces", tooltip="The faces as they were found."),
                IdentitySocket.Output(display_name="identity", tooltip="The last identity shown."),
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
        recognizer: Any,
        swapper: str = "",
        sampler: str = "none",
        strength: float = 1.0,
        seed: int = 0,
        unsafe_face: str = "redact",
        no_face: str = "redact",
        bank: Any = None,
        identity: Any = None,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ..pipelines.identity.lds import load_sampler
        from ..pipelines.jobs.photo import anonymize_batch
        from ..pipelines.jobs.settings import Settings
        from ..pipelines.methods.inswapper.method import InSwapperMethod
        from ..pipelines.methods.inswapper.network import InSwapper
        from ..pipelines.recognition.arcface import ArcFace

        if not isinstance(recognizer, ArcFace):
            raise InputError(
                "inswapper works with arcface only; choose the kind arcface and w600k_r50.onnx in Load Recognizer"
            )
        drawn = None if sampler == "none" else load_sampler(path_of(OWN, sampler, "train one with faceveil train lds"))
        network = InSwapper(path_of(FACES, swapper, "put inswapper_128.onnx there and reload the page"))
        policy = Policy(no_face=no_face, out_of_range=unsafe_face, failed=unsafe_face, still_similar=unsafe_face)
        settings = Settings(method="inswapper", strength=strength, seed=seed, policy=policy)
        method = InSwapperMethod(network, recognizer, bank or drawn)
        identity = None if identity is None else one_identity(identity)
        result = anonymize_batch(
            image_to_pixels(image), settings, faces, method=method, identity=identity, progress=bar()
        )
        return io.NodeOutput(
            pixels_to_image(result.pixels),
            mask_to_socket(result.mask),
            result.faces,
            result.identity,
            result.report.to_json(),
        )


NODES = [SwapWithIdentity]
