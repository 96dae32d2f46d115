"""``faceveil train``: whatever the methods and the identity toolkit can learn."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..core.files import check_outputs
from ..core.options import options_of
from ..jobs.trainers import TRAINERS
from ..methods.registry import method_specs
from ..training.spec import TrainerSpec
from .flags import add_options, options_from
from .terminal import OK, add_overwrite, command, progress_bar, say


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="train a network", description="Train a network.")
    names = train.add_subparsers(required=True, metavar="NAME")
    found = [trainer for spec in method_specs().values() for trainer in spec.trainers]
    for trainer in (*found, *TRAINERS):
        parser = command(names, trainer.name, partial(_train, trainer), trainer.summary)
        add_options(parser, trainer.options)
        add_overwrite(parser)


def _train(trainer: TrainerSpec[Any], namespace: argparse.Namespace) -> int:
    options = options_from(namespace, trainer.options)
    inputs = [value for o in options_of(trainer.options) if isinstance(value := getattr(options, o.name), Path)]
    written = list(trainer.writes(options))
    check_outputs(written, [path for path in inputs if path not in written], namespace.overwrite)
    with progress_bar() as progress:
        sentence = trainer.run(options, progress)
    from ..training.devices import leave_processes

    leave_processes()
    say(sentence)
    return OK
