"""DiffDeID as separate nodes: load, condition, core's KSampler on pixels, then paste."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, mask_to_socket, pixels_to_image
from ..files import OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input, seed_input
from ..schema import schema
from ..sockets import NONE, ROOT, CoefficientsSocket, CropsSocket, IdentitySocket

if TYPE_CHECKING:
    from ...pipelines.identity.identity import Identity
    from ...pipelines.methods.diffdeid.people import Described
    from ...pipelines.methods.diffdeid.pipeline import Checkpoint
    from ..geometry.common import Geometry

CATEGORY = f"{ROOT}/DiffDeID"
CheckpointSocket = io.Custom("FACEVEIL_DIFFDEID")
"""A ``Checkpoint``: the trained network, and what its conditions mean."""
CONDITIONS, SPATIAL = ("face", "masked", "identity", "coefficients"), ("face", "masked")
"""The network's conditions, and those with the image's size."""
_REMEDY = "train one with: faceveil train diffdeid, put it into models/faceveil, and reload the page"


class LoadDiffDeID(io.ComfyNode):
    HELP = """
    Nobody has published weights of DiffDeID. `faceveil train diffdeid --images FOLDER` trains them from a folder of
    portraits; put the file into `models/faceveil`.

    *model* works with KSampler and other samplers. It works on pixels: connect the *latent* of **DiffDeID
    Conditioning**, and **Decode Pixels** after it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadDiffDeID",
            search_aliases=["face de-identification", "diffusion"],
            display_name="Load DiffDeID",
            category=CATEGORY,
            description="Load a DiffDeID network that you trained with faceveil train diffdeid.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=names(OWN, (".safetensors",), "diffdeid") or [NONE],
                    tooltip="A file of faceveil train diffdeid with diffdeid in its name, from models/faceveil.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The denoiser, for KSampler."),
                CheckpointSocket.Output(display_name="diffdeid", tooltip="For DiffDeID Conditioning."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str = NONE, **_: object) -> str:
        return model_stamp(OWN, checkpoint)

    @classmethod
    def execute(cls, checkpoint: str = NONE) -> io.NodeOutput:
        from ...pipelines.methods.diffdeid.pipeline import Checkpoint
        from ..native.pixels import model_of

        opened = Checkpoint.open(path_of(OWN, checkpoint, _REMEDY))
        return io.NodeOutput(model_of(opened.network, CONDITIONS, SPATIAL, "DiffDeID Conditioning"), opened)


class DiffDeIDConditioning(io.ComfyNode):
    HELP = """
    Each face becomes a square of the network's size. From it the node removes the identity, keeps the mouth, fits the
    3D face model, and samples a new identity and a new 3D shape at *level*. Connect *positive*, *negative* and *latent*
    to **KSampler** with cfg 1, then **Decode Pixels** and **Paste Faces** with *places* and *masks*.

    **Levels.** 1 stays similar to the person, 10 is unrelated. Low levels do not protect anybody. These nodes do not
    check the result: use **Compare Identity**, or **Veil Faces** with the method diffdeid, which checks it.

    With *identity*, that person is shown instead; *level* then only changes the 3D shape. Faces without landmarks
    stay as they are and are counted in *report*: redact them with **Redact Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_DiffDeIDConditioning",
            search_aliases=["face de-identification", "anonymization level"],
            display_name="DiffDeID Conditioning",
            category=CATEGORY,
            description="Describe faces to DiffDeID's network: what stays of each, and the new person to draw.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                CheckpointSocket.Input("diffdeid", tooltip="From Load DiffDeID."),
                io.Int.Input(
                    "level",
                    default=10,
                    min=1,
                    max=10,
                    tooltip="1 stays similar to the person, 10 is unrelated to them.",
                ),
                seed_input(),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="Show this person: one for all faces, or one per face. It must be of the network's space.",
                ),
                CoefficientsSocket.Input(
                    "coefficients",
                    optional=True,
                    tooltip="Draw these 3D faces: from Estimate or Edit Coefficients of the same faces. Else new ones.",
                ),
                optional_faces_input("De-identify"),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The new people. Use it only with this model."),
                io.Conditioning.Output(display_name="negative", tooltip="The same without identity, for cfg above 1."),
                io.Latent.Output(display_name="latent", tooltip="An empty image of the right size, for KSampler."),
                CropsSocket.Output(display_name="places", tooltip="Positions of the squares, for Paste Faces."),
                io.Mask.Output(display_name="masks", tooltip="What to paste of each square, for Paste Faces."),
                io.String.Output(display_name="report", tooltip="Whether every new person met the level."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        diffdeid: Checkpoint,
        level: int,
        seed: int,
        identity: Identity | None = None,
        coefficients: Geometry | None = None,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.methods.diffdeid.people import describe_faces
        from ..native.pixels import conditioning

        pixels = image_to_pixels(image)
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        shapes = None if coefficients is None else coefficients.estimate.coefficients
        described = describe_faces(diffdeid, pixels, found, level, seed, identity, shapes, bar())
        size = diffdeid.network.config.size
        return io.NodeOutput(
            conditioning(dict(zip(CONDITIONS, described.conditions.parts(), strict=True))),
            conditioning(dict(zip(CONDITIONS, described.conditions.without_identity().parts(), strict=True))),
            {"samples": torch.zeros(len(described.places), 3, size, size)},
            described.places,
            mask_to_socket(described.masks),
            _report(described, level),
        )


def _report(described: Described, level: int) -> str:
    missed = [f"face {i + 1} by a cosine of {e:.2f}" for i, e in enumerate(described.excess) if e > 0]
    count = f"{len(described.excess)} {'face' if len(described.excess) == 1 else 'faces'}"
    words = f"{count}: " + (f"level {level} was missed: {', '.join(missed)}" if missed else f"level {level} was met")
    return words + (f"; {described.untouched} without landmarks stay as they are" if described.untouched else "")


class DeidentifyVideo(io.ComfyNode):
    HELP = """
    Connect the frames of **Get Video Components**, and the result to **Create Video** with the same audio and frame
    rate. The first frame of each person in a shot gives identity, texture and light; later frames give expression, pose
    and gaze. A person who comes back after a cut keeps the new face.

    *clips* is a network of `faceveil train diffdeid-video`. Without it, the network for images draws each frame, which
    flickers more.

    **Checks.** dlib's recognizer and ours compare each face with the original. A face that still matches, that cannot
    be replaced, or that was missed between two frames, is redacted.

    **Limits.** A network call per step, face and frame: minutes on a CPU. A face that no detector finds for more than
    13 frames is not protected in between.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_DeidentifyVideo",
            search_aliases=["face reenactment", "anonymize video"],
            display_name="De-identify Video",
            category=CATEGORY,
            description="Give every person in a video one new face that keeps expression, pose and gaze.",
            inputs=[
                io.Image.Input("frames", tooltip="The frames of one video, in order."),
                CheckpointSocket.Input("diffdeid", tooltip="From Load DiffDeID: a network for images."),
                io.Int.Input("level", default=10, min=1, max=10, tooltip="10 is unrelated to the person."),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Denoising steps of each face."),
                seed_input(),
                CheckpointSocket.Input("clips", optional=True, tooltip="From Load DiffDeID: a network for clips."),
            ],
            outputs=[
                io.Image.Output(display_name="frames", tooltip="The frames with new faces, in the same order."),
                io.String.Output(display_name="report", tooltip="How many faces were replaced and redacted."),
            ],
        )

    @classmethod
    def execute(
        cls, frames: Tensor, diffdeid: Checkpoint, level: int, steps: int, seed: int, clips: Checkpoint | None = None
    ) -> io.NodeOutput:
        from ...pipelines.core.devices import best_device
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.methods.diffdeid.method import method_of
        from ...pipelines.methods.diffdeid.video import Reenactment
        from ...pipelines.recognition.catalog import built_in_recognizers

        pixels = image_to_pixels(frames)
        method = method_of(diffdeid, steps, level=level)
        if clips is not None:
            clips.network.to(best_device())
        stream = Reenactment(method, clips, built_in_recognizers(), detect_faces, seed, steps=steps)
        progress, images, counts = bar(), [], [0, 0]
        for done, result in enumerate(stream(pixels.split(1))):
            progress(done, len(pixels), "drawing frames")
            images.append(result.image)
            counts = [counts[0] + result.replaced, counts[1] + result.redacted]
        people, (replaced, redacted) = len(stream.people), counts
        words = f"{people} {'person' if people == 1 else 'people'} in {len(pixels)} frames"
        words += f": {replaced} faces replaced, {redacted} redacted"
        return io.NodeOutput(pixels_to_image(torch.cat(images)), words)


class IdentityMask(io.ComfyNode):
    HELP = """
    The mask reaches from the chin to the hairline. The mouth stays visible unless *keep_mouth* is off, as in DiffDeID:
    it tells a network the expression. Use *mask* for inpainting, and *image* to see what is left of the person.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_IdentityMask",
            search_aliases=["face mask", "inpaint face"],
            display_name="Identity Mask",
            category=CATEGORY,
            description="Mask what identifies each person: skin, brows, eyes and nose. Hair and background stay.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                io.Boolean.Input("keep_mouth", default=True, tooltip="Leave the mouth visible."),
                optional_faces_input("Mask"),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images with gray in place of the identity."),
                io.Mask.Output(display_name="mask", tooltip="1 where the identity is."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, keep_mouth: bool = True, faces: Faces | None = None) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.methods.diffdeid.conditions import identity_masks

        pixels = image_to_pixels(image)
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        mask = identity_masks(pixels, found, keep_mouth)
        return io.NodeOutput(
            pixels_to_image(torch.lerp(pixels, torch.full_like(pixels, 0.5), mask)), mask_to_socket(mask)
        )


NODES = [LoadDiffDeID, DiffDeIDConditioning, DeidentifyVideo, IdentityMask]
