"""IP-Adapter FaceID: load it, put it on a MODEL, and put an identity into CONDITIONING."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError
from ..files import model_stamp, names, path_of
from ..schema import schema
from ..sockets import NONE, ROOT, IdentitySocket

if TYPE_CHECKING:
    from ...pipelines.methods.inversion.adapter import FaceIdAdapter
    from ..identity.common import SocketIdentity

CATEGORY = f"{ROOT}/Inversion"
FOLDERS = ("ipadapter", "faceveil")
FaceIDSocket = io.Custom("FACEVEIL_FACEID")
"""A ``FaceIdAdapter``."""
_REMEDY = (
    "put ip-adapter-faceid_sd15.bin or ip-adapter-faceid_sdxl.bin of h94/IP-Adapter-FaceID (license: non-commercial"
    " research) into models/ipadapter, and reload the page"
)


class LoadFaceID(io.ComfyNode):
    HELP = """
    Put `ip-adapter-faceid_sd15.bin` (97 MB) or `ip-adapter-faceid_sdxl.bin` (1.1 GB) of *h94/IP-Adapter-FaceID* on
    Hugging Face into `models/ipadapter`. The node downloads nothing. FaceID Plus, PlusV2 and Portrait do not fit.

    The adapter and insightface's recognizer are licensed for non-commercial research.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadFaceID",
            search_aliases=["ip-adapter", "NullFace", "Reverse Personalization"],
            display_name="Load FaceID Adapter",
            category=CATEGORY,
            description="Load an IP-Adapter FaceID from models/ipadapter: the one of your checkpoint's family.",
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=names(FOLDERS, (".bin", ".safetensors"), "faceid") or [NONE],
                    tooltip="ip-adapter-faceid_sd15 for Stable Diffusion 1.5, ip-adapter-faceid_sdxl for SDXL.",
                )
            ],
            outputs=[FaceIDSocket.Output(display_name="faceid", tooltip="For Apply FaceID and FaceID Conditioning.")],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str = NONE, **_: object) -> str:
        return model_stamp(FOLDERS, adapter)

    @classmethod
    def execute(cls, adapter: str = NONE) -> io.NodeOutput:
        from ...pipelines.methods.inversion.adapter import open_adapter

        return io.NodeOutput(open_adapter(path_of(FOLDERS, adapter, _REMEDY)))


class ApplyFaceID(io.ComfyNode):
    HELP = """
    Put it between **Load Checkpoint** and what samples. LoRAs and other patches may come before it; another IP-Adapter
    as well, but not after it. The input model is not modified.

    Leave the FaceID LoRA file of the same author away: the adapter contains it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ApplyFaceID",
            search_aliases=["ip-adapter", "face identity"],
            display_name="Apply FaceID",
            category=CATEGORY,
            description="Add an IP-Adapter FaceID to a Stable Diffusion 1.5 or SDXL model, with its LoRA.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Checkpoint, with or without LoRAs."),
                FaceIDSocket.Input("faceid", tooltip="From Load FaceID Adapter."),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Scale of the attention to the identity. 1 as in the papers.",
                ),
                io.Float.Input(
                    "lora",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the adapter's LoRA. 1 as trained; 0 if you load it with a LoRA node.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For Invert Picture and Anonymize by Inversion, or any sampler with FaceID Conditioning.",
                )
            ],
        )

    @classmethod
    def execute(cls, model: Any, faceid: FaceIdAdapter, weight: float = 1.0, lora: float = 1.0) -> io.NodeOutput:
        from ..native.faceid import apply_faceid

        return io.NodeOutput(apply_faceid(model, faceid, weight, lora))


class FaceIDConditioning(io.ComfyNode):
    HELP = """
    With **KSampler** and the model of **Apply FaceID**, the prompt is drawn with this identity: a person of
    **Embed Faces** with an *arcface* recognizer, or of **Sample Identity** with a sampler of its space. Connect another
    one of these nodes without *identity* to *negative*.

    **Invert Picture** and **Anonymize by Inversion** add the identity themselves and do not need this node.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_FaceIDConditioning",
            search_aliases=["ip-adapter", "face identity"],
            display_name="FaceID Conditioning",
            category=CATEGORY,
            description="Add an identity to a prompt, for any sampler with the model of Apply FaceID.",
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode."),
                FaceIDSocket.Input("faceid", tooltip="From Load FaceID Adapter."),
                IdentitySocket.Input(
                    "identity",
                    optional=True,
                    tooltip="From the recognizer w600k_r50. Without it: nobody in particular.",
                ),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=-3.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Factor of the embedding. A negative one draws somebody unlike the person.",
                ),
            ],
            outputs=[io.Conditioning.Output(display_name="conditioning", tooltip="The prompt with the identity.")],
        )

    @classmethod
    def execute(
        cls, conditioning: list[Any], faceid: FaceIdAdapter, identity: SocketIdentity | None = None, scale: float = 1.0
    ) -> io.NodeOutput:
        from ..identity.common import one_identity
        from ..native.faceid import keys_and_values, with_identity

        if identity is None:
            embeddings = torch.zeros(1, faceid.embedding_size)
        else:
            embeddings = scale * faceid_embeddings(identity, len(one_identity(identity)))
        return io.NodeOutput(with_identity(conditioning, keys_and_values(faceid, embeddings)))


def faceid_embeddings(identity: SocketIdentity, count: int) -> Tensor:
    """The embeddings ``(count, D)`` of an identity socket, one a picture.

    Raises:
        InputError: they are of another recognizer, or their number differs.
    """
    from ...pipelines.recognition.arcface import SPACE
    from ..identity.common import one_identity

    vectors = one_identity(identity)
    if vectors.space != SPACE:
        raise InputError(
            f"FaceID needs embeddings of the recognizer arcface with w600k_r50.onnx, but these are of {vectors.space};"
            " connect Load Recognizer with that file to Embed Faces"
        )
    if len(vectors) != count:
        raise InputError(
            f"{len(vectors)} identities do not match {count} pictures; connect the same faces to Embed Faces, with"
            " average off"
        )
    return torch.from_numpy(vectors.vectors).float()


NODES = [LoadFaceID, ApplyFaceID, FaceIDConditioning]
