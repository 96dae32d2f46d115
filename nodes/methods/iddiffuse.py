"""IDDiffuse as separate nodes: load, extract the texture, condition on two people, core's KSampler, then paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.faces.crops import Place
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, mask_to_socket
from ..files import OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input
from ..schema import schema
from ..sockets import NONE, ROOT, BankSocket, CropsSocket

if TYPE_CHECKING:
    from ...pipelines.identity.bank import Bank
    from ...pipelines.methods.iddiffuse.method import Prepared
    from ...pipelines.methods.iddiffuse.pipeline import Checkpoint

CATEGORY = f"{ROOT}/IDDiffuse"
CheckpointSocket = io.Custom("FACEVEIL_IDDIFFUSE")
"""A ``Checkpoint``: the trained network, and the space of its identities."""
TextureSocket = io.Custom("FACEVEIL_TEXTURE")
"""A ``Texture``: analyzed faces and the tokens of their texture."""
CONDITIONS = ("identity", "texture")
_REMEDY = "train one with: faceveil train iddiffuse, put it into models/faceveil, and reload the page"


@dataclass(frozen=True)
class Texture:
    """Value of the texture socket.

    Attributes:
        checkpoint: whose texture encoder made the tokens.
        faces: the analyzed faces.
        tokens: ``(N, m^2 + 1, T)``.
    """

    checkpoint: Checkpoint
    faces: Sequence[Prepared]
    tokens: Tensor


class LoadIDDiffuse(io.ComfyNode):
    HELP = """
    Nobody has published weights of IDDiffuse. `faceveil train iddiffuse --images FOLDER --bank BANK` trains them, from
    scratch or from a checkpoint of DCFace; put the file into `models/faceveil`.

    *model* works with KSampler and other samplers. It works on pixels: connect the *latent* of **Extract Texture**, and
    **Decode Pixels** after it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadIDDiffuse",
            search_aliases=["synthetic identity", "DCFace", "diffusion"],
            display_name="Load IDDiffuse",
            category=CATEGORY,
            description="Load an IDDiffuse network that you trained with faceveil train iddiffuse.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=names(OWN, (".safetensors",), "iddiffuse") or [NONE],
                    tooltip="A file of faceveil train iddiffuse with iddiffuse in its name, from models/faceveil.",
                )
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The denoiser, for KSampler."),
                CheckpointSocket.Output(display_name="iddiffuse", tooltip="For Extract Texture."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str = NONE, **_: object) -> str:
        return model_stamp(OWN, checkpoint)

    @classmethod
    def execute(cls, checkpoint: str = NONE) -> io.NodeOutput:
        from ...pipelines.methods.iddiffuse.pipeline import Checkpoint
        from ..native.pixels import model_of

        opened = Checkpoint.open(path_of(OWN, checkpoint, _REMEDY))
        return io.NodeOutput(model_of(opened.network, CONDITIONS, (), "IDDiffuse Conditioning"), opened)


class ExtractTexture(io.ComfyNode):
    HELP = """
    The texture is the mean and the standard deviation of a recognizer's first features in 3 x 3 or 5 x 5 patches: pose,
    light, expression and skin in coarse terms, but no fine detail. Connect *texture* to **IDDiffuse Conditioning**,
    *latent* to **KSampler**, and *places* and *masks* to **Paste Faces**. Faces without landmarks stay as they are:
    redact them with **Redact Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ExtractTexture",
            search_aliases=["style encoder"],
            display_name="Extract Texture",
            category=CATEGORY,
            description="Extract from each face what IDDiffuse keeps: pose, light and expression in coarse patches.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                CheckpointSocket.Input("iddiffuse", tooltip="From Load IDDiffuse."),
                optional_faces_input("Replace"),
            ],
            outputs=[
                TextureSocket.Output(display_name="texture", tooltip="For IDDiffuse Conditioning."),
                io.Latent.Output(display_name="latent", tooltip="Empty images of the right size, for KSampler."),
                CropsSocket.Output(display_name="places", tooltip="Positions of the squares, for Paste Faces."),
                io.Mask.Output(display_name="masks", tooltip="What to paste of each square, for Paste Faces."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, iddiffuse: Checkpoint, faces: Faces | None = None) -> io.NodeOutput:
        from ...pipelines.faces.align import arcface_transform
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.methods.iddiffuse.method import paste_mask, prepare
        from ...pipelines.methods.iddiffuse.pairs import recognizer_of

        pixels = image_to_pixels(image)
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        chosen = [face for face in found if face.landmarks]
        if not chosen:
            raise InputError("no face with landmarks was found; connect images that show a face from the front")
        recognizer, size, progress = recognizer_of(iddiffuse.space), iddiffuse.network.config.unet.size, bar()
        prepared, places, masks = [], [], []
        for done, face in enumerate(chosen):
            progress(done, len(chosen), "extracting textures")
            prepared.append(prepare(recognizer, pixels[face.image : face.image + 1], face))
            transform = arcface_transform(face.points, size)
            places.append(Place(face, transform, size))
            masks.append(paste_mask(transform, face.points, size))
        squares = torch.cat([p.square for p in prepared])
        with torch.no_grad():
            tokens = iddiffuse.network.cpu().texture(squares * 2 - 1)
        latent = {"samples": torch.zeros(len(prepared), 3, size, size)}
        return io.NodeOutput(
            Texture(iddiffuse, tuple(prepared), tokens), latent, tuple(places), mask_to_socket(torch.cat(masks))
        )


class IDDiffuseConditioning(io.ComfyNode):
    HELP = """
    Each face is mapped to the nearest person of the bank, the same one in all images. Connect *positive* to both inputs
    of **KSampler**, with cfg 1 and the sampler *ddpm*, or any other.

    *gamma* 0 draws the synthetic person, 1 the real one. Values above 0 keep a part of the real identity and **do not
    protect it**. The paper maps to the nearest person, who is similar by definition; *skip_similar* leaves out those
    whom the recognizer would match. These nodes do not check the result: use **Compare Identity**, or **Veil Faces**
    with the method iddiffuse, which checks it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_IDDiffuseConditioning",
            search_aliases=["synthetic identity", "gamma"],
            display_name="IDDiffuse Conditioning",
            category=CATEGORY,
            description="Map each face to a synthetic person, and describe that person and the texture to the network.",
            inputs=[
                TextureSocket.Input("texture", tooltip="From Extract Texture."),
                BankSocket.Input("bank", tooltip="Synthetic people with portraits, of the network's space."),
                io.Float.Input(
                    "gamma",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 draws the synthetic person, 1 the real one.",
                ),
                io.Boolean.Input(
                    "skip_similar", default=False, tooltip="Leave out people whom the recognizer would match."
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The people. Use it only with this model.")
            ],
        )

    @classmethod
    def execute(cls, texture: Texture, bank: Bank, gamma: float, skip_similar: bool) -> io.NodeOutput:
        from ...pipelines.methods.iddiffuse.method import identity_tokens
        from ...pipelines.methods.iddiffuse.pairs import nearest_person
        from ..native.pixels import conditioning

        if bank.space != texture.checkpoint.space:
            raise InputError(
                f"this IDDiffuse network needs a bank of the space {texture.checkpoint.space}, but this one is of"
                f" {bank.space}; build one with that recognizer"
            )
        rows = [
            identity_tokens(texture.checkpoint.network, face, bank, nearest_person(bank, face.own, skip_similar), gamma)
            for face in texture.faces
        ]
        return io.NodeOutput(conditioning(dict(zip(CONDITIONS, (torch.cat(rows), texture.tokens), strict=True))))


NODES = [LoadIDDiffuse, ExtractTexture, IDDiffuseConditioning]
