"""Anonymization by inversion, announced to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError, WeightsError
from ...core.options import ModelFile, check_options, option
from ..registry import MethodSpec

if TYPE_CHECKING:
    from .method import InversionMethod

AUTOMATIC = "automatic"
MIN_SIZE = 64
"""Pixels: in smaller squares nothing of a face can be verified."""
_CHECKPOINT = ModelFile(
    ("checkpoints",), (".safetensors",), "", "put a Stable Diffusion 1.5 or SDXL checkpoint into models/checkpoints"
)
_ADAPTER = ModelFile(
    ("ipadapter", "faceveil"),
    (".bin", ".safetensors"),
    "faceid",
    "put ip-adapter-faceid_sd15.bin or ip-adapter-faceid_sdxl.bin of h94/IP-Adapter-FaceID into models/ipadapter",
)
_RECOGNIZER = ModelFile(
    ("insightface", "faceveil"), (".onnx",), "w600k", "put w600k_r50.onnx into models/insightface", kind="arcface"
)


@dataclass(frozen=True)
class InversionOptions:
    """Options of the method."""

    checkpoint: Path | None = option(
        None, "Stable Diffusion 1.5 or SDXL checkpoint: a file, or a folder of diffusers.", model_file=_CHECKPOINT
    )
    adapter: Path | None = option(None, "IP-Adapter FaceID of the checkpoint's family.", model_file=_ADAPTER)
    recognizer: Path | None = option(None, "w600k_r50.onnx.", model_file=_RECOGNIZER)
    algorithm: str = option(
        AUTOMATIC,
        "automatic: nullface for Stable Diffusion 1.5, reverse_personalization for SDXL.",
        choices=(AUTOMATIC, "nullface", "reverse_personalization"),
    )
    steps: int = option(100, "Steps of the schedule.", minimum=2, maximum=1000)
    prompt: str = option("", "A prompt for the new face, such as: a photo of an old man.")
    tokenizer: Path | None = option(None, "Folder with vocab.json and merges.txt of CLIP, needed for a prompt.")
    size: int = option(
        0,
        "Side of the face's square in pixels; 0: 512 for Stable Diffusion 1.5, 1024 for SDXL.",
        minimum=0,
        maximum=2048,
    )
    keep_eyes: bool = option(False, "Do not change the eyes.")
    keep_nose: bool = option(False, "Do not change the nose.")
    keep_mouth: bool = option(False, "Do not change the mouth.")
    keep_skin: bool = option(False, "Do not change the skin.")
    angle: float = option(
        0.0, "Turn the embedding by up to this many degrees, by the seed.", minimum=0.0, maximum=180.0, step=1.0
    )

    def __post_init__(self) -> None:
        check_options(self)


def _open(options: InversionOptions) -> InversionMethod:
    from ...core.devices import best_device, network_dtype
    from ...recognition.arcface import ArcFace
    from .method import KEEPABLE, InversionMethod
    from .networks import default_size, open_networks
    from .pipeline import MULTIPLE, InversionPipeline

    if options.checkpoint is None or options.adapter is None or options.recognizer is None:
        raise InputError(
            "the method inversion needs three files: a Stable Diffusion checkpoint as --inversion-checkpoint, its"
            " IP-Adapter FaceID as --inversion-adapter, and w600k_r50.onnx as --inversion-recognizer (checkpoint,"
            " adapter and recognizer in Python and on nodes)"
        )
    if 0 < options.size < MIN_SIZE:
        raise InputError(f"size must be 0 or at least {MIN_SIZE}, got {options.size}")
    recognizer = ArcFace(options.recognizer)
    device = best_device()
    networks = open_networks(
        options.checkpoint, options.adapter, options.prompt, options.tokenizer, device, network_dtype(device)
    )
    size = options.size or default_size(networks)
    algorithm = None if options.algorithm == AUTOMATIC else options.algorithm
    keep = [region for region in KEEPABLE if getattr(options, f"keep_{region}")]
    pipeline = InversionPipeline(networks, algorithm, options.steps)  # type: ignore[arg-type]  # checked above
    return InversionMethod(pipeline, recognizer, size - size % MULTIPLE, keep, options.angle)


def _check() -> str:
    from importlib.util import find_spec

    if find_spec("insightface") is None:
        raise WeightsError("insightface is not installed; install it with: pip install insightface")
    return "insightface is installed; name the model files when you use the method"


SPEC = MethodSpec(
    name="inversion",
    title="NullFace and Reverse Personalization",
    summary="Denoises away from the identity with your Stable Diffusion checkpoint and its IP-Adapter FaceID.",
    options=InversionOptions,
    open=_open,
    check=_check,
    needs=("sd15-checkpoint", "sdxl-checkpoint", "ip-adapter-faceid-sd15", "ip-adapter-faceid-sdxl", "arcface-w600k"),
)
