"""Nodes that compute, sample and change identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ...pipelines.identity.identity import Identity
from ..convert import bar, image_to_pixels
from ..files import OWN, model_stamp, names, path_of
from ..inputs import seed_input
from ..schema import schema
from ..sockets import BUILT_IN, FacesSocket, IdentitySocket, RecognizerSocket
from .common import CATEGORY, one_identity

if TYPE_CHECKING:
    from ...pipelines.recognition.base import FaceRecognizer
    from .common import SocketIdentity


class EmbedFaces(io.ComfyNode):
    HELP = """
    Without *recognizer*, the node uses dlib's recognizer: 128 numbers, normalized to unit length.

    The embedding of a real person is personal data: it can be used to search for that person. No image and no report of
    this node pack contains it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EmbedFaces",
            search_aliases=["face embedding", "face recognition"],
            display_name="Embed Faces",
            category=CATEGORY,
            description=(
                "Compute the embeddings of faces with a face recognizer. Several photos of one person can be averaged."
            ),
            inputs=[
                io.Image.Input("image", tooltip="One or more images."),
                io.Boolean.Input(
                    "average",
                    default=True,
                    tooltip="On: all faces show one person and give one identity. Off: one identity per face.",
                ),
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip="Embed only these faces. Without it, the largest face of each image.",
                ),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="From Load Recognizer. Without it, dlib's recognizer."
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="Unit vectors in the recognizer's space.")],
        )

    @classmethod
    def execute(
        cls, image: torch.Tensor, average: bool, faces: Faces | None = None, recognizer: FaceRecognizer | None = None
    ) -> io.NodeOutput:
        from ...pipelines.jobs.people import embed_identities

        identity = embed_identities(image_to_pixels(image), faces, recognizer, bar())
        return io.NodeOutput(identity.average() if average else identity)


class SampleIdentity(io.ComfyNode):
    HELP = """
    Without *original*, the node samples a random identity. With it, level 10 samples identities until the cosine to
    the original is at most *max_similarity*. The built-in sampler was trained on embeddings of 3,200 synthetic faces.

    Levels 1 to 9 add noise to the original up to L / 10 of the diffusion time, denoise it to *candidates* identities,
    and keep the one whose cosine to the original is nearest to 0.60 - 0.07 (L - 1). DiffDeID does not define its
    levels.

    All cosines are computed after subtracting the mean of the training data and dividing by its standard deviation.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SampleIdentity",
            search_aliases=["random person", "synthetic identity", "DiffDeID"],
            display_name="Sample Identity",
            category=CATEGORY,
            description=(
                "Sample a synthetic identity with the latent-diffusion sampler of DiffDeID. With an original, the level"
                " sets how similar it is."
            ),
            inputs=[
                seed_input(),
                io.Int.Input(
                    "level",
                    default=10,
                    min=1,
                    max=10,
                    tooltip="Only with an original: 1 is similar to it, 10 is unrelated to it.",
                ),
                io.Int.Input(
                    "candidates",
                    default=64,
                    min=1,
                    max=1024,
                    tooltip="Number of candidates at levels 1 to 9. The one nearest to the level is kept.",
                ),
                io.Float.Input(
                    "max_similarity",
                    default=0.28,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Maximum cosine to the original at level 10. Identities above it are rejected.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[BUILT_IN, *names(OWN, (".safetensors",), "lds_")],
                    tooltip=(
                        "built-in samples embeddings of dlib. Train other samplers with faceveil train lds and put them"
                        " into models/faceveil."
                    ),
                ),
                IdentitySocket.Input(
                    "original",
                    optional=True,
                    tooltip="The original identity, from Embed Faces with the recognizer of the sampler.",
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", tooltip="The sampled identity, for Veil Faces and other identity nodes."
                ),
                io.Float.Output(
                    display_name="cosine",
                    tooltip="Cosine to the original: 1 is identical, about 0 unrelated. 0 without an original.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, sampler: str = BUILT_IN, **_: object) -> str:
        return model_stamp(OWN, sampler)

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

        model = (
            builtin_sampler("dlib")
            if sampler == BUILT_IN
            else load_sampler(path_of(OWN, sampler, "train a sampler with faceveil train lds"))
        )
        if not model.unit or model.unit < len(model.mean):
            raise InputError(
                f"{sampler} samples {model.space}, not embeddings; choose a sampler of a recognizer's space"
            )
        if original is not None and (space := one_identity(original).space) != model.space:
            raise InputError(
                f"this sampler samples identities of {model.space}, but the original is of {space}; embed the original"
                f" with {model.space}"
            )
        if original is None:
            samples = model.sample(1, seed)
        elif level == LEVELS:
            samples = model.away_from(one_identity(original).vector, seed, max_similarity)
        else:
            samples = model.level(one_identity(original).vector, level, seed, candidates)
        return io.NodeOutput(
            Identity(samples.vectors[:1], model.space), float(samples.cosines[0]) if original is not None else 0.0
        )


class BlendIdentity(io.ComfyNode):
    HELP = """
    Both identities must be from the same recognizer. The blend follows the great circle between the two unit vectors.
    Connect the result to *identity* of **Veil Faces** to render it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_BlendIdentity",
            search_aliases=["mix identities", "interpolate identity"],
            display_name="Blend Identity",
            category=CATEGORY,
            description="Move an identity toward another identity, beyond it, or away from it.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="The identity to move."),
                IdentitySocket.Input("other", tooltip="The identity to move toward or away from."),
                io.Float.Input(
                    "share",
                    default=0.5,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 keeps identity, 1 gives other, above 1 goes beyond other, below 0 moves away from it.",
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="A unit vector in the same space.")],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, other: SocketIdentity, share: float) -> io.NodeOutput:
        from ...pipelines.identity.blend import away_from, slerp

        a, b = one_identity(identity), one_identity(other)
        return io.NodeOutput(slerp(a, b, share) if share >= 0 else away_from(a, b, -share))


class PerturbIdentity(io.ComfyNode):
    HELP = """
    As in IDEudemon, the node adds Gaussian noise N(0, scale^2) to each number and clamps the result to [-1, 1]. Measure
    the effect with **Identity Distance**: a small scale may not change the identity enough.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PerturbIdentity",
            search_aliases=["identity noise", "IDEudemon"],
            display_name="Perturb Identity",
            category=CATEGORY,
            description="Add seeded noise to an identity, the method of IDEudemon.",
            inputs=[
                IdentitySocket.Input("identity", tooltip="From Embed Faces, Sample Identity or Blend Identity."),
                io.Float.Input(
                    "scale",
                    default=0.15,
                    min=0.05,
                    max=0.40,
                    step=0.01,
                    tooltip="Standard deviation of the noise.",
                ),
                seed_input("noise pattern"),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="A unit vector in the same space.")],
        )

    @classmethod
    def execute(cls, identity: SocketIdentity, scale: float, seed: int) -> io.NodeOutput:
        from ...pipelines.identity.blend import perturb

        return io.NodeOutput(perturb(one_identity(identity), scale, seed))


NODES = [EmbedFaces, SampleIdentity, BlendIdentity, PerturbIdentity]
