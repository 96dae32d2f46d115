"""Identities as things of their own: embed, draw, blend, name, keep, and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..pipelines.core.errors import InputError
from ..pipelines.faces.face import Faces
from ..pipelines.identity.identity import Identity
from .convert import image_to_pixels, pixels_to_image
from .files import OWN, kept_path, names, output_path, path_of
from .sockets import ROOT, BankSocket, FacesSocket, IdentitySocket, RecognizerSocket

CATEGORY = f"{ROOT}/Identity"
BUILTIN = "built-in"
_SEED_MAX = 0xFFFFFFFFFFFFFFFF


def one_identity(identity: Any) -> Identity:
    """What an identity socket brings, as vectors.

    Raises:
        InputError: it is a look of the embedded default.
    """
    if not isinstance(identity, Identity):
        raise InputError(
            "this identity is a look that Veil Faces found for one photo, not a vector; take one from Embed Faces or"
            " Sample Identity"
        )
    return identity


class EmbedFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_EmbedFaces",
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
        cls, image: torch.Tensor, average: bool, faces: Faces | None = None, recognizer: Any = None
    ) -> io.NodeOutput:
        from ..pipelines.jobs.people import identity_in

        identity = identity_in(image_to_pixels(image), faces, recognizer)
        return io.NodeOutput(identity.average() if average else identity)


class SampleIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SampleIdentity",
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
                    max=_SEED_MAX,
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
                    "most_alike",
                    default=0.28,
                    min=-1.0,
                    max=1.0,
                    step=0.01,
                    tooltip="At level 10: people whose cosine to the original is higher are drawn again.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[BUILTIN, *names(OWN, (".safetensors",), "lds_")],
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
        cls, seed: int, level: int, candidates: int, most_alike: float, sampler: str = BUILTIN, original: Any = None
    ) -> io.NodeOutput:
        from ..pipelines.identity.lds import LEVELS, builtin_sampler, load_sampler

        people = (
            builtin_sampler("dlib")
            if sampler == BUILTIN
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
            drawn = people.away_from(one_identity(original).vector, seed, most_alike)
        else:
            drawn = people.level(one_identity(original).vector, level, seed, candidates)
        return io.NodeOutput(
            Identity(drawn.vectors[:1], people.space), float(drawn.cosines[0]) if original is not None else 0.0
        )


class BlendIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_BlendIdentity",
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
    def execute(cls, identity: Any, other: Any, share: float) -> io.NodeOutput:
        from ..pipelines.identity.blend import away_from, slerp

        a, b = one_identity(identity), one_identity(other)
        return io.NodeOutput(slerp(a, b, share) if share >= 0 else away_from(a, b, -share))


class PerturbIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_PerturbIdentity",
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
                    max=_SEED_MAX,
                    control_after_generate=True,
                    tooltip="Another seed, another noise.",
                ),
            ],
            outputs=[IdentitySocket.Output(display_name="identity", tooltip="A unit vector of the same space.")],
        )

    @classmethod
    def execute(cls, identity: Any, scale: float, seed: int) -> io.NodeOutput:
        from ..pipelines.identity.blend import perturb

        return io.NodeOutput(perturb(one_identity(identity), scale, seed))


class MapToPseudonym(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_MapToPseudonym",
            display_name="Map to Pseudonym",
            category=CATEGORY,
            not_idempotent=True,
            description=(
                "Give a person the same new identity in every picture, file and day, under a key that only you hold."
            ),
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="From Embed Faces: averaged for one person, or one for each face of a group."
                ),
                io.String.Input(
                    "key",
                    default="default",
                    tooltip="Name of a key in ComfyUI's user folder; made when missing, never part of a workflow.",
                ),
                io.Int.Input(
                    "people",
                    default=1000,
                    min=2,
                    max=100_000,
                    tooltip="How many synthetic identities there are; keep it for a key.",
                ),
                BankSocket.Input(
                    "bank", optional=True, tooltip="Give these people out instead of drawn ones; keep it for a key."
                ),
            ],
            outputs=[
                IdentitySocket.Output(
                    display_name="identity", tooltip="The person's synthetic identity, for Veil Faces."
                ),
                io.Int.Output(
                    display_name="number",
                    is_output_list=True,
                    tooltip="Of the synthetic identity; different people have different ones.",
                ),
            ],
        )

    @classmethod
    def execute(cls, identity: Any, key: str, people: int, bank: Any = None) -> io.NodeOutput:
        import folder_paths

        from ..pipelines.identity.pseudonym import Pseudonyms

        if not key.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"the key name {key!r} may hold letters, digits, - and _ only")
        pseudonyms = Pseudonyms.open(Path(folder_paths.get_user_directory()) / "faceveil", key, people, bank)
        given = one_identity(identity)
        found = [pseudonyms.of(given[i]) for i in range(len(given))]
        return io.NodeOutput(
            Identity(np.concatenate([shown.vectors for _, shown in found]), found[0][1].space),
            [number for number, _ in found],
        )


class SaveIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SaveIdentity",
            display_name="Save Identity",
            category=CATEGORY,
            is_output_node=True,
            description="Keep an identity as a file: vectors, their space and the date, no picture and no name of one.",
            inputs=[
                IdentitySocket.Input(
                    "identity", tooltip="Mind that the vector of a real person can find that person again."
                ),
                io.String.Input(
                    "filename_prefix", default="identity", tooltip="Name of the file below ComfyUI's output folder."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, identity: Any, filename_prefix: str) -> io.NodeOutput:
        from ..pipelines.identity.identity import save_identity

        path = output_path(filename_prefix)
        save_identity(path, one_identity(identity))
        return io.NodeOutput(ui=ui.PreviewText(path.name))


class LoadIdentity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_LoadIdentity",
            display_name="Load Identity",
            category=CATEGORY,
            description="Read an identity that Save Identity wrote.",
            inputs=[
                io.String.Input(
                    "file", default="identity_00001_.safetensors", tooltip="Below ComfyUI's output or input folder."
                )
            ],
            outputs=[
                IdentitySocket.Output(display_name="identity", tooltip="For Veil Faces and the other identity nodes.")
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        from ..pipelines.identity.identity import load_identity

        return io.NodeOutput(load_identity(kept_path(file, "Save Identity")))


class IdentityDistance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_IdentityDistance",
            display_name="Identity Distance",
            category=CATEGORY,
            is_output_node=True,
            description="How far two identities are apart, in numbers, in words and as a picture.",
            inputs=[
                IdentitySocket.Input("identity_a", tooltip="One identity."),
                IdentitySocket.Input("identity_b", tooltip="Another of the same space."),
            ],
            outputs=[
                io.Float.Output(display_name="distance", tooltip="Smaller is more alike."),
                io.Boolean.Output(display_name="same_person", tooltip="Whether the distance is below the threshold."),
                io.String.Output(display_name="verdict", tooltip="The same in words."),
                io.Image.Output(display_name="plot", tooltip="The distance on a line with the threshold."),
            ],
        )

    @classmethod
    def execute(cls, identity_a: Any, identity_b: Any) -> io.NodeOutput:
        from ..pipelines.identity.compare import compare_identities
        from ..pipelines.viz.sheets import distance_plot

        verdict = compare_identities(one_identity(identity_a), one_identity(identity_b))
        text = f"{verdict.words}: distance {verdict.distance:.2f}, same person below {verdict.threshold:.2f}"
        drawn = np.asarray(distance_plot(verdict.distance, verdict.threshold), dtype=np.float32) / 255
        plot = pixels_to_image(torch.from_numpy(drawn.copy()).movedim(-1, 0)[None])
        return io.NodeOutput(verdict.distance, verdict.same, text, plot, ui=ui.PreviewText(text))


NODES = [
    EmbedFaces,
    SampleIdentity,
    BlendIdentity,
    PerturbIdentity,
    MapToPseudonym,
    SaveIdentity,
    LoadIdentity,
    IdentityDistance,
]
