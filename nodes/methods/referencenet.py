"""Face Anonymization Made Simple as a graph: load, encode, choose a level, apply, then core KSampler.

The pictures are aligned squares, as Crop Faces gives them; Paste Faces puts the result back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError, WeightsError
from ...pipelines.methods.referencenet.pipeline import DEGREE
from ..convert import resized_image, rgb_image
from ..files import names, path_of
from ..schema import schema
from ..sockets import NONE, ROOT, ReferenceNetSocket, ReferenceSocket

CATEGORY = f"{ROOT}/ReferenceNet"
FOLDERS = ("faceveil", "diffusion_models")


@dataclass(frozen=True)
class Reference:
    """Encoded pictures, and at which degree they are shown.

    Attributes:
        nets: source and driving ReferenceNet.
        source_latents: ``(B, 4, h, w)`` unscaled.
        source_embedding, driving_embedding: ``(B, 1, D)``.
        driving, unconditional: states.
        swap: whether the source is another picture.
        degree, source: d, and the source states at it, once chosen.
    """

    nets: tuple[Any, Any]
    source_latents: Tensor
    source_embedding: Tensor
    driving_embedding: Tensor
    driving: dict[int, Tensor]
    unconditional: dict[int, Tensor]
    swap: bool
    degree: float = 0.0
    source: dict[int, Tensor] | None = None

    def at(self, degree: float) -> Reference:
        """The same pictures at a degree: Eq. 1, one pass of the source net's conditional row, Eq. 2."""
        from ...pipelines.methods.referencenet.network import mix, weaken
        from ..native.referencenet import record

        if degree == 1:
            return replace(self, degree=degree, source=self.unconditional)
        states = record(self.nets[0], self.source_latents, weaken(self.source_embedding, degree))
        if degree > 0:
            states = mix(states, self.unconditional, degree)
        return replace(self, degree=degree, source=states)


def _path(name: str, what: str) -> Path:
    from ...weights.catalog import card

    c = card(what)
    remedy = (
        f"get {c.file} from {c.origin} ({c.bytes / 1e9:.1f} GB, license: {c.license}), put it into models/{c.folder},"
        " and reload the page"
    )
    return path_of(FOLDERS, name, remedy)


class LoadReferenceNet(io.ComfyNode):
    HELP = """
    The files are those of *hkung/face-anon-simple*: put `referencenet/diffusion_pytorch_model.safetensors` and
    `conditioning_referencenet/diffusion_pytorch_model.safetensors` (3.5 GB each) into `models/faceveil/face-anon-
    simple`. Nothing is downloaded. Mind the license on their page: the authors' code is AGPL-3.0; this pack holds
    none of it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadReferenceNet",
            search_aliases=["face anonymization made simple"],
            display_name="Load ReferenceNet",
            category=CATEGORY,
            description=(
                "Load the two networks of Face Anonymization Made Simple that look at the pictures. They run once a"
                " picture."
            ),
            inputs=[
                io.Combo.Input(
                    "source_net",
                    options=names(FOLDERS, (".safetensors",)) or [NONE],
                    tooltip="referencenet of face-anon-simple: looks at the person who is shown.",
                ),
                io.Combo.Input(
                    "driving_net",
                    options=names(FOLDERS, (".safetensors",)) or [NONE],
                    tooltip="conditioning_referencenet: looks at the face whose pose and expression are kept.",
                ),
            ],
            outputs=[ReferenceNetSocket.Output(display_name="referencenet", tooltip="For Encode Reference.")],
        )

    @classmethod
    def execute(cls, source_net: str = "", driving_net: str = "") -> io.NodeOutput:
        from ..native.referencenet import load_unet

        paths = _path(source_net, "face-anon-simple-source"), _path(driving_net, "face-anon-simple-driving")
        return io.NodeOutput(tuple(load_unet(path) for path in paths))


class LoadFaceDenoiser(io.ComfyNode):
    HELP = """
    `unet/diffusion_pytorch_model.safetensors` of *hkung/face-anon-simple*. Networks of another size, as `faceveil
    train referencenet` makes, need their `config.json` beside them.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadFaceDenoiser",
            search_aliases=["face anonymization made simple"],
            display_name="Load Face Denoiser",
            category=CATEGORY,
            description=(
                "Load the denoiser of Face Anonymization Made Simple as a MODEL. Core's Load Diffusion Model works as"
                " well."
            ),
            inputs=[
                io.Combo.Input(
                    "denoiser", options=names(FOLDERS, (".safetensors",)) or [NONE], tooltip="unet of face-anon-simple."
                )
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For Apply ReferenceNet.")],
        )

    @classmethod
    def execute(cls, denoiser: str = "") -> io.NodeOutput:
        from ..native.referencenet import load_unet

        return io.NodeOutput(load_unet(_path(denoiser, "face-anon-simple-unet")))


class EncodeReference(io.ComfyNode):
    HELP = """
    Wire **Crop Faces** (size 512) into *image*. Core's *Load VAE* and *Load CLIP Vision* bring the other two;
    Stable Diffusion 2.1 was withdrawn by its owner in November 2025, a VAE of any Stable Diffusion 1 or 2 does the
    same. Each picture is encoded once: try levels and seeds without waiting for it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EncodeReference",
            search_aliases=["face anonymization made simple"],
            display_name="Encode Reference",
            category=CATEGORY,
            description=(
                "Look at a face once, for any level and any number of samplings. With a source picture: swap that"
                " person in."
            ),
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Aligned faces, from Crop Faces at 512 px: their pose, expression and background are kept.",
                ),
                ReferenceNetSocket.Input("referencenet", tooltip="From Load ReferenceNet."),
                io.Vae.Input("vae", tooltip="Any VAE of Stable Diffusion 1 or 2."),
                io.ClipVision.Input("clip_vision", tooltip="CLIP ViT-L/14 (clip-vit-large-patch14)."),
                io.Image.Input(
                    "source", optional=True, tooltip="Another person to show instead: one picture, or one for each."
                ),
            ],
            outputs=[
                ReferenceSocket.Output(
                    display_name="reference", tooltip="For Anonymization Level, or Apply ReferenceNet."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty latents of the right size for KSampler."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, referencenet: Any, vae: Any, clip_vision: Any, source: Tensor | None = None
    ) -> io.NodeOutput:
        from ..native.referencenet import record, record_nothing

        rgb = rgb_image(image)
        driving_latents = vae.encode(rgb)
        driving_embedding = _embed(clip_vision, rgb)
        if source is None:
            source_latents, source_embedding = driving_latents, driving_embedding
        else:
            shown = resized_image(source, rgb)
            source_latents, source_embedding = vae.encode(shown), _embed(clip_vision, shown)
        reference = Reference(
            referencenet,
            source_latents,
            source_embedding,
            driving_embedding,
            record(referencenet[1], driving_latents, driving_embedding),
            record_nothing(referencenet[0], source_latents, source_embedding),
            swap=source is not None,
        )
        return io.NodeOutput(reference, {"samples": torch.zeros_like(driving_latents)})


class AnonymizationLevel(io.ComfyNode):
    HELP = """
    The paper's degree d: Z' = (1 - d) Z and S' = (1 - d) S + d S_unconditional. At 1 the person is ignored, beyond
    1 the result moves away from the person. 1.25 is recommended (strength 1); the paper's tables use 1.2 and 1.4.
    **Check the result with Compare Identity**: nothing here does it for you.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_AnonymizationLevel",
            search_aliases=["face anonymization made simple", "degree"],
            display_name="Anonymization Level",
            category=CATEGORY,
            description=(
                "Say how far from the person the result should go. Changing it re-reads one picture only; nothing is"
                " encoded again."
            ),
            inputs=[
                ReferenceSocket.Input("reference", tooltip="From Encode Reference."),
                io.Float.Input(
                    "level",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="0 keeps (or swaps in) the person, 1 is recommended, more goes further.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["strength", "degree d"],
                    default="strength",
                    tooltip=(
                        "strength 1 is the recommended degree 1.25; degree d is the paper's own number, 1 ignores the"
                        " person."
                    ),
                ),
            ],
            outputs=[ReferenceSocket.Output(display_name="reference", tooltip="The same pictures at this level.")],
        )

    @classmethod
    def execute(cls, reference: Reference, level: float, unit: str) -> io.NodeOutput:
        if level < 0:
            raise InputError(
                f"the level must be 0 or more, got {level:g}; a negative one would bring the person out more"
            )
        return io.NodeOutput(reference.at(level * DEGREE if unit == "strength" else level))


class ApplyReferenceNet(io.ComfyNode):
    HELP = """
    *positive* and *negative* carry the references; wire both into KSampler with cfg 4. Any sampler, scheduler, LoRA
    or preview works; the unpatched model stays as it was. The paper's 200 steps are sampler *ddpm* with scheduler
    *ddim_uniform*. **Paste Faces** puts the decoded squares back.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ApplyReferenceNet",
            search_aliases=["face anonymization made simple"],
            display_name="Apply ReferenceNet",
            category=CATEGORY,
            description=(
                "Let a denoiser read the references, then sample with KSampler: cfg 4, 25 steps dpmpp_2m, or as in the"
                " paper 200 ddpm ddim_uniform."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The denoiser; LoRA may be on it. The model itself stays unpatched."),
                ReferenceSocket.Input(
                    "reference",
                    tooltip=(
                        "From Anonymization Level. Straight from Encode Reference it is shown at d 1.25, or swapped."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For KSampler."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="Holds the references; use it with this model only."
                ),
                io.Conditioning.Output(display_name="negative", tooltip="The same without the source."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, reference: Reference) -> io.NodeOutput:
        from ...pipelines.methods.referencenet.network import weaken
        from ..native.referencenet import conditioning, reader

        if reference.source is None:
            reference = reference.at(0.0 if reference.swap else DEGREE)
        assert reference.source is not None
        embedding, driving = weaken(reference.source_embedding, reference.degree), reference.driving_embedding
        positive = conditioning(torch.cat([embedding, driving], 1), reference.source, reference.driving)
        negative = conditioning(
            torch.cat([torch.zeros_like(embedding), driving], 1), reference.unconditional, reference.driving
        )
        return io.NodeOutput(reader(model), positive, negative)


def _embed(clip_vision: Any, image: Tensor) -> Tensor:
    """The pooled class token ``(B, 1, D)``: after the last norm and before the projection, which core's output
    includes."""
    seen = clip_vision.encode_image(image)
    tower = clip_vision.model.vision_model
    if not hasattr(tower, "post_layernorm") or getattr(tower, "output_layernorm", False):
        raise WeightsError("this CLIP Vision model is not a CLIP ViT; load clip-vit-large-patch14")
    token = seen["last_hidden_state"][:, 0].to(clip_vision.load_device)
    with torch.inference_mode():
        pooled = tower.post_layernorm(token)
    return pooled[:, None].float().to(image.device)


NODES = [LoadReferenceNet, LoadFaceDenoiser, EncodeReference, AnonymizationLevel, ApplyReferenceNet]
