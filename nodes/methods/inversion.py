"""Anonymization by inversion, with any Stable Diffusion 1.5 or SDXL checkpoint and IP-Adapter FaceID.

``faceid`` has the nodes of the adapter.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.core.progress import part_of
from ...pipelines.methods.inversion import nullface, reverse
from ...pipelines.methods.inversion.dials import ALGORITHMS, Algorithm, guidance_of, skip_of
from ...pipelines.methods.inversion.embedding import MAX_ANGLE
from ..convert import mask_from_socket
from ..inputs import MAX_SEED, seed_input, strength_input
from ..schema import schema
from ..sockets import IdentitySocket
from .faceid import CATEGORY, faceid_embeddings

if TYPE_CHECKING:
    from ..identity.common import SocketIdentity

InversionSocket = io.Custom("FACEVEIL_INVERSION")
"""An ``Inverted``."""
ORIGINAL, RECONSTRUCTED = "original", "reconstructed"
BY_STRENGTH = 0.0
"""Value of the guidance widget that follows the strength."""


@dataclass(frozen=True)
class Inverted:
    """Value of the inversion socket.

    Attributes:
        algorithm: that inverted.
        found: predictions and noised latents, scaled.
        latents: the original ones ``(B, 4, h, w)``, unscaled.
        seeds: of the noise, one a picture.
        empty: CONDITIONING of the text "".
        model: the network, which must also generate.
    """

    algorithm: Algorithm
    found: nullface.Inversion | reverse.Inversion
    latents: Tensor
    seeds: list[int]
    empty: list[Any]
    model: Callable[[], Any]


class InvertPicture(io.ComfyNode):
    HELP = """
    Connect **Crop Faces** (512 px for Stable Diffusion 1.5, 1024 px for SDXL) through **VAE Encode** to *latent*, and
    **CLIP Text Encode** with an empty text to *empty*.

    **nullface** (FG 2026; the authors use Stable Diffusion 1.5): edit-friendly DDPM inversion.
    **reverse_personalization** (WACV 2026; SDXL): a second-order solver and twice the steps, which a prompt can steer.

    The result depends on no identity and no strength: change them without inverting again.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_InvertPicture",
            search_aliases=["NullFace", "Reverse Personalization", "DDPM inversion"],
            display_name="Invert Picture",
            category=CATEGORY,
            description="Find the noise from which a Stable Diffusion model makes a picture, to change the picture.",
            inputs=[
                io.Model.Input("model", tooltip="From Apply FaceID."),
                io.Latent.Input("latent", tooltip="The encoded faces, from VAE Encode."),
                io.Conditioning.Input("empty", tooltip="From CLIP Text Encode with an empty text."),
                io.Combo.Input(
                    "algorithm",
                    options=list(ALGORITHMS),
                    default=ALGORITHMS[0],
                    tooltip="nullface suits Stable Diffusion 1.5, reverse_personalization SDXL. Both work with either.",
                ),
                io.Int.Input(
                    "steps",
                    default=100,
                    min=2,
                    max=1000,
                    tooltip="Steps of the schedule; 100 in the papers. Use a divisor of 1000.",
                ),
                io.Float.Input(
                    "skip",
                    default=0.7,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="Share of the noise schedule that is left out; less of it changes more. 0.7 in the papers.",
                ),
                seed_input("result"),
            ],
            outputs=[InversionSocket.Output(display_name="inversion", tooltip="For Anonymize by Inversion.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        latent: dict[str, Any],
        empty: list[Any],
        algorithm: Algorithm = ALGORITHMS[0],
        steps: int = 100,
        skip: float = 0.7,
        seed: int = 0,
    ) -> io.NodeOutput:
        from ..native.inversion import rows_of, run

        latents = _checked(latent)
        _check_text(model, empty, "empty")
        seeds = [(seed + row) % (MAX_SEED + 1) for row in range(len(latents))]
        found: list[nullface.Inversion | reverse.Inversion] = []

        def invert(denoise: Any, bars: Tensor, x0: Tensor, progress: Any) -> Tensor:
            found.append(_invert(algorithm, denoise, bars, x0, seeds, steps, skip, progress))
            return x0

        total = nullface.depth_of(steps, skip) if algorithm == "nullface" else len(reverse.timesteps_of(steps, skip))
        run(model, rows_of(model, empty), latents, invert, total)
        return io.NodeOutput(Inverted(algorithm, found[0], latents, seeds, empty, weakref.ref(model.model)))


class AnonymizeByInversion(io.ComfyNode):
    HELP = """
    Connect **Embed Faces** with the recognizer *arcface* (`w600k_r50.onnx`), *average* off, and the same faces. Decode
    the result with **VAE Decode**, paste it back with **Paste Faces**, and check it with **Compare Identity**: this
    node does not. **Veil Faces** with the method *inversion* checks its results and redacts what is still matched.

    Strength 0 gives the latent back. 1 is the authors' setting: guidance 10 (nullface) or -10
    (reverse_personalization). Above 1, nullface starts from more noise, as if skip were up to 0.1 lower, and
    reverse_personalization goes on to guidance -15.

    **attributes**: a prompt that the new face shall follow, such as "a photo of an old man". **mask**: white where the
    face may change; connect **Parse Face** on the crops, or paint one. Keep eyes or mouth by leaving them black.

    **Limits.** The guidance attacks one recognizer, that of the adapter. Others may still match: neither method checks
    its result.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_AnonymizeByInversion",
            search_aliases=["NullFace", "Reverse Personalization", "de-identify"],
            display_name="Anonymize by Inversion",
            category=CATEGORY,
            description="Denoise an inverted picture away from the identity that it shows.",
            inputs=[
                io.Model.Input("model", tooltip="From Apply FaceID, the same as for Invert Picture."),
                InversionSocket.Input("inversion", tooltip="From Invert Picture."),
                IdentitySocket.Input(
                    "identity", tooltip="The person in each picture, from Embed Faces with the recognizer w600k_r50."
                ),
                strength_input("changes more"),
                io.Conditioning.Input(
                    "attributes", optional=True, tooltip="A prompt for the new face, from CLIP Text Encode."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the face may change; without it, everywhere."
                ),
                io.Combo.Input(
                    "outside",
                    options=[ORIGINAL, RECONSTRUCTED],
                    default=ORIGINAL,
                    tooltip=(
                        "Where the mask is black. original: the latents stay exactly. reconstructed: they are denoised"
                        " without the identity, as NullFace's authors do (nullface only)."
                    ),
                ),
                io.Int.Input(
                    "mask_delay",
                    default=nullface.MASK_DELAY,
                    min=0,
                    max=1000,
                    tooltip="With reconstructed: steps before the mask acts. 10 in the paper.",
                ),
                io.Float.Input(
                    "guidance",
                    default=BY_STRENGTH,
                    min=0.0,
                    max=50.0,
                    step=0.5,
                    tooltip="Guidance scale, without its sign. 0: that of the strength.",
                ),
                io.Float.Input(
                    "eta",
                    default=nullface.ETA,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of noise in each step. 1 in the paper (nullface only).",
                ),
                io.Float.Input(
                    "id_scale",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Factor of the embedding that the result moves away from.",
                ),
                io.Float.Input(
                    "angle",
                    default=0.0,
                    min=0.0,
                    max=MAX_ANGLE,
                    step=1.0,
                    tooltip="Turns the embedding by up to this many degrees, by the seed: other new faces.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The anonymized faces, for VAE Decode.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        inversion: Inverted,
        identity: SocketIdentity,
        strength: float = 1.0,
        attributes: list[Any] | None = None,
        mask: Tensor | None = None,
        outside: str = ORIGINAL,
        mask_delay: int = nullface.MASK_DELAY,
        guidance: float = BY_STRENGTH,
        eta: float = nullface.ETA,
        id_scale: float = 1.0,
        angle: float = 0.0,
    ) -> io.NodeOutput:
        from ..native.inversion import rows_of, run

        latents, kind = inversion.latents, inversion.algorithm
        if outside == RECONSTRUCTED and kind != ALGORITHMS[0]:
            raise InputError("outside: reconstructed belongs to nullface; choose original, or invert with nullface")
        if strength == 0:
            return io.NodeOutput({"samples": latents})
        if inversion.model() is not model.model:
            raise InputError("the picture was inverted with another model; connect the same model to both nodes")
        if attributes is not None:
            _check_text(model, attributes, "attributes")
        embeddings = _turned(faceid_embeddings(identity, len(latents)), angle, inversion.seeds) * id_scale
        scale = guidance_of(kind, strength) if guidance == BY_STRENGTH else _signed(kind, guidance)
        hold = outside == ORIGINAL
        cells = None if mask is None else _cells(mask, latents, hold)

        # The start moves from where the user's skip puts it.
        steps = deeper = len(inversion.found.noisy) - 1
        if isinstance(inversion.found, nullface.Inversion) and strength > 1:
            lower = skip_of(kind, 1.0) - skip_of(kind, strength)
            deeper = min(steps + round(lower * inversion.found.steps), inversion.found.steps)

        def generate(denoise: Any, bars: Tensor, x0: Tensor, progress: Any) -> Tensor:
            if isinstance(inversion.found, reverse.Inversion):
                found = _moved(inversion.found, x0)
                return reverse.generate(denoise, bars, found, scale, cells, attributes is not None, progress)
            start = _moved(inversion.found, x0)
            if deeper > start.depth:
                noises = _noises(x0, deeper, inversion.seeds)
                start = nullface.invert(
                    denoise, bars, start.noisy[0], noises, start.steps, start, part_of(progress, 0, 2)
                )
                progress = part_of(progress, 1, 2)
            return nullface.generate(
                denoise,
                bars,
                start,
                scale,
                eta,
                mask=cells,
                mask_delay=mask_delay,
                hold=hold,
                attributes=attributes is not None,
                progress=progress,
            )

        rows = rows_of(model, inversion.empty, embeddings, attributes, kind)
        return io.NodeOutput({"samples": run(model, rows, latents, generate, steps)})


def _checked(latent: dict[str, Any]) -> Tensor:
    """The latents ``(B, 4, h, w)`` of a LATENT.

    Raises:
        InputError: they are of another kind, empty or not finite, or have a mask.
    """
    latents: Tensor = latent["samples"]
    if latents.dim() != 4 or latents.shape[1] != 4 or not len(latents):
        raise InputError(f"Invert Picture needs latents of images with 4 channels, got {tuple(latents.shape)}")
    if not bool(torch.isfinite(latents).all()):
        raise InputError("the latent contains values that are not finite; check the VAE")
    if latent.get("noise_mask") is not None:
        raise InputError("Invert Picture takes no latent with a mask; connect the mask to Anonymize by Inversion")
    return latents


def _check_text(model: Any, conditioning: list[Any], name: str) -> None:
    given = conditioning[0][0].shape[-1]
    needed = model.model.model_config.unet_config.get("context_dim")
    if given != needed:
        raise InputError(
            f"{name} was encoded for another family of models ({given} numbers in a token, the model needs {needed});"
            " use the CLIP of the model's checkpoint"
        )


def _invert(
    algorithm: Algorithm,
    denoise: Any,
    bars: Tensor,
    x0: Tensor,
    seeds: list[int],
    steps: int,
    skip: float,
    progress: Any,
) -> nullface.Inversion | reverse.Inversion:
    found: nullface.Inversion | reverse.Inversion
    if algorithm == "nullface":
        noises = _noises(x0, nullface.depth_of(steps, skip), seeds)
        found = nullface.invert(denoise, bars, x0, noises, steps, progress=progress)
    else:
        timesteps = reverse.timesteps_of(steps, skip)
        found = reverse.invert(denoise, bars, x0, _noises(x0, len(timesteps), seeds), timesteps, progress)
    # Stored between runs, so not in graphics memory.
    return _moved(found, torch.zeros(0))


def _moved(found: Any, like: Tensor) -> Any:
    tensors = {name: value.to(like) for name, value in vars(found).items() if isinstance(value, Tensor)}
    return replace(found, **tensors)


def _noises(x0: Tensor, count: int, seeds: list[int]) -> list[Tensor]:
    from ...pipelines.methods.inversion.denoiser import draw

    return draw(x0, count, seeds)


def _turned(embeddings: Tensor, degrees: float, seeds: list[int]) -> Tensor:
    from ...pipelines.methods.inversion.embedding import within_angle

    rows = [within_angle(e.double().numpy(), degrees, s) for e, s in zip(embeddings, seeds, strict=True)]
    return torch.stack([torch.from_numpy(row).float() for row in rows])


def _signed(algorithm: Algorithm, guidance: float) -> float:
    return guidance if algorithm == "nullface" else -guidance


def _cells(mask: Tensor, latents: Tensor, hold: bool) -> Tensor:
    from ...pipelines.methods.inversion.pipeline import MULTIPLE, held_mask, latent_mask

    height, width = latents.shape[-2:]
    pixels = mask_from_socket(mask, len(latents), height * MULTIPLE, width * MULTIPLE)
    return (held_mask if hold else latent_mask)(pixels, height, width)


NODES = [InvertPicture, AnonymizeByInversion]
