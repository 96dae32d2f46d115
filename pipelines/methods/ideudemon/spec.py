"""IDEudemon, announced to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError
from ...core.options import ModelFile, check_options, option
from ...core.progress import Progress
from ...training.spec import TrainerSpec
from ..registry import ConverterSpec, MethodSpec

if TYPE_CHECKING:
    from .method import IDEudemonMethod
    from .training import Recipe

_SAFETENSORS = (".safetensors",)
_RESTORERS = (".safetensors", ".pth")
_CONVERT = "convert one with faceveil convert-headnerf, put it into models/faceveil, or omit it"
_RESTORE = "put GFPGAN or RestoreFormer into models/upscale_models, or omit it"


@dataclass(frozen=True)
class IDEudemonOptions:
    """Options of the method."""

    headnerf: Path | None = option(
        None,
        "HeadNeRF, converted with faceveil convert-headnerf; a mesh model draws the head when omitted.",
        model_file=ModelFile(("faceveil",), _SAFETENSORS, "headnerf", _CONVERT),
    )
    restorer: Path | None = option(
        None,
        "Face restorer that makes the new face photo-real, such as GFPGAN; the built-in one when omitted.",
        model_file=ModelFile(("upscale_models", "faceveil"), _RESTORERS, "", _RESTORE),
    )
    parser: Path | None = option(
        None,
        "Face parser (BiSeNet or SegFormer) that tells face from hair; the outline of the landmarks when omitted.",
        model_file=ModelFile(
            ("faceveil",), (".onnx", ".safetensors"), "pars", "put a face parser into models/faceveil, or omit it"
        ),
    )
    vgg: Path | None = option(
        None,
        "torchvision's VGG16 for fitting HeadNeRF, as its authors do; the built-in recognizer's features when omitted.",
        model_file=ModelFile(("faceveil",), _RESTORERS, "vgg16", "put it into models/faceveil, or omit it"),
    )
    texture: str = option(
        "drawn",
        "drawn: a new face; photo: the photo is warped to the protected mesh, which recognizers still match.",
        choices=("drawn", "photo"),
    )
    iterations: int = option(300, "Iterations of fitting HeadNeRF; it stops early.", minimum=1, maximum=2000)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainRestorer:
    """Options of ``faceveil train restorer``."""

    images: Path = option(None, "Folder of faces, in any tree; FFHQ in the paper.")
    output: Path = option(Path("restorer.safetensors"), "File to write.")
    data: Path | None = option(None, "Folder of the prepared faces; beside the output when omitted.")
    start: Path | None = option(None, "Restorer to start from: a file of this training, or GFPGAN, as in the paper.")
    size: int = option(256, "Side of our own network's images in pixels; GFPGAN has 512.", minimum=64, maximum=1024)
    scale: float = option(
        0.0, "Strength of the protection of the drawings; above 0, restoring also undoes it.", minimum=0.0, maximum=2.0
    )
    vgg: Path | None = option(None, "torchvision's VGG19; the built-in recognizer's features when omitted.")
    pixels: float = option(0.1, "Weight of the pixels in L_rec; more without VGG19.", minimum=0.0, maximum=100.0)
    identity: float = option(5.0, "Weight of L_id, which keeps the protected identity.", minimum=0.0, maximum=100.0)
    steps: int = option(300_000, "Training steps.", minimum=1)
    batch: int = option(6, "Faces of one step and device.", minimum=1)
    rate: float = option(2e-3, "Learning rate; it is halved twice.", minimum=1e-7, maximum=1e-1)
    ema: float = option(0.999, "Decay of the weights' moving average.", minimum=0.0, maximum=0.99999)
    precision: str = option("no", "Mixed precision.", choices=("no", "bf16"))
    max_minutes: float | None = option(None, "Stop after this time; the same command continues.", minimum=0.1)
    save_every: int = option(1000, "Steps between two saves of the state.", minimum=1)
    workers: int | None = option(None, "Processes that prepare faces; all cores when omitted.", minimum=1)
    seed: int = option(0, "Seed of all random numbers.", minimum=0)

    def __post_init__(self) -> None:
        check_options(self)

    def recipe(self) -> Recipe:
        """What the trained weights depend on."""
        from .training import Recipe

        names = ("steps", "batch", "rate", "ema", "precision", "pixels", "identity", "seed")
        return Recipe(**{name: getattr(self, name) for name in names})


def _open(options: IDEudemonOptions) -> IDEudemonMethod:
    from ...core.devices import best_device
    from ...faces.parse import open_parser
    from ...geometry.builtin import built_in_morphable_model
    from ...training.perceptual import open_features
    from .checkpoint import open_headnerf
    from .drawing import HeadPainter
    from .method import IDEudemonMethod
    from .restorer import BUILT_IN, open_restorer

    model = built_in_morphable_model()
    if options.texture == "photo":
        if options.headnerf or options.restorer or options.parser or options.vgg:
            raise InputError("texture photo warps the photo and uses no other files; omit them, or choose drawn")
        return IDEudemonMethod(model)
    parser = None if options.parser is None else open_parser(options.parser)
    head = None
    if options.headnerf is None and options.vgg is not None:
        raise InputError("VGG16 is used for fitting HeadNeRF only; give HeadNeRF as well, or omit it")
    if options.headnerf is not None:
        device = best_device()
        network, features = open_headnerf(options.headnerf, device), open_features(options.vgg, device)
        head = HeadPainter(network, options.iterations, features, parser)
    return IDEudemonMethod(model, open_restorer(options.restorer or BUILT_IN), parser, head)


def _check() -> str:
    return "draws with the built-in 3D model and restorer; HeadNeRF and others are optional files"


def _convert_headnerf(source: Path, output: Path) -> str:
    from .checkpoint import convert_headnerf

    config = convert_headnerf(source, output)
    return f"{output}: HeadNeRF, {config.features} x {config.features} rays, {config.image} px"


def _state_of(output: Path) -> Path:
    return output.with_suffix(".state")


def _written(options: TrainRestorer) -> list[Path]:
    return [] if _state_of(options.output).is_file() else [options.output]


def _train(options: TrainRestorer, progress: Progress) -> str:
    import os

    import torch

    from ...training.devices import Run, first_process_first, is_first_process
    from ...training.perceptual import EmbedderFeatures, Vgg19
    from .generator import new_generator
    from .pairs import build_faces
    from .restorer import RestorerConfig
    from .training import train

    torch.manual_seed(options.seed)
    generator = new_generator(options.start, RestorerConfig(options.size))
    data = options.data or options.output.with_suffix(".data")
    workers = options.workers or os.cpu_count() or 1
    with first_process_first():
        faces = build_faces(options.images, data, generator.size, options.scale, workers, progress)
    features = EmbedderFeatures() if options.vgg is None else Vgg19(options.vgg)
    state = _state_of(options.output)
    run = Run(state, options.max_minutes, save_every=options.save_every)
    complete = train(faces, generator, features, options.recipe(), run, progress)
    if is_first_process():
        generator.save(options.output)
    if not complete:
        return f"{options.output}: stopped on time; the same command continues from {state.name}"
    if is_first_process():
        state.unlink(missing_ok=True)
    return f"{options.output}: {options.steps} steps on {len(faces)} faces"


SPEC = MethodSpec(
    name="ideudemon",
    title="IDEudemon",
    summary="Adds noise to the identity of a 3D head, draws and restores it; HeadNeRF and GFPGAN are optional.",
    options=IDEudemonOptions,
    open=_open,
    check=_check,
    trainers=(
        TrainerSpec(
            "restorer",
            "IDEudemon's face restorer, from a folder of faces",
            TrainRestorer,
            _train,
            writes=_written,
        ),
    ),
    converters=(
        ConverterSpec(
            "headnerf",
            "convert a checkpoint of HeadNeRF (model_Reso32.pth, …) to a safetensors file",
            _convert_headnerf,
        ),
    ),
)
