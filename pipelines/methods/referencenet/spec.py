"""Face Anonymization Made Simple, announced to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError, WeightsError
from ...core.options import ModelFile, check_options, option
from ...core.progress import Progress
from ...training.spec import TrainerSpec
from ..registry import MethodSpec

if TYPE_CHECKING:
    from .method import ReferenceNetMethod
    from .training import Config

MODELS = Path("models")
CHECKPOINT = MODELS / "faceveil" / "face-anon-simple"
_SAFETENSORS = (".safetensors",)


@dataclass(frozen=True)
class ReferenceNetOptions:
    """Options of the method."""

    checkpoint: Path = option(
        CHECKPOINT,
        "Folder of hkung/face-anon-simple, or the file of its unet; the two ReferenceNets are found beside it.",
        model_file=ModelFile(
            ("faceveil",), _SAFETENSORS, "unet/", "put hkung/face-anon-simple into models/faceveil/face-anon-simple"
        ),
    )
    vae: Path = option(
        MODELS / "vae",
        "Folder or file of a Stable Diffusion 1 or 2 VAE.",
        model_file=ModelFile(("vae",), _SAFETENSORS, "", "put a Stable Diffusion VAE into models/vae"),
    )
    image_encoder: Path = option(
        MODELS / "clip_vision",
        "Folder or file of CLIP ViT-L/14.",
        model_file=ModelFile(("clip_vision",), _SAFETENSORS, "", "put CLIP ViT-L/14 into models/clip_vision"),
    )
    steps: int = option(25, "Denoising steps.", minimum=1, maximum=1000)
    guidance: float = option(4.0, "Classifier-free guidance scale.", minimum=1.0, maximum=20.0, step=0.1)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainReferenceNet:
    """Options of ``faceveil train referencenet``."""

    config: Path = option(None, "TOML file with the settings of docs/training.md.")
    resume: bool = option(False, "Continue from the latest saved state.")


def _open(options: ReferenceNetOptions) -> ReferenceNetMethod:
    from ...core.devices import best_device, network_dtype
    from .files import UNET, open_pipeline
    from .method import ReferenceNetMethod

    device = best_device()
    # A node names the unet's file, a command line the folder of all three networks.
    checkpoint = options.checkpoint
    if checkpoint.suffix in _SAFETENSORS and checkpoint.parent.name == UNET:
        checkpoint = checkpoint.parent.parent
    pipeline = open_pipeline(checkpoint, options.vae, options.image_encoder, device, network_dtype(device))
    return ReferenceNetMethod(pipeline, options.steps, options.guidance)


def _check() -> str:
    from .files import missing_file_message, needed_files

    options = ReferenceNetOptions()
    for name, file in needed_files(options.checkpoint, options.vae, options.image_encoder).items():
        if not file.is_file():
            raise WeightsError(missing_file_message(name, file))
    return f"weights in {CHECKPOINT}, {options.vae} and {options.image_encoder}"


def _written(options: TrainReferenceNet) -> list[Path]:
    """The folders of the networks; a resumed training continues its own."""
    from .files import DRIVING, SOURCE, UNET

    if options.resume:
        return []
    output = Path(_config_of(options).output)
    return [output / part for part in (UNET, SOURCE, DRIVING)]


def _config_of(options: TrainReferenceNet) -> Config:
    try:
        from ...training.config import read_config
        from .training import PATHS, Config
    except ModuleNotFoundError as error:
        raise InputError(f"training needs the package {error.name}; in the clone: pip install '.[train]'") from None
    return read_config(options.config, Config, PATHS)


def _train(options: TrainReferenceNet, progress: Progress) -> str:
    import json

    config = _config_of(options)
    from .training import train

    return f"{config.output}: {json.dumps(train(config, options.resume, progress))}"


SPEC = MethodSpec(
    name="referencenet",
    title="Face Anonymization Made Simple",
    summary="Diffusion with two ReferenceNets (Kung et al., WACV 2025); needs 12 GB of weights that you download.",
    options=ReferenceNetOptions,
    open=_open,
    check=_check,
    needs=(
        "face-anon-simple-unet",
        "face-anon-simple-source",
        "face-anon-simple-driving",
        "sd-vae",
        "clip-vit-large-patch14",
    ),
    trainers=(
        TrainerSpec(
            "referencenet",
            "Face Anonymization Made Simple, from triplets",
            TrainReferenceNet,
            _train,
            writes=_written,
        ),
    ),
)
