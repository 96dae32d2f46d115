"""Nodes that make and change identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ...pipelines.identity.identity import Identity
from ..convert import image_to_pixels
from ..files import OWN, names, path_of
from ..schema import schema
from ..sockets import BUILT_IN, MAX_SEED, FacesSocket, IdentitySocket, RecognizerSocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from ...pipelines.recognition.base import FaceRecognizer
    from .common import SocketIdentity


class EmbedFaces(io.ComfyNode):
    HELP = """
    dlib's recognizer, 128 numbers made unit length, or the one you connect. The vector of a real person is personal
    data: who has it can search for that person. It is not in any picture or report that this pack writes.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EmbedFaces",
            search_aliases=["face embedding", "face recognition"],
            display_name="Embed Faces",
            category=CATEGORY,
            description=(
                "Describe whose face it is, as a recognizer sees it. Several photos of one person can be averaged."
            ),
            inputs=[
                io.Image.Input("image", tooltip="One or more pictures."),
                io.Boolean.Input(
                    "average",
                    default=True,
                    tooltip="All faces are one person: give one identity. Off: one for each face.",
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Only these faces; without it the largest of each picture."
                ),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="From Load Recognizer; dlib's without one."
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="Unit vectors in the recognizer's space.")],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, average: bool, faces: Faces | None = None, recognizer: FaceRecognizer | None = None
    ) -> io.NodeOutput:
        from ...pipelines.jobs.people import embed_identities

        identity = embed_identities(image_to_pixels(image), faces, recognizer)
        return io.NodeOutput(identity.average() if average else identity)


class SampleIdentity(io.ComfyNode):
    HELP = """
    DiffDeID does not define its ten levels. Here level L starts the sampler from the original noised to L / 10 of
    its time and keeps the candidate whose cosine is nearest to 0.60 - 0.07 (L - 1), around the mean of all people.
    The sampler knows 3,200 people who do not exist.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SampleIdentity",
            search_aliases=["random person", "synthetic identity", "DiffDeID"],
            display_name="Sample Identity",
            category=CATEGORY,
            description=(
                "Draw a person who does not exist (the latent-diffusion sampler of DiffDeID). With an original: at one"
                " of ten levels from it."
            ),
            inputs=[
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                io.Int.Input(
                    "level", default=10, min=1, max=10, tooltip="Only with an original: 1 stays akin, 10 is a stranger."
                ),
                io.Int.Input(
                    "candidates",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="How many are drawn for a level; the one nearest to the level is kept.",
                ),
                io.Float.Input(
                    "max_similarity",
                    default=0.28,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="At level 10: people whose cosine to the original is higher are drawn again.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[BUILT_IN, *names(OWN, (".safetensors",), "lds_")],
                    tooltip=(
                        "The built-in one draws in dlib's space; others come from faceveil train lds, in"
                        " models/faceveil."
                    ),
                ),
                IdentitySocket.Input(
                    "original", optional=True, tooltip="From Embed Faces, with the sampler's recognizer."
                ),
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces, Save Identity and the like."),
                io.Float.Output(
                    display_name="cosine",
                    tooltip="To the original, around the mean of all people: 1 the same, 0 strangers.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        seed: int,
        level: int,
        candidates: int,
        max_similarity: float,
        sampler: str = BUILT_IN,
        original: SocketIdentity | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.identity.lds import LEVELS, builtin_sampler, load_sampler

        people = (
            builtin_sampler("dlib")
            if sampler == BUILT_IN
            else load_sampler(path_of(OWN, sampler, "train one with faceveil train lds"))
        )
        if not people.unit or people.unit < len(people.mean):
            raise InputError(
                f"{sampler} draws {people.space}, not identities; choose a sampler of a recognizer's space"
            )
        if original is not None and (space := one_identity(original).space) != people.space:
            raise InputError(
                f"this sampler draws identities of {people.space}, but the original is of {space}; embed it with the"
                " same recognizer"
            )
        if original is None:
            drawn = people.sample(1, seed)
        elif level == LEVELS:
            drawn = people.away_from(one_identity(original).vector, seed, max_similarity)
        else:
            drawn = people.level(one_identity(original).vector, level, seed, candidates)
        return io.NodeOutput(
            Identity(drawn.vectors[:1], people.space), float(drawn.cosines[0]) if original is not None else 0.0
        )


class BlendIdentity(io.ComfyNode):
    HELP = """
    On the great circle between the two. Show the result with **Veil Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_BlendIdentity",
            search_aliases=["mix identities", "interpolate identity"],
            display_name="Blend Identity",
            category=CATEGORY,
            description="Go from one identity towards another, past it, or away from it.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="Where to start."),
                IdentitySocket.Input("other", tooltip="Where to go, or what to move away from."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 stays, 1 arrives, above 1 goes past it, below 0 moves away from it.",
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="A unit vector of the same space.")],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, other: SocketIdentity, share: float) -> io.NodeOutput:
        from ...pipelines.identity.blend import away_from, slerp

        a, b = one_identity(identity), one_identity(other)
        return io.NodeOutput(slerp(a, b, share) if share >= 0 else away_from(a, b, -share))


class PerturbIdentity(io.ComfyNode):
    HELP = """
    Noise of N(0, scale^2) clamped to [-1, 1], as in IDEudemon. Check with **Identity Distance** how far it went.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PerturbIdentity",
            search_aliases=["identity noise", "IDEudemon"],
            display_name="Perturb Identity",
            category=CATEGORY,
            description="Add seeded noise to an identity, as IDEudemon does.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="From any identity node."),
                io.Float.Input(
                    "scale",
                    default=0.15,
                    min=0.05,
                    max=0.40,
                    step=0.01,
                    tooltip="Standard deviation of the noise on each number.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed, another noise.",
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="A unit vector of the same space.")],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, scale: float, seed: int) -> io.NodeOutput:
        from ...pipelines.identity.blend import perturb

        return io.NodeOutput(perturb(one_identity(identity), scale, seed))


NODES = [EmbedFaces, SampleIdentity, BlendIdentity, PerturbIdentity]
