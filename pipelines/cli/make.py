"""Commands ``triplets``, ``bank``, ``calibrate``, and those that convert files."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.files import check_outputs
from ..methods.registry import ConverterSpec, method_specs
from ..recognition.kinds import KINDS
from .terminal import OK, add_overwrite, add_workers, command, progress_bar, say

RECOGNIZER = (
    f"dlib or faceveil; or KIND:FILE with a weights file that you have, where KIND is one of {', '.join(KINDS[1:])}; or"
    " an ensemble of several as ensemble:FILE,KIND:FILE,… (default: dlib)"
)


def add_commands(commands: Any) -> None:
    triplets = command(
        commands, "triplets", _triplets, "build training triplets from a folder with one subfolder for each person"
    )
    triplets.add_argument("people", type=Path)
    triplets.add_argument("-o", "--output", type=Path, required=True, help="folder for the images and triplets.jsonl")
    triplets.add_argument("--swapper", type=Path, required=True, help="inswapper_128.onnx, which you have")
    triplets.add_argument("--recognizer", type=Path, required=True, help="w600k_r50.onnx, which you have")
    triplets.add_argument("--seed", type=int, default=0)
    bank = command(
        commands, "bank", _bank, "build a bank from a folder of portraits of synthetic people, one portrait each"
    )
    bank.add_argument("images", type=Path)
    bank.add_argument("-o", "--output", type=Path, required=True, help="a new folder for the bank")
    bank.add_argument("--recognizer", default="dlib", metavar="KIND:FILE", help=RECOGNIZER)
    add_workers(bank)
    convert = command(
        commands,
        "convert-morphable",
        _convert_morphable,
        "convert a BFM .mat file or an ICT-FaceKit folder to one file that opens quickly",
    )
    convert.add_argument("model", type=Path)
    convert.add_argument("-o", "--output", type=Path, required=True, help="NAME_morphable.safetensors")
    add_overwrite(convert)
    for converter in (c for spec in method_specs().values() for c in spec.converters):
        parser = command(commands, f"convert-{converter.name}", partial(_convert, converter), converter.summary)
        parser.add_argument("source", type=Path)
        parser.add_argument("-o", "--output", type=Path, required=True, help="what to write")
        add_overwrite(parser)
    calibrate = command(
        commands,
        "calibrate",
        _calibrate,
        "measure a recognizer's thresholds on photos of different people, one photo each",
    )
    calibrate.add_argument("images", type=Path)
    calibrate.add_argument("--recognizer", default="dlib", metavar="KIND:FILE", help=RECOGNIZER)
    add_workers(calibrate)


def _triplets(options: argparse.Namespace) -> int:
    from ..methods.inswapper.network import ImageSwapper
    from ..methods.referencenet.triplets import build_triplets

    if options.output.resolve().is_relative_to(options.people.resolve()):
        raise InputError("the triplets would be written into the folder of photos; name another output folder")
    if options.output.is_dir() and any(options.output.iterdir()):
        raise InputError(f"{options.output.name} is not empty; name a new output folder")
    if not options.people.is_dir():
        raise InputError(f"{options.people.name} is not a folder; name a folder with one subfolder for each person")
    with progress_bar() as progress:
        made = build_triplets(
            options.people, options.output, ImageSwapper(options.swapper, options.recognizer), options.seed, progress
        )
    say(f"{options.output / 'triplets.jsonl'}: {len(made)} triplets")
    return OK


def _bank(options: argparse.Namespace) -> int:
    from ..identity.compare import recognizer_named
    from ..jobs.portraits import bank_from_folder

    if options.output.exists() and not options.output.is_dir():
        raise InputError(f"{options.output.name} is a file; name a new folder for the bank")
    with progress_bar() as progress:
        bank = bank_from_folder(
            options.images, options.output, recognizer_named(options.recognizer), options.workers, progress
        )
    say(f"{options.output}: {len(bank)} synthetic people, embedded with {bank.space}")
    return OK


def _convert_morphable(options: argparse.Namespace) -> int:
    from ..geometry.readers import load_morphable, save_morphable

    check_outputs([options.output], [options.model], options.overwrite)
    model = load_morphable(options.model)
    save_morphable(options.output, model)
    identity, expression, texture = model.sizes
    say(
        f"{options.output}: {model.name}, {len(model.mean)} vertices, components: {identity} identity,"
        f" {expression} expression, {texture} texture"
    )
    return OK


def _convert(converter: ConverterSpec, options: argparse.Namespace) -> int:
    if not options.output.is_dir():
        check_outputs([options.output], [options.source], options.overwrite)
    say(converter.run(options.source, options.output))
    return OK


def _calibrate(options: argparse.Namespace) -> int:
    from ..identity.compare import recognizer_named
    from ..recognition.thresholds import measure_threshold
    from ..training.portraits import embed_portraits, find_portraits

    recognizer = recognizer_named(options.recognizer)
    with progress_bar() as progress:
        vectors = embed_portraits(find_portraits(options.images, options.workers, progress), recognizer, progress)
    say(f"{recognizer.name}, {len(vectors)} people: false-match rate and its threshold, for KIND:FILE@DISTANCE")
    for rate in (1e-1, 1e-2, 1e-3, 1e-4):
        try:
            distance = measure_threshold(vectors, rate)
        except InputError:
            say(f"  {rate:6.2%}: too few pairs")
            continue
        say(f"  {rate:6.2%}: {distance * recognizer.mean_length:.3f} (cosine {1 - distance**2 / 2:.3f})")
    return OK
