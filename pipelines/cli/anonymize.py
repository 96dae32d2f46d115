"""``faceveil anonymize``: replace or redact the faces of many photos and videos."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.files import check_outputs, exists
from ..faces.names import REDACTION_SHAPES, REDACTION_STYLES
from ..jobs.policy import ACTIONS
from ..methods.registry import method_spec, method_specs
from .flags import add_options, given_flags, given_paths, options_from
from .terminal import add_sensitivity, command, positive, say
from .vault import add_key_flags
from .videos import add_render, add_video_flags

if TYPE_CHECKING:
    from torch import Tensor

    from ..jobs.settings import Settings
    from ..jobs.tasks import Task

PREVIEW_SUFFIX = ".png"
MAX_SKIPPED = 5
"""Names of skipped files that are printed."""
PSEUDONYM_SPACE = "dlib"
"""Space of the identities that pseudonyms take without a bank."""


def add_commands(commands: Any) -> None:
    parser = command(commands, "anonymize", anonymize, "replace the faces in photos and videos")
    parser.add_argument("input", nargs="+", help="images, videos, folders or globs")
    _add_flags(parser, planned=False)
    add_render(commands, lambda parser: _add_flags(parser, planned=True))


def _add_flags(parser: argparse.ArgumentParser, planned: bool) -> None:
    """Add the flags of a run; ``planned``: the faces are those of a plan."""
    parser.add_argument("-o", "--output", help="a file, or a folder (default: NAME_veiled beside the input)")
    specs = method_specs()
    parser.add_argument(
        "--method",
        choices=(*specs, *REDACTION_STYLES),
        default=next(iter(specs)),
        help="a method, which gives a new face, or a redaction style (default: %(default)s)",
    )
    parser.add_argument(
        "--strength", type=float, default=1.0, help="0 keeps the person, 1 is recommended, up to 1.5 (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed repeats a result (default: 0)")
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="processes: one image or frame each (default: what cores and memory allow, for methods of one thread)",
    )
    cluster = parser.add_argument_group("a cluster")
    cluster.add_argument(
        "--cluster", action="store_true", help="spread the files over workers of Ray, on this machine or a cluster"
    )
    cluster.add_argument("--address", metavar="HOST:PORT", help="of an existing Ray cluster (default: start one here)")
    cluster.add_argument(
        "--worker-gpus",
        type=float,
        default=0.0,
        metavar="X",
        help="share of a graphics chip for each worker (0)",
    )
    _add_selection(parser.add_argument_group("which faces; in a video, which people"), planned)
    add_video_flags(parser.add_argument_group("videos"))
    _add_safety(parser.add_argument_group("what happens to faces that cannot be replaced safely"))
    _add_identity(parser.add_argument_group("which identity is shown"))
    outputs = parser.add_argument_group("further outputs")
    outputs.add_argument(
        "--overwrite", action="store_true", help="replace existing outputs; inputs are never overwritten"
    )
    outputs.add_argument(
        "--resume",
        action="store_true",
        help="go on where an earlier run into this folder stopped: what it finished is left alone, the rest is made",
    )
    vault = parser.add_argument_group("the way back (off unless asked for)")
    vault.add_argument(
        "--vault", type=Path, metavar="FILE", help="seal the original pixels of all faces in this file, for restore"
    )
    add_key_flags(vault)
    outputs.add_argument("--report", type=Path, metavar="FILE", help="write what was done to each face as JSON")
    outputs.add_argument(
        "--preview", type=Path, metavar="SHEET", help="write originals and results side by side (.png)"
    )
    for spec in specs.values():
        group = parser.add_argument_group(f"method {spec.name} ({spec.title})", spec.summary)
        add_options(group, spec.options, spec.name)


def _add_selection(group: Any, planned: bool) -> None:
    group.add_argument(
        "--faces",
        default="all",
        help="all, largest, smallest, left, right, or numbers such as 0,2 (default: all)",
    )
    group.add_argument(
        "--allow-missing", action="store_true", help="go on where an image has no face of a number in --faces"
    )
    if not planned:
        group.add_argument(
            "--plan", type=Path, metavar="FILE", help="treat the faces of this plan, written by: faceveil plan"
        )
    add_sensitivity(group)
    group.add_argument(
        "--min-size",
        type=float,
        default=0.0,
        help="keep faces that are smaller than this many pixels; in a video, people who are smaller in all frames",
    )
    group.add_argument(
        "--include", type=Path, action="append", default=[], metavar="REF", help="only the person in this photo"
    )
    group.add_argument(
        "--exclude", type=Path, action="append", default=[], metavar="REF", help="all but the person in this photo"
    )


def _add_safety(group: Any) -> None:
    group.add_argument("--policy", choices=ACTIONS, default="redact", help="what happens to them (default: redact)")
    group.add_argument(
        "--no-face",
        choices=ACTIONS,
        help="what happens to images without a face; redact fills the whole image (default: as --policy)",
    )
    group.add_argument("--shape", choices=REDACTION_SHAPES, default="ellipse", help="of a redaction (default: ellipse)")
    group.add_argument(
        "--sticker", type=Path, metavar="FILE", help="an image for --method sticker, with or without transparency"
    )
    group.add_argument(
        "--parser-file",
        type=Path,
        metavar="FILE",
        help="a face parser (BiSeNet as .onnx, or a SegFormer folder), so that what is in front of a face stays",
    )
    group.add_argument(
        "--verify",
        action="append",
        default=[],
        metavar="KIND:FILE[@DISTANCE]",
        help="ask this recognizer as well as dlib, from a file that you have; DISTANCE is a threshold that faceveil"
        " calibrate measured; the recognizer that finds the faces most alike decides (repeatable)",
    )


def _add_identity(group: Any) -> None:
    choice = group.add_mutually_exclusive_group()
    choice.add_argument("--identity", type=Path, metavar="FILE", help="show this saved identity on all faces")
    choice.add_argument(
        "--pseudonyms",
        type=Path,
        metavar="KEY",
        help="give each person the same new identity in all images, now and later, under this key file (.key); it is"
        " made when missing, with a ledger beside it",
    )
    choice.add_argument(
        "--same-person", action="store_true", help="the inputs show one person, who gets one identity in all of them"
    )
    group.add_argument(
        "--no-ledger",
        action="store_true",
        help="with --pseudonyms: the key and the face alone decide, so no ledger can be lost, but a person often has"
        " another pseudonym in other photos, and strangers can share one",
    )
    group.add_argument("--bank", type=Path, metavar="FOLDER", help="take the identities of --pseudonyms from this bank")
    group.add_argument(
        "--save-identity", type=Path, metavar="FILE", help="save the identity that was shown, to use it again"
    )


def anonymize(options: argparse.Namespace) -> int:
    """Run ``anonymize`` or ``render``, and return the exit code."""
    from ..jobs.remote import check_places, plan_any_tasks, skipped_remote
    from ..jobs.tasks import skipped_files
    from .resume import remote_notes

    _check_flags(options)
    tasks = plan_any_tasks(options.input, options.output)
    _check_vault(options, tasks)
    _check_videos(options, tasks)
    if options.preview and options.preview.suffix.lower() != PREVIEW_SUFFIX:
        raise InputError(f"the preview {options.preview.name} must end in {PREVIEW_SUFFIX}")
    if options.plan and len(tasks) > 1:
        raise InputError(f"a plan belongs to one image or video, but {len(tasks)} are given")
    # Missing files are reported before networks are loaded, which takes seconds.
    _check_files(options, tasks)
    check_places(tasks, remote_notes(options), options.overwrite, options.resume)
    local = [task for task in tasks if not task.source_url]
    read = [*(task.source for task in local), *options.include, *options.exclude, *_single_files(options)]
    outputs = [task.target for task in tasks if not task.target_url]
    side_files = [p for p in (options.report, options.preview, options.save_identity, options.vault) if p is not None]
    read += [*_pseudonym_files(options), *_needed(options)]
    # With --resume, the manifest tells for each existing output whether it is one of an earlier run.
    known = _made_before(options, outputs)
    check_outputs([*outputs, *side_files], read, options.overwrite, known)
    from .anonymize_run import run

    _tell_skipped([*skipped_files(options.input, options.output), *skipped_remote(options.input)])
    return run(options, tasks)


def _check_videos(options: argparse.Namespace, tasks: list[Task]) -> None:
    """Raise where a flag has no meaning for a video."""
    if not any(task.is_video for task in tasks):
        return
    if options.same_person and sum(task.is_video for task in tasks) > 1:
        raise InputError("--same-person takes one video; for several, use --pseudonyms or --identity")
    without = {
        "--preview": options.preview,
        "--save-identity": options.save_identity,
    }
    if options.plan is not None:
        without |= {
            "--faces": options.faces != "all",
            "--min-size": options.min_size > 0,
            "--include": options.include,
            "--exclude": options.exclude,
        }
    for flag, given in without.items():
        if given:
            where = "a planned video; edit the plan" if options.plan is not None else "videos; treat the images alone"
            raise InputError(f"{flag} has no effect on {where}")


def _check_vault(options: argparse.Namespace, tasks: list[Task]) -> None:
    """Raise where a vault cannot be written."""
    if options.vault is None:
        if options.key is not None or options.passphrase:
            raise InputError("--key and --passphrase belong to --vault; name its file")
        return
    if len(tasks) > 1:
        raise InputError(f"a vault belongs to one image or video, but {len(tasks)} are given; run them one by one")
    if options.cluster or tasks[0].is_remote:
        raise InputError("a vault is written on this machine; leave out --cluster, and name files, not URLs")
    if options.key is None and not options.passphrase:
        raise InputError("--vault needs --key FILE or --passphrase")
    if not tasks[0].is_video:
        from ..jobs.restore import check_lossless

        check_lossless(tasks[0].target)


def _made_before(options: argparse.Namespace, outputs: list[Path]) -> set[Path]:
    """Outputs that the manifest of the folder knows, with ``--resume``."""
    from ..jobs.manifest import Manifest
    from .resume import manifest_folder, remote_notes

    if not options.resume or remote_notes(options) is not None:
        return set()
    folder = manifest_folder(options)
    if folder is None:
        raise InputError("--resume belongs to a run over several files that writes into a folder; name one with -o")
    manifest = Manifest(folder)
    return {path for path in outputs if manifest.knows(path)}


def _tell_skipped(files: list[Path]) -> None:
    if files:
        some = ", ".join(path.name for path in files[:MAX_SKIPPED]) + ", …" * (len(files) > MAX_SKIPPED)
        count = f"{len(files)} file{'s' * (len(files) != 1)}"
        say(f"{count} skipped (no image or video of a known format, or a result): {some}")


def _check_flags(options: argparse.Namespace) -> None:
    """Raise where flags contradict each other."""
    from ..jobs.remote import was_url

    for flag, value in vars(options).items():
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and was_url(path):
                raise InputError(f"--{flag.replace('_', '-')} takes a local file, not a URL; fetch it first")
    specs = method_specs()
    for name, spec in specs.items():
        flags = given_flags(options, spec.options, name) if name != options.method else []
        if flags:
            raise InputError(f"{flags[0]} belongs to --method {name}, but the method is {options.method}")
    # A bank can be of another space; its own is compared when it is open.
    spaces = {name: spec.identity_space for name, spec in specs.items() if spec.identity_space}
    able = [name for name, space in spaces.items() if options.bank or space == PSEUDONYM_SPACE]
    if options.pseudonyms and options.method not in able:
        raise InputError(f"--pseudonyms needs a method that can show them: use --method {' or '.join(able)}")
    if options.pseudonyms and not options.pseudonyms.name:
        raise InputError("--pseudonyms needs the name of a key file, such as my.key")
    if (options.address or options.worker_gpus) and not options.cluster:
        raise InputError("--address and --worker-gpus belong to --cluster")
    for flag in ("bank", "no_ledger"):
        if getattr(options, flag) and not options.pseudonyms:
            raise InputError(f"--{flag.replace('_', '-')} belongs to --pseudonyms; give a key file as well")
    for flag in ("identity", "same_person", "save_identity"):
        if getattr(options, flag) and options.method not in specs:
            raise InputError(
                f"--{flag.replace('_', '-')} needs a method that replaces faces ({', '.join(specs)}); {options.method}"
                " redacts them"
            )


def _check_files(options: argparse.Namespace, tasks: list[Task]) -> None:
    """Raise where a file that the whole run needs is missing; a batch goes on past some missing inputs."""
    if not any(task.source_url or exists(task.source) for task in tasks):
        raise InputError(f"{tasks[0].source.name} does not exist; check its name and folder")
    for path in (*options.include, *options.exclude, *_single_files(options), *_needed(options)):
        if not exists(path):
            raise InputError(f"{path.name} does not exist; check its name and folder")


def _single_files(options: argparse.Namespace) -> list[Path]:
    files = (options.plan, options.sticker, options.parser_file, options.identity, options.key)
    return [path for path in files if path is not None]


def _needed(options: argparse.Namespace) -> list[Path]:
    """Files of recognizers, of the method and of the bank."""
    found = _recognizer_files(options.verify)
    spec = method_specs().get(options.method)
    if spec is not None:
        found += given_paths(options, spec.options, spec.name)
    if options.bank is not None:
        found += [options.bank, *options.bank.rglob("*")]
    return found


def _recognizer_files(named: list[str]) -> list[Path]:
    """The files in ``KIND:FILE[@DISTANCE],...``."""
    parts = [part.partition(":")[2] for text in named for part in text.split(",")]
    # A file is looked up with and without the threshold, because its name may contain the character, too.
    return [Path(p) if Path(p).exists() else Path(p.rpartition("@")[0] or p) for p in parts if p]


def _pseudonym_files(options: argparse.Namespace) -> list[Path]:
    """The key and its ledger, which may not exist yet."""
    key = options.pseudonyms
    if key is None:
        return []
    from ..identity.pseudonym import KEY_SUFFIX, LEDGER_SUFFIX

    return [key, key.with_suffix(KEY_SUFFIX), key.with_name(f"{key.stem}{LEDGER_SUFFIX}")]


def settings_from(options: argparse.Namespace) -> Settings:
    """The settings that the flags describe; reference photos are read and embedded last.

    Raises:
        InputError: a value is out of range, or a file cannot be used.
    """
    from ..faces.parse import open_parser
    from ..faces.select import Selection
    from ..imaging.load import load_image
    from ..jobs.people import embed_reference
    from ..jobs.policy import Policy
    from ..jobs.settings import Settings

    policy = Policy.always(options.policy)
    if options.no_face:
        policy = replace(policy, no_face=options.no_face)
    settings = Settings(
        method=options.method,
        strength=options.strength,
        seed=options.seed,
        selection=Selection(options.faces, options.min_size, allow_missing=options.allow_missing),
        policy=policy,
        shape=options.shape,
        same_person=options.same_person,
        sensitivity=options.sensitivity,
        sticker=_sticker(options.sticker),
        parser=open_parser(options.parser_file) if options.parser_file else None,
    )
    include, exclude = (
        tuple(embed_reference(load_image(path)) for path in paths) for paths in (options.include, options.exclude)
    )
    return replace(settings, include=include, exclude=exclude)


def method_options(options: argparse.Namespace) -> object | None:
    """The options of the chosen method; None for a redaction style."""
    if options.method not in method_specs():
        return None
    return options_from(options, method_spec(options.method).options, options.method)


def _sticker(path: Path | None) -> Tensor | None:
    import torch

    from ..imaging.load import load_image

    if path is None:
        return None
    image = load_image(path)
    alpha = torch.ones_like(image.pixels[:, :1]) if image.alpha is None else image.alpha
    return torch.cat([image.pixels, alpha], 1)
