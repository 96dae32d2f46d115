"""IDDiffuse, announced to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError, WeightsError
from ...core.options import ModelFile, check_options, option
from ...core.progress import Progress
from ...training.spec import TrainerSpec
from ..registry import ConverterSpec, MethodSpec

if TYPE_CHECKING:
    from .method import IDDiffuseMethod
    from .training import Recipe

CHECKPOINT = Path("models") / "faceveil" / "iddiffuse.safetensors"
_TRAIN = "train one with faceveil train iddiffuse, and put it into models/faceveil"
_SAFETENSORS = (".safetensors",)


@dataclass(frozen=True)
class IDDiffuseOptions:
    """Options of the method."""

    checkpoint: Path = option(
        CHECKPOINT,
        "File of faceveil train iddiffuse.",
        model_file=ModelFile(("faceveil",), _SAFETENSORS, "iddiffuse", _TRAIN),
    )
    bank: Path | None = option(
        None,
        "Bank of synthetic people: its folder, or bank.safetensors in it.",
        model_file=ModelFile(("faceveil",), _SAFETENSORS, "bank.safetensors", "build one with: faceveil bank"),
    )
    steps: int = option(50, "Denoising steps.", minimum=1, maximum=1000)
    skip_similar: bool = option(
        False, "Leave out people of the bank whom the recognizer would match; the paper does not."
    )
    upscaler: Path | None = option(
        None,
        "Upscaler or face restorer that spandrel can open; it enlarges the drawn face before it is pasted.",
        model_file=ModelFile(
            ("upscale_models",), (".safetensors", ".pth"), "", "put one into models/upscale_models, or omit it"
        ),
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainIDDiffuse:
    """Options of ``faceveil train iddiffuse``."""

    images: Path = option(None, "Folder of faces, in any tree; CASIA-WebFace has a folder for each person.")
    bank: Path = option(None, "Folder of a bank of synthetic people with portraits, of the space dlib or faceveil.")
    output: Path = option(Path("iddiffuse.safetensors"), "File to write.")
    data: Path | None = option(None, "Folder of the prepared faces; beside the output when omitted.")
    start: Path | None = option(None, "U-Net to start from: a file of this training, or a checkpoint of DCFace.")
    size: int = option(112, "Side of the network's images in pixels: 112, or 256 for more.", minimum=56, maximum=512)
    base: int = option(128, "Channels at the full resolution, a multiple of 32.", minimum=32, maximum=256)
    grid: int = option(5, "Texture patches in each direction, 5 or 3.", minimum=3, maximum=5)
    schedule: str = option("paper", "Schedule of gamma in Eq. 7.", choices=("paper", "dcface", "constant"))
    gamma: float = option(0.5, "Of the constant schedule: 1 is the real person.", minimum=0.0, maximum=1.0)
    texture: float = option(0.1, "Weight lambda of the texture term.", minimum=0.0, maximum=10.0)
    skip_similar: bool = option(False, "Pair no face with a person whom the recognizer would match.")
    steps: int = option(80_000, "Training steps.", minimum=1)
    batch: int = option(128, "Faces of one step and device.", minimum=1)
    rate: float = option(1e-4, "Learning rate.", minimum=1e-7, maximum=1e-2)
    ema: float = option(0.9999, "Decay of the weights' moving average.", minimum=0.0, maximum=0.99999)
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

        names = ("base", "grid", "steps", "batch", "rate", "ema", "precision", "schedule", "gamma", "texture", "seed")
        return Recipe(**{name: getattr(self, name) for name in names})


def _open(options: IDDiffuseOptions) -> IDDiffuseMethod:
    from ...core.devices import best_device
    from ...identity.bank import load_bank
    from ...imaging.upscale import open_upscaler
    from .method import IDDiffuseMethod
    from .pairs import recognizer_of
    from .pipeline import Checkpoint

    if options.bank is None:
        raise InputError(
            "the method iddiffuse needs a bank of synthetic people as --iddiffuse-bank (bank in Python and on nodes);"
            " build one with: faceveil bank"
        )
    checkpoint = Checkpoint.open(options.checkpoint)
    bank = load_bank(options.bank if options.bank.is_dir() else options.bank.parent)
    checkpoint.network.to(best_device())
    upscaler = None if options.upscaler is None else open_upscaler(options.upscaler)
    return IDDiffuseMethod(
        checkpoint, recognizer_of(checkpoint.space), bank, options.steps, options.skip_similar, upscaler
    )


def _check() -> str:
    if not CHECKPOINT.is_file():
        raise WeightsError(f"there is no {CHECKPOINT}; {_TRAIN}")
    return f"checkpoint {CHECKPOINT}; it also needs a bank"


def _state_of(output: Path) -> Path:
    return output.with_suffix(".state")


def _written(options: TrainIDDiffuse) -> list[Path]:
    return [] if _state_of(options.output).is_file() else [options.output]


def _train(options: TrainIDDiffuse, progress: Progress) -> str:
    import os

    from ...identity.bank import load_bank
    from ...training.devices import Run, first_process_first, is_first_process
    from .pairs import build_pairs
    from .training import start_of, train

    recipe, bank, start = options.recipe(), load_bank(options.bank), start_of(options.start)
    data = options.data or options.output.with_suffix(".data")
    workers = options.workers or os.cpu_count() or 1
    with first_process_first():
        pairs = build_pairs(options.images, bank, data, options.size, options.skip_similar, workers, progress)
    state = _state_of(options.output)
    run = Run(state, options.max_minutes, save_every=options.save_every)
    checkpoint, complete = train(pairs, recipe, run, start, progress)
    if is_first_process():
        checkpoint.save(options.output)
    if not complete:
        return f"{options.output}: stopped on time; the same command continues from {state.name}"
    if is_first_process():
        state.unlink(missing_ok=True)
    return f"{options.output}: {options.steps} steps on {len(pairs)} faces"


def _unpack(source: Path, output: Path) -> str:
    from ...training.recordio import unpack

    images, people = unpack(source, output)
    return f"{output}: {images} images of {people} people"


SPEC = MethodSpec(
    name="iddiffuse",
    title="IDDiffuse",
    summary="Draws the nearest person of a bank with the photo's texture; needs a bank and a checkpoint.",
    options=IDDiffuseOptions,
    open=_open,
    check=_check,
    identity_space="faceveil",
    trainers=(
        TrainerSpec(
            "iddiffuse",
            "IDDiffuse's denoiser, from a folder of faces and a bank",
            TrainIDDiffuse,
            _train,
            writes=_written,
        ),
    ),
    converters=(ConverterSpec("recordio", "unpack CASIA-WebFace's train.rec to one folder for each person", _unpack),),
)
