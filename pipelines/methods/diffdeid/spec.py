"""DiffDeID, announced to the registry."""

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
    from .method import DiffDeIDMethod
    from .pipeline import Checkpoint
    from .training import Recipe

CHECKPOINT = Path("models") / "faceveil" / "diffdeid.safetensors"
RATIO = 16
"""Ratio of the highest to the lowest resolution of the network."""
_TRAIN = "train one with faceveil train diffdeid, and put it into models/faceveil"


@dataclass(frozen=True)
class DiffDeIDOptions:
    """Options of the method."""

    checkpoint: Path = option(
        CHECKPOINT,
        "File of faceveil train diffdeid.",
        model_file=ModelFile(("faceveil",), (".safetensors",), "diffdeid", _TRAIN),
    )
    level: int = option(0, "Level of the paper, 1 to 10; 0 follows the strength.", minimum=0, maximum=10)
    steps: int = option(50, "Denoising steps.", minimum=1, maximum=1000)
    guidance: float = option(
        1.0, "Scale of classifier-free guidance by the identity; 1 is none.", minimum=1.0, maximum=10.0, step=0.1
    )
    parser: Path | None = option(
        None,
        "Face parser (BiSeNet or SegFormer): hair and cloth in front of a face stay visible to the network.",
        model_file=ModelFile(
            ("faceveil",), (".onnx", ".safetensors"), "pars", "put a face parser into models/faceveil, or omit it"
        ),
    )

    clips: Path | None = option(
        None,
        "File of faceveil train diffdeid-video: videos are reenacted with it; photos do not need it.",
        model_file=ModelFile(
            ("faceveil",), (".safetensors",), "video", "train one with faceveil train diffdeid-video, or omit it"
        ),
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class _Training:
    """Options of both trainings."""

    data: Path | None = option(None, "Folder of the prepared images; beside the output when omitted.")
    start: Path | None = option(None, "Checkpoint to start from; for video, one for images.")
    size: int = option(256, "Side of the network's images in pixels, a multiple of 16.", minimum=32, maximum=512)
    width: int = option(64, "Channels at the full resolution.", minimum=8, maximum=256)
    blocks: int = option(2, "Residual blocks of each level.", minimum=1, maximum=4)
    steps: int = option(200_000, "Training steps.", minimum=1)
    batch: int = option(8, "Faces of one step and device.", minimum=1)
    rate: float = option(2e-5, "Learning rate.", minimum=1e-7, maximum=1e-2)
    warmup: int = option(0, "Steps in which the learning rate rises.", minimum=0)
    ema: float = option(0.9999, "Decay of the weights' moving average.", minimum=0.0, maximum=0.99999)
    precision: str = option("no", "Mixed precision.", choices=("no", "bf16"))
    residual: str = option("noise", "What texture attention adds its result to.", choices=("noise", "background"))
    vgg: Path | None = option(None, "File of torchvision's VGG16 for L_per; a built-in network when omitted.")
    max_minutes: float | None = option(None, "Stop after this time; the same command continues.", minimum=0.1)
    save_every: int = option(1000, "Steps between two saves of the state.", minimum=1)
    workers: int | None = option(None, "Processes that prepare faces; all cores when omitted.", minimum=1)
    seed: int = option(0, "Seed of all random numbers.", minimum=0)

    def __post_init__(self) -> None:
        check_options(self)
        if self.size % RATIO:
            raise InputError(f"the size must be a multiple of {RATIO}, got {self.size}")

    def recipe(self) -> Recipe:
        """What the trained weights depend on."""
        from .training import Recipe

        names = ("width", "blocks", "steps", "batch", "rate", "warmup", "ema", "precision", "residual", "seed")
        return Recipe(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class TrainDiffDeID(_Training):
    """Options of ``faceveil train diffdeid``."""

    images: Path = option(None, "Folder of portraits, one person each; or of CelebAMask-HQ.")
    output: Path = option(Path("diffdeid.safetensors"), "File to write; the samples go beside it as PNG.")
    show_every: int = option(5000, "Steps between two sheets of samples.", minimum=1)
    describe: bool = option(False, "Only print the parameters and multiply-adds of the network.")


@dataclass(frozen=True)
class TrainDiffDeIDVideo(_Training):
    """Options of ``faceveil train diffdeid-video``."""

    clips: Path = option(None, "Folder of clips of one person each: folders of frames, or videos.")
    output: Path = option(Path("diffdeid_video.safetensors"), "File to write.")


def _open(options: DiffDeIDOptions) -> DiffDeIDMethod:
    from .method import method_of
    from .pipeline import Checkpoint

    parser = None
    if options.parser is not None:
        from ...faces.parse import open_parser

        parser = open_parser(options.parser)
    checkpoint = Checkpoint.open(options.checkpoint)
    clips = None if options.clips is None else Checkpoint.open(options.clips)
    return method_of(checkpoint, options.steps, options.guidance, options.level, parser, clips)


def _check() -> str:
    if not CHECKPOINT.is_file():
        raise WeightsError(f"there is no {CHECKPOINT}; {_TRAIN}")
    return f"checkpoint {CHECKPOINT}"


def _sheet_of(output: Path) -> Path:
    return output.with_suffix(".png")


def _state_of(output: Path) -> Path:
    return output.with_suffix(".state")


def _written(options: TrainDiffDeID) -> list[Path]:
    """The files of a new training; one that goes on replaces its own."""
    if options.describe or _state_of(options.output).is_file():
        return []
    return [options.output, _sheet_of(options.output)]


def _train(options: TrainDiffDeID, progress: Progress) -> str:
    from .network import describe
    from .training import network_config

    if options.describe:
        # The sizes of the built-in spaces: dlib's, and the morphable model's.
        from ...geometry.builtin import built_in_morphable_model
        from .conditions import layout_of

        numbers = sum(size for _, size in layout_of(built_in_morphable_model()))
        return describe(network_config(options.size, 128, numbers, options.recipe()))
    return _train_network(options, progress)


def _train_network(options: TrainDiffDeID, progress: Progress) -> str:
    import os

    from ...training.devices import Run, first_process_first, is_first_process
    from .shards import HELD_OUT, build_shards
    from .sheet import level_sheet, save_sheet
    from .training import train

    data = options.data or options.output.with_suffix(".data")
    with first_process_first():
        faces = build_shards(options.images, data, options.size, options.workers or os.cpu_count() or 1, progress)
    rows = list(range(0, len(faces), HELD_OUT))[:8]
    run = Run(
        _state_of(options.output),
        options.max_minutes,
        save_every=options.save_every,
        show_every=options.show_every,
    )

    def show(checkpoint: Checkpoint) -> None:
        save_sheet(_sheet_of(options.output), level_sheet(checkpoint, faces, rows))

    checkpoint, complete = train(faces, options.recipe(), run, options.vgg, show, _start_of(options), progress)
    if is_first_process():
        checkpoint.save(options.output)
        save_sheet(_sheet_of(options.output), level_sheet(checkpoint, faces, rows, progress=progress))
    return _finished(options.output, run.state, complete, f"{options.steps} steps on {len(faces)} faces")


def _train_video(options: TrainDiffDeIDVideo, progress: Progress) -> str:
    import os

    from ...training.devices import Run, first_process_first, is_first_process
    from .clips import build_clips
    from .training import train

    data = options.data or options.output.with_suffix(".data")
    with first_process_first():
        clips = build_clips(options.clips, data, options.size, options.workers or os.cpu_count() or 1, progress)
    state = _state_of(options.output)
    run = Run(state, options.max_minutes, save_every=options.save_every)
    checkpoint, complete = train(clips, options.recipe(), run, options.vgg, start=_start_of(options), progress=progress)
    if is_first_process():
        checkpoint.save(options.output)
    return _finished(options.output, state, complete, f"{options.steps} steps on {len(clips)} frames")


def _start_of(options: _Training) -> Checkpoint | None:
    from .pipeline import Checkpoint

    return None if options.start is None else Checkpoint.open(options.start)


def _written_video(options: TrainDiffDeIDVideo) -> list[Path]:
    return [] if _state_of(options.output).is_file() else [options.output]


def _finished(output: Path, state: Path, complete: bool, words: str) -> str:
    from ...training.devices import is_first_process

    if not complete:
        return f"{output}: stopped on time; the same command continues from {state.name}"
    if is_first_process():
        state.unlink(missing_ok=True)
    return f"{output}: {words}"


SPEC = MethodSpec(
    name="diffdeid",
    title="DiffDeID",
    summary="Draws a new face by diffusion from a sampled identity and 3D geometry; needs a checkpoint that you train.",
    options=DiffDeIDOptions,
    open=_open,
    check=_check,
    identity_space="dlib",
    trainers=(
        TrainerSpec(
            "diffdeid",
            "DiffDeID's denoiser, from a folder of portraits",
            TrainDiffDeID,
            _train,
            writes=_written,
        ),
        TrainerSpec(
            "diffdeid-video",
            "DiffDeID's denoiser for video, from clips",
            TrainDiffDeIDVideo,
            _train_video,
            writes=_written_video,
        ),
    ),
)
