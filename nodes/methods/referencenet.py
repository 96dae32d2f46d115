"""Face Anonymization Made Simple as separate nodes: load, encode, set the level, apply, then core's KSampler.

The images are aligned squares from Crop Faces. Paste Faces pastes the result back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError, WeightsError
from ...pipelines.methods.referencenet.pipeline import DEGREE, MAX_DEGREE
from ..convert import resized_image, rgb_image
from ..files import model_stamp, names, path_of
from ..schema import schema
from ..sockets import NONE, ROOT, ReferenceNetSocket, ReferenceSocket

CATEGORY = f"{ROOT}/ReferenceNet"
FOLDERS = ("faceveil", "diffusion_models")


@dataclass(frozen=True)
class Reference:
    """Encoded images and the anonymization degree.

    Attributes:
        nets: source and driving ReferenceNet.
        source_latents: ``(B, 4, h, w)``, unscaled.
        source_embedding, driving_embedding: ``(B, 1, D)``.
        driving, unconditional: states of the driving image, and of a source of zeros.
        swap: whether the source is a different image.
        degree, source: degree d and the source states at this degree; ``source`` is None until a degree is set.
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
        """Set the degree: Eq. 1, one conditional pass of the source ReferenceNet, Eq. 2."""
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
    Put `referencenet/diffusion_pytorch_model.safetensors` and
    `conditioning_referencenet/diffusion_pytorch_model.safetensors` (3.5 GB each) of *hkung/face-anon-simple* on
    Hugging Face into `models/faceveil/face-anon-simple`. The node downloads nothing.

    Check the license on that page. The authors' code is under AGPL-3.0; this pack contains none of it.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadReferenceNet",
            search_aliases=["face anonymization made simple"],
            display_name="Load ReferenceNet",
            category=CATEGORY,
            description=(
                "Load the two ReferenceNets of Face Anonymization Made Simple. They encode the images; each runs once"
                " per image."
            ),
            inputs=[
                io.Combo.Input(
                    "source_net",
                    options=names(FOLDERS, (".safetensors",)) or [NONE],
                    tooltip="referencenet of face-anon-simple: encodes the identity.",
                ),
                io.Combo.Input(
                    "driving_net",
                    options=names(FOLDERS, (".safetensors",)) or [NONE],
                    tooltip="conditioning_referencenet of face-anon-simple: encodes pose and expression.",
                ),
            ],
            outputs=[ReferenceNetSocket.Output(display_name="referencenet", tooltip="For Encode Reference.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source_net: str = NONE, driving_net: str = NONE, **_: object) -> str:
        return model_stamp(FOLDERS, source_net, driving_net)

    @classmethod
    def execute(cls, source_net: str = "", driving_net: str = "") -> io.NodeOutput:
        from ..native.referencenet import load_unet

        paths = _path(source_net, "face-anon-simple-source"), _path(driving_net, "face-anon-simple-driving")
        return io.NodeOutput(tuple(load_unet(path) for path in paths))


class LoadFaceDenoiser(io.ComfyNode):
    HELP = """
    Put `unet/diffusion_pytorch_model.safetensors` of *hkung/face-anon-simple* into `models/faceveil/face-anon-simple`.
    A network of another size, such as one from `faceveil train referencenet`, needs its `config.json` in the same
    folder.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadFaceDenoiser",
            search_aliases=["face anonymization made simple"],
            display_name="Load Face Denoiser",
            category=CATEGORY,
            description=(
                "Load the denoiser of Face Anonymization Made Simple as a MODEL. ComfyUI's Load Diffusion Model also"
                " works."
            ),
            inputs=[
                io.Combo.Input(
                    "denoiser", options=names(FOLDERS, (".safetensors",)) or [NONE], tooltip="unet of face-anon-simple."
                )
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The denoiser, for Apply ReferenceNet.")],
        )

    @classmethod
    def fingerprint_inputs(cls, denoiser: str = NONE, **_: object) -> str:
        return model_stamp(FOLDERS, denoiser)

    @classmethod
    def execute(cls, denoiser: str = "") -> io.NodeOutput:
        from ..native.referencenet import load_unet

        return io.NodeOutput(load_unet(_path(denoiser, "face-anon-simple-unet")))


class EncodeReference(io.ComfyNode):
    HELP = """
    Connect **Crop Faces** (size 512) to *image*, and ComfyUI's *Load VAE* and *Load CLIP Vision* to *vae* and
    *clip_vision*. Stable Diffusion 2.1 was withdrawn by its owner in November 2025; the VAE of any Stable Diffusion 1
    or 2 model also works.

    Each image is encoded once. Other levels and seeds reuse the result.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EncodeReference",
            search_aliases=["face anonymization made simple"],
            display_name="Encode Reference",
            category=CATEGORY,
            description=(
                "Encode faces once, for any level and any number of samples. With a source image: swap that person's"
                " face in."
            ),
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="Aligned faces from Crop Faces at 512 px. Their pose, expression and background are kept.",
                ),
                ReferenceNetSocket.Input("referencenet", tooltip="From Load ReferenceNet."),
                io.Vae.Input("vae", tooltip="The VAE of any Stable Diffusion 1 or 2 model."),
                io.ClipVision.Input("clip_vision", tooltip="CLIP ViT-L/14 (clip-vit-large-patch14)."),
                io.Image.Input(
                    "source", optional=True, tooltip="Another person to render instead: one image, or one per face."
                ),
            ],
            outputs=[
                ReferenceSocket.Output(
                    display_name="reference", tooltip="For Anonymization Level or Apply ReferenceNet."
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
            resized = resized_image(source, rgb)
            source_latents, source_embedding = vae.encode(resized), _embed(clip_vision, resized)
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
    The level sets the degree d of the paper: Z' = (1 - d) Z and S' = (1 - d) S + d S_unconditional. At d = 1 the source
    has no influence; above 1 the result moves away from the person. Strength 1 is the recommended d = 1.25; the
    paper's tables use 1.2 and 1.4.

    These nodes do not check the result. **Check it with Compare Identity.**
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_AnonymizationLevel",
            search_aliases=["face anonymization made simple", "degree"],
            display_name="Anonymization Level",
            category=CATEGORY,
            description=(
                "Set how far the result moves away from the person. A new level runs one network once and encodes no"
                " image again."
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
                    tooltip="0 keeps the person (or swaps the source in), 1 is recommended, higher values change more.",
                ),
                io.Combo.Input(
                    "unit",
                    options=["strength", "degree d"],
                    default="strength",
                    tooltip=(
                        "strength: 1 is the recommended degree 1.25. degree d: the value of the paper; at 1 the source"
                        " has no influence."
                    ),
                ),
            ],
            outputs=[ReferenceSocket.Output(display_name="reference", tooltip="The same images at this level.")],
        )

    @classmethod
    def execute(cls, reference: Reference, level: float, unit: str) -> io.NodeOutput:
        degree = level * DEGREE if unit == "strength" else level
        if not 0 <= degree <= MAX_DEGREE:
            raise InputError(
                f"the degree d must be between 0 and {MAX_DEGREE:g}, got {degree:g}; strength 1 is d = {DEGREE:g}"
            )
        return io.NodeOutput(reference.at(degree))


class ApplyReferenceNet(io.ComfyNode):
    HELP = """
    Connect *model*, *positive* and *negative* to **KSampler** and set cfg to 4. All samplers, schedulers, LoRAs and
    previews work. For the paper's settings use 200 steps, sampler *ddpm* and scheduler *ddim_uniform*.

    Decode the result with **VAE Decode** and paste it back with **Paste Faces**. The input model is not modified.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ApplyReferenceNet",
            search_aliases=["face anonymization made simple"],
            display_name="Apply ReferenceNet",
            category=CATEGORY,
            description=(
                "Condition a denoiser on the references. Then sample with KSampler: cfg 4, 25 steps, dpmpp_2m, or as in"
                " the paper 200 steps, ddpm, ddim_uniform."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The denoiser, with or without LoRA. The input model is not modified."),
                ReferenceSocket.Input(
                    "reference",
                    tooltip=(
                        "From Anonymization Level. Directly from Encode Reference, d is 1.25, or 0 with a source image."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The conditioned denoiser, for KSampler."),
                io.Conditioning.Output(
                    display_name="positive", tooltip="Conditioning with the references. Use it only with this model."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Conditioning without the source. Use it only with this model."
                ),
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
    """Compute the pooled class token ``(B, 1, D)``, after the last norm and before the projection.

    The output of core's CLIP Vision includes the projection, so it cannot be used.

    Raises:
        WeightsError: the model is not a CLIP ViT.
    """
    encoded = clip_vision.encode_image(image)
    tower = clip_vision.model.vision_model
    if not hasattr(tower, "post_layernorm") or getattr(tower, "output_layernorm", False):
        raise WeightsError("this CLIP Vision model is not a CLIP ViT; load clip-vit-large-patch14")
    token = encoded["last_hidden_state"][:, 0].to(clip_vision.load_device)
    with torch.inference_mode():
        pooled = tower.post_layernorm(token)
    return pooled[:, None].float().to(image.device)


NODES = [LoadReferenceNet, LoadFaceDenoiser, EncodeReference, AnonymizationLevel, ApplyReferenceNet]
