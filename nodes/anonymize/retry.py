"""Node that samples faces again until recognizers see somebody else, with any checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui
from torch import Tensor

from ...pipelines.faces.crops import Place
from ..convert import bar, image_to_pixels, mask_to_socket, pixels_to_image
from ..inputs import seed_input
from ..schema import schema
from ..sockets import ROOT, CropsSocket, RecognizerSocket
from .policy import summary_output, unsafe_face_input

if TYPE_CHECKING:
    from ...pipelines.recognition.base import FaceRecognizer


class RetryUntilDifferent(io.ComfyNode):
    HELP = """
    It samples like **SamplerCustomAdvanced**, with seed, seed + 1 and so on, decodes, and compares each face with its
    crop by dlib's and our own recognizer, and by *recognizer* if connected. Each face keeps its first result that none
    of them matches. After *tries*, *unsafe_face* acts on the others.

    For inpainting, connect **Veil Faces** and **Crop Faces** (with the same faces) through **VAE Encode** and **Set
    Latent Noise Mask** to *latent*: the picture starts from a face that is already somebody else, and the sampler makes
    it real at partial denoise. Connect *crops* and *masks*, and *places* of Crop Faces, to **Paste Faces**. Works with
    Stable Diffusion 1.5, SDXL and Flux.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_RetryUntilDifferent",
            search_aliases=["inpaint face", "verify", "SamplerCustomAdvanced"],
            display_name="Retry Until Different",
            category=ROOT,
            description="Sample faces with other seeds until every recognizer sees somebody else.",
            inputs=[
                io.Image.Input("crops", tooltip="The original faces, from Crop Faces."),
                CropsSocket.Input("places", tooltip="From Crop Faces."),
                io.Guider.Input("guider", tooltip="From CFGGuider or BasicGuider: the model and the prompts."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect."),
                io.Sigmas.Input("sigmas", tooltip="From BasicScheduler, at a denoise below 1 for inpainting."),
                io.Latent.Input("latent", tooltip="The start, one for each crop, with a noise mask for inpainting."),
                io.Vae.Input("vae", tooltip="Decodes the results."),
                seed_input("result"),
                io.Int.Input("tries", default=4, min=1, max=100, tooltip="Seeds that are tried at most."),
                unsafe_face_input(),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="Checks the results as well, from Load Recognizer."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="crops", tooltip="The new faces, for Paste Faces."),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="What to paste: the faces, and all of what was redacted, for Paste Faces.",
                ),
                io.String.Output(display_name="report", tooltip="The outcome for each face, as JSON."),
                summary_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        crops: Tensor,
        places: tuple[Place, ...],
        guider: Any,
        sampler: Any,
        sigmas: Tensor,
        latent: dict[str, Any],
        vae: Any,
        seed: int = 0,
        tries: int = 4,
        unsafe_face: str = "redact",
        recognizer: FaceRecognizer | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.core.progress import Progress
        from ...pipelines.jobs.retry import until_different
        from ...pipelines.recognition.catalog import built_in_recognizers
        from ..native.sampling import sample

        def generate(number: int, progress: Progress) -> Tensor:
            return image_to_pixels(vae.decode(sample(guider, sampler, sigmas, latent, number, progress)))

        recognizers = [*built_in_recognizers(), *([] if recognizer is None else [recognizer])]
        found = until_different(
            image_to_pixels(crops),
            places,
            generate,
            recognizers,
            seed,
            tries,
            unsafe_face,  # type: ignore[arg-type]  # the combo offers only actions
            bar(),
        )
        text = found.report.text()
        masks = mask_to_socket(found.masks)
        return io.NodeOutput(
            pixels_to_image(found.squares), masks, found.report.to_json(), text, ui=ui.PreviewText(text)
        )


NODES = [RetryUntilDifferent]
