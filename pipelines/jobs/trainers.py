"""Trainers of the identity toolkit and the built-in recognizer, announced to ``faceveil train``.

Nothing is imported before one runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..core.options import check_options, option
from ..core.progress import Progress
from ..training.spec import TrainerSpec


@dataclass(frozen=True)
class TrainSampler:
    """Options of ``faceveil train lds``."""

    images: Path = option(None, "Folder of portraits, one person each.")
    space: str = option(
        "dlib",
        "What is learned: a recognizer (dlib, or KIND:FILE); appearance-shape, the built-in 3D shape model; or joint,"
        " dlib and that together.",
    )
    output: Path | None = option(None, "File to write; lds_SPACE.safetensors when omitted.")
    steps: int = option(3000, "Optimizer steps.", minimum=1)
    seed: int = option(0, "The same seed repeats a training.", minimum=0)
    workers: int | None = option(None, "Processes; all cores when omitted.", minimum=1)
    logs: Path | None = option(None, "Folder for TensorBoard: loss and learning rate.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainEnsemble:
    """Options of ``faceveil train ensemble``."""

    people: Path = option(None, "Folder with one subfolder for each person.")
    recognizers: str = option(
        None, "The recognizers to join, as KIND:FILE,KIND:FILE,...; the paper's are arcface, farl and facenet."
    )
    output: Path = option(Path("ensemble.safetensors"), "File to write.")
    epochs: int = option(50, "Passes over all people.", minimum=1)
    seed: int = option(0, "The same seed repeats a training.", minimum=0)
    workers: int | None = option(None, "Processes; all cores when omitted.", minimum=1)
    logs: Path | None = option(None, "Folder for TensorBoard: loss and learning rate.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainEmbedder:
    """Options of ``faceveil train embedder``."""

    images: Path = option(None, "Folder of portraits, one person each.")
    teacher: Path = option(
        None,
        "Python file that defines a recognizer to learn from: load(), a torch module for values from 0 to 255; SIZE and"
        " TEMPLATE, side and five points of its crop; BGR, its order of channels. The file is run.",
    )
    output: Path = option(Path("embedder.safetensors"), "File to write.")
    hints: str = option(
        "",
        "Modules of the teacher whose outputs the three stages imitate, NAME,NAME,NAME; feature maps of 64, 128 and 128"
        " channels at 32, 16 and 8 px. A student learns faster with them.",
    )
    people: int = option(5, "Random people shown on each portrait; a quarter of each batch are portraits.", minimum=0)
    batch: int = option(48, "Faces of one step.", minimum=2)
    steps: int = option(2400, "Optimizer steps.", minimum=1)
    device: str = option("cpu", "Where it trains: cpu, cuda, cuda:1 or mps. All faces are kept there, 62 kB each.")
    seed: int = option(0, "The same seed repeats a training.", minimum=0)
    workers: int | None = option(None, "Processes; all cores when omitted.", minimum=1)
    logs: Path | None = option(None, "Folder for TensorBoard: loss and learning rate.")

    def __post_init__(self) -> None:
        check_options(self)


def _train_embedder(options: TrainEmbedder, progress: Progress) -> str:
    from ..core.devices import device_named
    from ..training.embedder import Recipe
    from .embedder import embedder_from_folder

    hints = tuple(name for name in options.hints.split(",") if name)
    recipe = Recipe.of(options.steps, options.batch, options.seed, hints)
    facts = embedder_from_folder(
        options.images,
        options.teacher,
        options.output,
        recipe,
        options.workers,
        options.logs,
        progress,
        options.people,
        device_named(options.device),
    )
    return f"{options.output}: {', '.join(f'{name} {value}' for name, value in facts.items())}"


def _train_sampler(options: TrainSampler, progress: Progress) -> str:
    from .portraits import train_on_folder

    output = _sampler_file(options)
    _, count = train_on_folder(
        options.images,
        options.space,
        output,
        options.steps,
        options.seed,
        options.workers,
        progress,
        logs=options.logs,
    )
    return f"{output}: learned from {count} faces"


def _sampler_file(options: TrainSampler) -> Path:
    return options.output or Path(f"lds_{options.space.replace(':', '-').replace('/', '-')}.safetensors")


def _train_ensemble(options: TrainEnsemble, progress: Progress) -> str:
    from ..identity.compare import recognizer_named
    from ..identity.ensemble import save_ensemble
    from ..training.ensemble import Recipe
    from .portraits import ensemble_from_folder

    names = options.recognizers.split(",")
    if len(names) < 2:
        raise InputError("an ensemble joins at least two recognizers; name them as KIND:FILE,KIND:FILE")
    recognizers = [recognizer_named(name) for name in names]
    recipe = Recipe(epochs=options.epochs, seed=options.seed)
    state = options.output.with_suffix(".state")
    mapper = ensemble_from_folder(options.people, recognizers, recipe, state, options.workers, options.logs, progress)
    save_ensemble(options.output, mapper)
    state.unlink(missing_ok=True)
    return f"{options.output}: joins {', '.join(mapper.spaces)}; same person below {mapper.threshold:.2f}"


TRAINERS = (
    TrainerSpec(
        "embedder",
        "the built-in recognizer, from a folder of portraits and another recognizer",
        TrainEmbedder,
        _train_embedder,
        writes=lambda options: [options.output],
    ),
    TrainerSpec(
        "lds",
        "DiffDeID's identity sampler, from a folder of portraits",
        TrainSampler,
        _train_sampler,
        writes=lambda options: [_sampler_file(options)],
    ),
    TrainerSpec(
        "ensemble",
        "IDDiffuse's ensemble identity, from a folder of people",
        TrainEnsemble,
        _train_ensemble,
        writes=lambda options: [options.output],
    ),
)
