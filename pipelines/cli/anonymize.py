"""``faceveil anonymize``: replace or cover the faces of many photos."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FaceVeilError, InputError, PolicyStop
from .terminal import OK, SOME_FAILED, UNPROTECTED, command, progress_bar, say

if TYPE_CHECKING:
    from torch import Tensor

    from ..jobs.folder import Task
    from ..jobs.photo import Result, Settings

MOST_SHARED = 6
"""Pictures that a shared identity is searched over; more cost time and change little."""


def add_commands(commands: Any) -> None:
    parser = command(commands, "anonymize", _anonymize, "replace the faces in photos")
    parser.add_argument("input", nargs="+", help="pictures, folders or globs")
    parser.add_argument("-o", "--output", help="a file, or a folder (default: NAME_veiled beside the input)")
    parser.add_argument(
        "--method",
        default="appearance",
        help="appearance (a new face, the default), referencenet, inswapper, solid, pixelate, blur, sticker",
    )
    parser.add_argument(
        "--models", type=Path, default=Path("models"), help="models folder for referencenet (default: models)"
    )
    parser.add_argument(
        "--vae", type=Path, help="folder or file of a Stable Diffusion 1 or 2 VAE (default: MODELS/vae)"
    )
    parser.add_argument("--image-encoder", type=Path, help="folder of CLIP ViT-L/14 (default: MODELS/clip_vision)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps of referencenet (default: 25)")
    parser.add_argument(
        "--strength", type=float, default=1.0, help="0 keeps the person, 1 is recommended, up to 1.5 (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed repeats a result (default: 0)")
    parser.add_argument(
        "--faces", default="all", help="all, largest, smallest, left, right, or numbers such as 0,2 (default: all)"
    )
    parser.add_argument(
        "--plan",
        type=Path,
        metavar="FILE",
        help="work on the faces of this plan, written by: faceveil detect -o plan.json",
    )
    parser.add_argument(
        "--min-size", type=float, default=0.0, help="leave faces alone that are smaller than this many pixels"
    )
    parser.add_argument(
        "--include",
        type=Path,
        action="append",
        default=[],
        metavar="REF",
        help="only the person in this photo (repeatable)",
    )
    parser.add_argument(
        "--exclude",
        type=Path,
        action="append",
        default=[],
        metavar="REF",
        help="never the person in this photo (repeatable)",
    )
    parser.add_argument(
        "--policy",
        default="redact",
        help="what happens to faces that cannot be replaced safely: redact, stop, pass (default: redact)",
    )
    parser.add_argument(
        "--no-face", help="the same for pictures without a face (default: as --policy; redact covers the whole picture)"
    )
    parser.add_argument("--sticker", type=Path, metavar="FILE", help="a picture with transparency for --method sticker")
    parser.add_argument("--shape", default="ellipse", help="of covers: ellipse, box, hull (default: ellipse)")
    parser.add_argument(
        "--parser-file",
        type=Path,
        metavar="FILE",
        help="a BiSeNet face parser (.onnx), so that what covers a face stays",
    )
    parser.add_argument(
        "--fast", action="store_true", help="take the first identity instead of searching one: quicker, less private"
    )
    parser.add_argument(
        "--same-person", action="store_true", help="the inputs show one person, who gets one identity in all of them"
    )
    parser.add_argument("--identity", type=Path, metavar="FILE", help="show this saved identity")
    parser.add_argument(
        "--pseudonyms",
        type=Path,
        metavar="KEY",
        help=(
            "give everybody the same new identity in all pictures, now and later, under this "
            "key file (.key); it is made when missing, and a ledger beside it"
        ),
    )
    parser.add_argument(
        "--people",
        type=Path,
        metavar="PLACE",
        help="a bank folder, or a sampler of faceveil train lds, that new identities come from",
    )
    parser.add_argument(
        "--swapper", type=Path, metavar="FILE", help="inswapper_128.onnx for --method inswapper, which you have"
    )
    parser.add_argument(
        "--recogniser", type=Path, metavar="FILE", help="w600k_r50.onnx for --method inswapper, which you have"
    )
    parser.add_argument(
        "--save-identity", type=Path, metavar="FILE", help="keep the identity that was shown, to use it again"
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was done to each face as JSON")
    parser.add_argument("--preview", type=Path, metavar="SHEET", help="write originals and results side by side (.png)")


def _anonymize(options: argparse.Namespace) -> int:
    from ..jobs.folder import plan_tasks

    # Nothing is loaded before the names and numbers are known to be right.
    settings = _settings(options)
    tasks = plan_tasks(options.input, options.output)
    if options.preview and len(tasks) > 1 and options.preview.suffix.lower() != ".png":
        raise InputError(f"the preview {options.preview.name} must end in .png")
    if options.plan and len(tasks) > 1:
        raise InputError(f"a plan belongs to one picture, but {len(tasks)} are given")
    if (options.identity or options.pseudonyms) and settings.method not in ("appearance", "inswapper"):
        raise InputError(
            f"--identity and --pseudonyms belong to the methods appearance and inswapper; {settings.method} shows no"
            " given identity"
        )
    if bool(options.identity) + bool(options.pseudonyms) + options.same_person > 1:
        raise InputError("--identity, --pseudonyms and --same-person exclude each other; choose one")
    runner = _Runner(options, settings)
    return runner.run(tasks)


class _Runner:
    """One ``anonymize`` command."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        from ..faces.face import Faces

        self.options, self.settings = options, settings
        self.rows: list[dict[str, Any]] = []
        self.sheet_rows: list[Any] = []
        self.method: Any = None
        self.identity: Any = None
        self.faces = Faces.from_json(_text(options.plan)) if options.plan else None
        if settings.method == "appearance":
            from ..methods.appearance.method import AppearanceMethod

            self.method = AppearanceMethod(trials=settings.trials)
        elif settings.method == "referencenet":
            self.method = _open_referencenet(options)
        elif settings.method == "inswapper":
            self.method = _open_inswapper(options)
        if options.identity:
            self.identity = _open_identity(options.identity, self.method)
        elif options.pseudonyms:
            self.identity = _open_pseudonyms(options.pseudonyms, _people(options.people))

    def run(self, tasks: list[Task]) -> int:
        from ..images import write_whole
        from ..jobs.folder import run_tasks

        if self.settings.same_person and self.identity is None:
            self.identity = self._shared_identity(tasks)
        with progress_bar() as progress:
            done = run_tasks(tasks, self.settings, progress, self._finished, self.method, self.identity, self.faces)
        if self.options.report:
            write_whole(self.options.report, json.dumps(self.rows, indent=2).encode())
        if self.options.preview and self.sheet_rows:
            from ..evaluate.sheet import stack_rows

            write_whole(self.options.preview, stack_rows(self.sheet_rows))
        failed = [d for d in done if d.error is not None]
        for d in failed:
            say(f"failed: {d.task.source.name}: {d.error}", error=True)
        if len(done) > 1:
            say(f"{len(done) - len(failed)} of {len(done)} pictures done")
        if any(isinstance(d.error, PolicyStop) or (d.report is not None and not d.report.safe) for d in done):
            return UNPROTECTED
        return SOME_FAILED if failed else OK

    def _shared_identity(self, tasks: list[Task]) -> Any:
        from ..images import load_picture
        from ..jobs.photo import search_identity

        pictures = []
        for task in tasks[:MOST_SHARED]:
            # A bad file is reported when its turn comes.
            with suppress(FaceVeilError):
                pictures.append(load_picture(task.source))
        return search_identity(pictures, self.settings, self.method)

    def _finished(self, task: Task, result: Result) -> None:
        say(f"{task.target}: {result.report.summary()}")
        for row in result.report.faces:
            if row.reason and row.outcome != "kept":
                say(f"  face {row.number} {row.outcome}: {row.reason}")
        for note in result.report.notes:
            say(f"  {note}")
        # Numbered by order: a report must not carry the names of source files.
        self.rows.append({"picture": len(self.rows), **json.loads(result.report.to_json())})
        if self.options.preview:
            from ..evaluate.sheet import preview_rows
            from ..images import load_picture

            self.sheet_rows += preview_rows(load_picture(task.source).pixels, result)
        if self.options.save_identity and result.identity is not None:
            _save_identity(self.options.save_identity, result.identity)


def _save_identity(path: Path, identity: Any) -> None:
    from ..identity.identity import Identity, save_identity
    from ..methods.appearance.persona import Persona, save_persona

    if isinstance(identity, Identity):
        save_identity(path, identity)
    elif isinstance(identity, Persona):
        save_persona(path, identity)


def _open_referencenet(options: argparse.Namespace) -> Any:
    import torch

    from ..methods.referencenet.files import open_pipeline
    from ..methods.referencenet.method import ReferenceNetMethod

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    models: Path = options.models
    pipeline = open_pipeline(
        models / "faceveil" / "face-anon-simple",
        options.vae or models / "vae",
        options.image_encoder or models / "clip_vision",
        device,
        torch.float32 if device == "cpu" else torch.float16,
    )
    return ReferenceNetMethod(pipeline, options.steps)


def _open_inswapper(options: argparse.Namespace) -> Any:
    from ..identity.arcface import ArcFace
    from ..methods.inswapper.method import InSwapperMethod
    from ..methods.inswapper.network import InSwapper

    if options.swapper is None or options.recogniser is None:
        raise InputError(
            "the method inswapper needs --swapper inswapper_128.onnx and --recogniser w600k_r50.onnx, which you have"
        )
    return InSwapperMethod(InSwapper(options.swapper), ArcFace(options.recogniser), _people(options.people))


def _people(place: Path | None) -> Any:
    """A bank, a sampler, or None."""
    from ..identity.bank import load_bank
    from ..identity.lds import load_sampler

    if place is None:
        return None
    return load_sampler(place) if place.suffix == ".safetensors" else load_bank(place)


def _open_identity(path: Path, method: Any) -> Any:
    """What ``--save-identity`` or the node Save Identity wrote."""
    from ..identity.identity import FORMAT, load_identity
    from ..methods.appearance.method import AppearanceMethod
    from ..methods.appearance.persona import load_persona
    from ..stored import read_safetensors

    _, metadata = read_safetensors(path, "identity file", "check its name and folder, or save it again", InputError)
    if metadata.get("format") != FORMAT and isinstance(method, AppearanceMethod):
        return load_persona(path, method.model)
    return load_identity(path)


def _open_pseudonyms(key: Path, people: Any) -> Any:
    from ..identity.bank import Bank
    from ..identity.pseudonym import Pseudonyms

    if people is not None and not isinstance(people, Bank):
        raise InputError(
            "--pseudonyms take their people from a bank, or draw them when --people is left out; a sampler does not fit"
        )
    return Pseudonyms.open(key.parent, key.stem, bank=people)


def _settings(options: argparse.Namespace) -> Settings:
    from dataclasses import replace

    from ..faces.parse import FaceParser
    from ..faces.redact import SHAPES
    from ..faces.select import Selection
    from ..images import load_picture
    from ..jobs.people import person_in
    from ..jobs.photo import Settings
    from ..jobs.policy import Policy

    if options.shape not in SHAPES:
        raise InputError(f"shape {options.shape!r} is not one of {', '.join(SHAPES)}")
    policy = Policy.always(options.policy)
    if options.no_face:
        policy = replace(policy, no_face=options.no_face)
    settings = Settings(
        method=options.method,
        strength=options.strength,
        seed=options.seed,
        selection=Selection(options.faces, options.min_size),
        policy=policy,
        shape=options.shape,
        sticker=_sticker(options.sticker),
        trials=1 if options.fast else Settings.trials,
        same_person=options.same_person,
        parser=FaceParser(options.parser_file) if options.parser_file else None,
    )
    include, exclude = (
        tuple(person_in(load_picture(p)) for p in paths) for paths in (options.include, options.exclude)
    )
    return replace(settings, include=include, exclude=exclude)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text; check its name and folder") from None


def _sticker(path: Path | None) -> Tensor | None:
    import torch

    from ..images import load_picture

    if path is None:
        return None
    picture = load_picture(path)
    alpha = torch.ones_like(picture.pixels[:, :1]) if picture.alpha is None else picture.alpha
    return torch.cat([picture.pixels, alpha], 1)
