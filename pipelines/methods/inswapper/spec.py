"""Registry entry of the method ``inswapper``: the user's copy of the face swapper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import InputError, WeightsError
from ...core.options import ModelFile, check_options, option
from ..registry import MethodSpec

if TYPE_CHECKING:
    from .method import InSwapperMethod

_ONNX = (".onnx",)
_FOLDERS = ("insightface", "faceveil")


@dataclass(frozen=True)
class InSwapperOptions:
    """Options of the method."""

    swapper: Path | None = option(
        None,
        "inswapper_128.onnx.",
        model_file=ModelFile(_FOLDERS, _ONNX, "inswapper", "put inswapper_128.onnx into models/insightface"),
    )
    recognizer: Path | None = option(
        None,
        "w600k_r50.onnx.",
        model_file=ModelFile(_FOLDERS, _ONNX, "w600k", "put w600k_r50.onnx into models/insightface"),
    )
    source: Path | None = option(
        None,
        "Source of new identities: a bank folder, or a sampler of faceveil train lds, in the recognizer's space.",
        model_file=ModelFile(
            ("faceveil",), (".safetensors",), "lds_", "train a sampler with: faceveil train lds --space arcface:FILE"
        ),
    )

    def __post_init__(self) -> None:
        check_options(self)


def _open(options: InSwapperOptions) -> InSwapperMethod:
    from ...identity.sources import open_source
    from ...recognition.arcface import ArcFace
    from .method import InSwapperMethod
    from .network import InSwapper

    if options.swapper is None or options.recognizer is None:
        raise InputError(
            "the method inswapper needs two files: inswapper_128.onnx as --inswapper-swapper and w600k_r50.onnx as"
            " --inswapper-recognizer (swapper and recognizer in Python and on nodes)"
        )
    source = None if options.source is None else open_source(options.source)
    return InSwapperMethod(InSwapper(options.swapper), ArcFace(options.recognizer), source)


def _check() -> str:
    from importlib.util import find_spec

    if find_spec("insightface") is None:
        raise WeightsError("insightface is not installed; install it with: pip install insightface")
    return "insightface is installed; name the model files when you use the method"


SPEC = MethodSpec(
    name="inswapper",
    title="inswapper",
    summary="Swaps in a synthetic identity at 128 px with your copy of the inswapper_128 model.",
    options=InSwapperOptions,
    open=_open,
    check=_check,
    identity_space="arcface-w600k",
    needs=("inswapper-128", "arcface-w600k"),
)
