"""Commands that make weights, banks of synthetic people, thresholds, and training data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from .terminal import OK, command, progress_bar, say

RECOGNISER = (
    "dlib, or arcface, adaface, sphereface, mobileface, facenet, farl with a file that you have, as KIND:FILE; "
    "ensemble:FILE,KIND:FILE,… joins several (default: dlib)"
)


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="train a method's weights", description="Train a method's weights.")
    _add_training(train.add_subparsers(required=True, metavar="METHOD"))
    triplets = command(
        commands, "triplets", _triplets, "make training triplets from a folder with one sub-folder a person"
    )
    triplets.add_argument("people", type=Path)
    triplets.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures and triplets.jsonl")
    triplets.add_argument("--swapper", type=Path, required=True, help="inswapper_128.onnx, which you have")
    triplets.add_argument("--recogniser", type=Path, required=True, help="w600k_r50.onnx, which you have")
    triplets.add_argument("--seed", type=int, default=0)
    bank = command(
        commands, "bank", _bank, "build a bank of synthetic people from a folder of their pictures, one each"
    )
    bank.add_argument("images", type=Path)
    bank.add_argument("-o", "--output", type=Path, required=True, help="a new folder for the bank")
    bank.add_argument("--recogniser", default="dlib", metavar="KIND:FILE", help=RECOGNISER)
    bank.add_argument("--workers", type=int)
    convert = command(
        commands,
        "convert-morphable",
        _convert_morphable,
        "turn BFM's .mat or ICT-FaceKit's folder into one file that opens at once",
    )
    convert.add_argument("model", type=Path)
    convert.add_argument("-o", "--output", type=Path, required=True, help="NAME_morphable.safetensors")
    calibrate = command(
        commands, "calibrate", _calibrate, "measure a recogniser's thresholds on photos of strangers, one photo each"
    )
    calibrate.add_argument("images", type=Path)
    calibrate.add_argument("--recogniser", default="dlib", metavar="KIND:FILE", help=RECOGNISER)
    calibrate.add_argument("--workers", type=int)


def _add_training(methods: Any) -> None:
    appearance = command(methods, "appearance", _train_appearance, "the embedded default, from a folder of portraits")
    appearance.add_argument("--images", type=Path, required=True, help="folder of portraits, one person each")
    appearance.add_argument("-o", "--output", type=Path, default=Path("appearance.safetensors"))
    appearance.add_argument("--workers", type=int)
    reference = command(methods, "referencenet", _train_referencenet, "Face Anonymization Made Simple, from triplets")
    reference.add_argument(
        "--config",
        type=Path,
        required=True,
        help="TOML file with the settings of faceveil.pipelines.methods.referencenet.training.Config",
    )
    reference.add_argument("--resume", action="store_true", help="go on from the latest saved state")
    lds = command(methods, "lds", _train_lds, "the identity sampler of DiffDeID, from a folder of portraits")
    lds.add_argument("--images", type=Path, required=True, help="folder of portraits, one person each")
    lds.add_argument(
        "--space",
        default="dlib",
        help=(
            "a recogniser as for faceveil bank; appearance-shape for the built-in 3D shape model; joint for "
            "dlib and that together (default: dlib)"
        ),
    )
    lds.add_argument("-o", "--output", type=Path, help="default: lds_SPACE.safetensors")
    lds.add_argument("--steps", type=int, default=3000)
    lds.add_argument("--seed", type=int, default=0)
    lds.add_argument("--workers", type=int)
    ensemble = command(
        methods,
        "ensemble",
        _train_ensemble,
        "IDDiffuse's ensemble identity, from a folder with one sub-folder a person",
    )
    ensemble.add_argument("--people", type=Path, required=True, help="folder with one sub-folder a person")
    ensemble.add_argument(
        "--recogniser",
        action="append",
        required=True,
        metavar="KIND:FILE",
        help="one of those to join (repeatable; the paper's are arcface, farl and facenet)",
    )
    ensemble.add_argument("-o", "--output", type=Path, default=Path("ensemble.safetensors"))
    ensemble.add_argument("--epochs", type=int, default=50)
    ensemble.add_argument("--seed", type=int, default=0)
    ensemble.add_argument("--workers", type=int)


def _train_appearance(options: argparse.Namespace) -> int:
    from ..methods.appearance.training import train

    with progress_bar() as progress:
        facts = train(options.images, options.output, options.workers, progress)
    say(f"{options.output}: {json.dumps(facts)}")
    return OK


def _train_lds(options: argparse.Namespace) -> int:
    from ..jobs.portraits import train_on_folder

    output = options.output or Path(f"lds_{options.space}.safetensors")
    with progress_bar() as progress:
        _, count = train_on_folder(
            options.images, options.space, output, options.steps, options.seed, options.workers, progress
        )
    say(f"{output}: learned from {count} faces")
    return OK


def _train_referencenet(options: argparse.Namespace) -> int:
    try:
        from ..methods.referencenet.training import read_config, train

        config = read_config(options.config)
        with progress_bar() as progress:
            facts = train(config, options.resume, progress)
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs the package {error.name}; install it with: pip install 'faceveil[train]'"
        ) from None
    say(f"{config.output}: {json.dumps(facts)}")
    return OK


def _triplets(options: argparse.Namespace) -> int:
    from ..methods.inswapper.network import PictureSwapper
    from ..methods.referencenet.triplets import build_triplets

    if not options.people.is_dir():
        raise InputError(f"{options.people.name} is not a folder; give one with a sub-folder for each person")
    with progress_bar() as progress:
        made = build_triplets(
            options.people, options.output, PictureSwapper(options.swapper, options.recogniser), options.seed, progress
        )
    say(f"{options.output / 'triplets.jsonl'}: {len(made)} triplets")
    return OK


def _train_ensemble(options: argparse.Namespace) -> int:
    from ..identity.embedders import embedder_of
    from ..identity.ensemble import Recipe, save_ensemble
    from ..jobs.portraits import ensemble_from_folder

    embedders = [embedder_of(words) for words in options.recogniser]
    with progress_bar() as progress:
        mapper = ensemble_from_folder(
            options.people, embedders, Recipe(epochs=options.epochs, seed=options.seed), options.workers, progress
        )
    save_ensemble(options.output, mapper)
    say(f"{options.output}: joins {', '.join(mapper.spaces)}; same person below {mapper.threshold:.2f}")
    return OK


def _bank(options: argparse.Namespace) -> int:
    from ..identity.embedders import embedder_of
    from ..jobs.portraits import bank_from_folder

    with progress_bar() as progress:
        bank = bank_from_folder(
            options.images, options.output, embedder_of(options.recogniser), options.workers, progress
        )
    say(f"{options.output}: {len(bank)} people of {bank.space}")
    return OK


def _convert_morphable(options: argparse.Namespace) -> int:
    from ..geometry.readers import load_morphable, save_morphable

    model = load_morphable(options.model)
    save_morphable(options.output, model)
    identity, expression, texture = model.sizes
    say(
        f"{options.output}: {model.name}, {len(model.mean)} vertices, {identity} shapes, {expression} expressions,"
        f" {texture} textures"
    )
    return OK


def _calibrate(options: argparse.Namespace) -> int:
    from ..identity.calibration import threshold_at
    from ..identity.embedders import embedder_of
    from ..jobs.portraits import embed_portraits, find_portraits

    embedder = embedder_of(options.recogniser)
    with progress_bar() as progress:
        vectors = embed_portraits(find_portraits(options.images, options.workers, progress), embedder, progress)
    say(f"{embedder.space}, {len(vectors)} people: L2 distance of unit vectors below which a share of strangers lies")
    for rate in (1e-1, 1e-2, 1e-3, 1e-4):
        try:
            distance = threshold_at(vectors, rate)
        except InputError:
            say(f"  {rate:6.2%}: too few pairs")
            continue
        say(f"  {rate:6.2%}: {distance:.3f} (cosine {1 - distance**2 / 2:.3f})")
    return OK
