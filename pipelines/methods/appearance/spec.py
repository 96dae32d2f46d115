"""Registry entry of the method ``appearance``: the built-in model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.options import check_options, option
from ...core.progress import Progress
from ...training.spec import TrainerSpec
from ..registry import MethodSpec

if TYPE_CHECKING:
    from .method import AppearanceMethod

SEARCH = 16
"""Default number of renderings."""


@dataclass(frozen=True)
class AppearanceOptions:
    """Options of the method."""

    search: int = option(
        SEARCH,
        "Most renderings of the search for one new identity, 50 ms each, and 4 more where a face is hard; 1 skips"
        " the search, which is faster but less private.",
        minimum=1,
        maximum=64,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainAppearance:
    """Options of ``faceveil train appearance``."""

    images: Path = option(None, "Folder of portraits, one person each.")
    output: Path = option(Path("appearance.safetensors"), "File to write.")
    workers: int | None = option(None, "Number of processes; all cores when omitted.", minimum=1)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class TrainMorphable:
    """Options of ``faceveil train morphable``."""

    output: Path = option(Path("face_morphable.safetensors"), "File to write.")


def _open(options: AppearanceOptions) -> AppearanceMethod:
    from .method import AppearanceMethod

    return AppearanceMethod(trials=options.search)


def _check() -> str:
    from .network import load_model

    return f"built in, {sum(r.components for r in load_model().regions.values())} components"


def _train(options: TrainAppearance, progress: Progress) -> str:
    import json

    from .training import train

    return f"{options.output}: {json.dumps(train(options.images, options.output, options.workers, progress))}"


def _train_morphable(options: TrainMorphable, progress: Progress) -> str:
    from ...geometry.readers import save_morphable
    from .morphable import morphable_model_of
    from .network import load_model

    progress(0, 1, "lifting the canonical face space")
    model = morphable_model_of(load_model())
    save_morphable(options.output, model, half=True)
    return f"{options.output}: {len(model.mean)} vertices"


SPEC = MethodSpec(
    name="appearance",
    title="Built-in model",
    summary="Makes a new face by warping and multiplying the photo's own pixels. No download, no GPU.",
    options=AppearanceOptions,
    open=_open,
    check=_check,
    identity_space="dlib",
    one_thread=True,
    trainers=(
        TrainerSpec(
            "appearance",
            "the built-in appearance model, from a folder of portraits",
            TrainAppearance,
            _train,
            writes=lambda options: [options.output],
        ),
        TrainerSpec(
            "morphable",
            "the built-in 3D morphable model, from the built-in appearance model",
            TrainMorphable,
            _train_morphable,
            writes=lambda options: [options.output],
        ),
    ),
)
