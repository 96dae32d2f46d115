"""The dummy, announced to the registry."""

from __future__ import annotations

from dataclasses import dataclass

from faceveil.pipelines.core.errors import WeightsError
from faceveil.pipelines.core.options import check_options, option
from faceveil.pipelines.methods.registry import MethodSpec
from faceveil.pipelines.training.spec import TrainerSpec


@dataclass(frozen=True)
class Options:
    red: float = option(1.0, "How red.", minimum=0.0, maximum=1.0)

    def __post_init__(self):
        check_options(self)


def _open(options):
    from .method import Paint

    return Paint(options.red)


def _learn(options, progress):
    return f"learned {options.red}"


def _check():
    raise WeightsError("the paint is missing; buy some")


SPEC = MethodSpec(
    name="dummy",
    title="A dummy",
    summary="Paints faces red.",
    options=Options,
    open=_open,
    check=_check,
    trainers=(TrainerSpec("dummy", "nothing", Options, _learn, writes=lambda options: []),),
)
