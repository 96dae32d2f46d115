"""The command line: ``faceveil anonymize photo.jpg``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FaceVeilError, InputError, PolicyStop

if TYPE_CHECKING:
    from torch import Tensor

    from .jobs.folder import Task
    from .jobs.photo import Result, Settings

OK, SOME_FAILED, USAGE, UNPROTECTED, INTERRUPTED = 0, 1, 2, 3, 130
MOST_SHARED = 6
"""Pictures that a shared identity is searched over; more cost time and change little."""
_EXIT_CODES = "exit codes: 0 done, 1 an input or output failed, 2 wrong usage, 3 a face is not protected, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except PolicyStop as error:
        _say(f"stopped: {error}", error=True)
        return UNPROTECTED
    except FaceVeilError as error:
        _say(f"error: {error}", error=True)
        return SOME_FAILED
    except KeyboardInterrupt:
        _say("interrupted; finished files are whole, the current one was not written", error=True)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="faceveil", description="Take a person's identity out of photos and keep everything else.", epilog=_EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, epilog=_EXIT_CODES)
        sub.set_defaults(run=run)
        return sub

    _anonymize_options(command("anonymize", _anonymize, "replace the faces in photos"))
    detect = command("detect", _detect, "list the faces of a picture, or write them as an editable plan")
    detect.add_argument("input", type=Path)
    detect.add_argument("-o", "--output", type=Path, help="write the plan (.json) or numbered boxes (.png) here")
    detect.add_argument("--detector", default="auto", help="auto, centerface, dlib, insightface, uniface (default: auto)")
    detect.add_argument("--detector-file", type=Path, help="model file of an insightface or uniface detector")
    detect.add_argument("--landmarks-file", type=Path, help="1k3d68.onnx or 2d106det.onnx of insightface, instead of dlib's landmarks")
    compare = command("compare", _compare, "tell whether two pictures show the same person")
    compare.add_argument("a", type=Path)
    compare.add_argument("b", type=Path)
    command("doctor", _doctor, "check that everything needed is there")
    sample = command("sample", _sample, "write a public-domain portrait to try things on")
    sample.add_argument("output", type=Path, nargs="?", default=Path("astronaut.png"))
    weights = command("weights", _weights, "list weights with their licences, or download one by name")
    weights.add_argument("name", nargs="?", help="a name from the list; nothing is downloaded without it")
    weights.add_argument("--to", type=Path, default=Path("models"), help="models folder (default: models)")
    weights.add_argument("--mirror", help="address to use in place of the card's")
    train = commands.add_parser("train", help="train a method's weights", description="Train a method's weights.", epilog=_EXIT_CODES)
    methods = train.add_subparsers(required=True, metavar="METHOD")
    appearance = methods.add_parser("appearance", help="the embedded default, from a folder of portraits", epilog=_EXIT_CODES)
    appearance.set_defaults(run=_train_appearance)
    appearance.add_argument("--images", type=Path, required=True, help="folder of portraits, one person each")
    appearance.add_argument("-o", "--output", type=Path, default=Path("appearance.safetensors"))
    appearance.add_argument("--workers", type=int)
    reference = methods.add_parser("referencenet", help="Face Anonymization Made Simple, from triplets", epilog=_EXIT_CODES)
    reference.set_defaults(run=_train_referencenet)
    reference.add_argument("--config", type=Path, required=True, help="TOML file with the settings of faceveil.pipelines.methods.referencenet.training.Config")
    reference.add_argument("--resume", action="store_true", help="go on from the latest saved state")
    lds = methods.add_parser("lds", help="the identity sampler of DiffDeID, from a folder of portraits", epilog=_EXIT_CODES)
    lds.set_defaults(run=_train_lds)
    lds.add_argument("--images", type=Path, required=True, help="folder of portraits, one person each")
    lds.add_argument("--space", default="dlib", help="dlib, or appearance-shape for the built-in 3D shape model (default: dlib)")
    lds.add_argument("-o", "--output", type=Path, help="default: lds_SPACE.safetensors")
    lds.add_argument("--steps", type=int, default=3000)
    lds.add_argument("--seed", type=int, default=0)
    lds.add_argument("--workers", type=int)
    triplets = command("triplets", _triplets, "make training triplets from a folder with one sub-folder a person")
    triplets.add_argument("people", type=Path)
    triplets.add_argument("-o", "--output", type=Path, required=True, help="folder for the pictures and triplets.jsonl")
    triplets.add_argument("--swapper", type=Path, required=True, help="inswapper_128.onnx, which you have")
    triplets.add_argument("--recogniser", type=Path, required=True, help="w600k_r50.onnx, which you have")
    triplets.add_argument("--seed", type=int, default=0)
    return parser


def _anonymize_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", help="pictures, folders or globs")
    parser.add_argument("-o", "--output", help="a file, or a folder (default: NAME_veiled beside the input)")
    parser.add_argument("--method", default="appearance", help="appearance (a new face), referencenet, solid, pixelate, blur, sticker (default: appearance)")
    parser.add_argument("--models", type=Path, default=Path("models"), help="models folder for referencenet (default: models)")
    parser.add_argument("--vae", type=Path, help="folder or file of a Stable Diffusion 1 or 2 VAE (default: MODELS/vae)")
    parser.add_argument("--image-encoder", type=Path, help="folder of CLIP ViT-L/14 (default: MODELS/clip_vision)")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps of referencenet (default: 25)")
    parser.add_argument("--strength", type=float, default=1.0, help="0 keeps the person, 1 is recommended, up to 1.5 (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed repeats a result (default: 0)")
    parser.add_argument("--faces", default="all", help="all, largest, smallest, left, right, or numbers such as 0,2 (default: all)")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="work on the faces of this plan, written by: faceveil detect -o plan.json")
    parser.add_argument("--min-size", type=float, default=0.0, help="leave faces alone that are smaller than this many pixels")
    parser.add_argument("--include", type=Path, action="append", default=[], metavar="REF", help="only the person in this photo (repeatable)")
    parser.add_argument("--exclude", type=Path, action="append", default=[], metavar="REF", help="never the person in this photo (repeatable)")
    parser.add_argument("--policy", default="redact", help="what happens to faces that cannot be replaced safely: redact, stop, pass (default: redact)")
    parser.add_argument("--no-face", help="the same for pictures without a face (default: as --policy; redact covers the whole picture)")
    parser.add_argument("--sticker", type=Path, metavar="FILE", help="a picture with transparency for --method sticker")
    parser.add_argument("--shape", default="ellipse", help="of covers: ellipse, box, hull (default: ellipse)")
    parser.add_argument("--parser-file", type=Path, metavar="FILE", help="a BiSeNet face parser (.onnx), so that what covers a face stays")
    parser.add_argument("--fast", action="store_true", help="take the first identity instead of searching one: quicker, less private")
    parser.add_argument("--same-person", action="store_true", help="the inputs show one person, who gets one identity in all of them")
    parser.add_argument("--identity", type=Path, metavar="FILE", help="show this saved identity")
    parser.add_argument("--save-identity", type=Path, metavar="FILE", help="keep the identity that was shown, to use it again")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write what was done to each face as JSON")
    parser.add_argument("--preview", type=Path, metavar="SHEET", help="write originals and results side by side (.png)")


def _anonymize(options: argparse.Namespace) -> int:
    from .jobs.folder import plan_tasks

    # Nothing is loaded before the names and numbers are known to be right.
    settings = _settings(options)
    tasks = plan_tasks(options.input, options.output)
    if options.preview and len(tasks) > 1 and options.preview.suffix.lower() != ".png":
        raise InputError(f"the preview {options.preview.name} must end in .png")
    if options.plan and len(tasks) > 1:
        raise InputError(f"a plan belongs to one picture, but {len(tasks)} are given")
    if options.identity and settings.method != "appearance":
        raise InputError(f"--identity belongs to the method appearance; {settings.method} shows none")
    runner = _Runner(options, settings)
    return runner.run(tasks)


class _Runner:
    """One ``anonymize`` command."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        from .faces.face import Faces
        from .methods.appearance.persona import load_persona

        self.options, self.settings = options, settings
        self.rows: list[dict[str, Any]] = []
        self.sheet_rows: list[Any] = []
        self.method: Any = None
        self.identity: Any = None
        self.faces = Faces.from_json(_text(options.plan)) if options.plan else None
        if settings.method == "appearance":
            from .methods.appearance.method import AppearanceMethod

            self.method = AppearanceMethod(trials=settings.trials)
            if options.identity:
                self.identity = load_persona(options.identity, self.method.model)
        elif settings.method == "referencenet":
            self.method = _open_referencenet(options)

    def run(self, tasks: list[Task]) -> int:
        from .images import write_whole
        from .jobs.folder import run_tasks

        if self.settings.same_person and self.identity is None:
            self.identity = self._shared_identity(tasks)
        with _progress() as progress:
            done = run_tasks(tasks, self.settings, progress, self._finished, self.method, self.identity, self.faces)
        if self.options.report:
            write_whole(self.options.report, json.dumps(self.rows, indent=2).encode())
        if self.options.preview and self.sheet_rows:
            from .evaluate.sheet import stack_rows

            write_whole(self.options.preview, stack_rows(self.sheet_rows))
        failed = [d for d in done if d.error is not None]
        for d in failed:
            _say(f"failed: {d.task.source.name}: {d.error}", error=True)
        if len(done) > 1:
            _say(f"{len(done) - len(failed)} of {len(done)} pictures done")
        if any(isinstance(d.error, PolicyStop) or (d.report is not None and not d.report.safe) for d in done):
            return UNPROTECTED
        return SOME_FAILED if failed else OK

    def _shared_identity(self, tasks: list[Task]) -> Any:
        from .images import load_picture
        from .jobs.photo import search_identity

        pictures = []
        for task in tasks[:MOST_SHARED]:
            # A bad file is reported when its turn comes.
            with suppress(FaceVeilError):
                pictures.append(load_picture(task.source))
        return search_identity(pictures, self.settings, self.method)

    def _finished(self, task: Task, result: Result) -> None:
        _say(f"{task.target}: {result.report.summary()}")
        for row in result.report.faces:
            if row.reason and row.outcome != "kept":
                _say(f"  face {row.number} {row.outcome}: {row.reason}")
        for note in result.report.notes:
            _say(f"  {note}")
        # Numbered by order: a report must not carry the names of source files.
        self.rows.append({"picture": len(self.rows), **json.loads(result.report.to_json())})
        if self.options.preview:
            from .evaluate.sheet import preview_rows
            from .images import load_picture

            self.sheet_rows += preview_rows(load_picture(task.source).pixels, result)
        if self.options.save_identity and self.settings.method == "appearance" and result.identity is not None:
            from .methods.appearance.persona import save_persona

            save_persona(self.options.save_identity, result.identity)


def _open_referencenet(options: argparse.Namespace) -> Any:
    import torch

    from .methods.referencenet.files import open_pipeline
    from .methods.referencenet.method import ReferenceNetMethod

    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    models: Path = options.models
    pipeline = open_pipeline(
        models / "faceveil" / "face-anon-simple", options.vae or models / "vae", options.image_encoder or models / "clip_vision",
        device, torch.float32 if device == "cpu" else torch.float16,
    )
    return ReferenceNetMethod(pipeline, options.steps)


def _settings(options: argparse.Namespace) -> Settings:
    from dataclasses import replace

    from .faces.parse import FaceParser
    from .faces.redact import SHAPES
    from .faces.select import Selection
    from .images import load_picture
    from .jobs.people import person_in
    from .jobs.photo import Settings
    from .jobs.policy import Policy

    if options.shape not in SHAPES:
        raise InputError(f"shape {options.shape!r} is not one of {', '.join(SHAPES)}")
    policy = Policy.always(options.policy)
    if options.no_face:
        policy = replace(policy, no_face=options.no_face)
    settings = Settings(
        method=options.method, strength=options.strength, seed=options.seed, selection=Selection(options.faces, options.min_size),
        policy=policy, shape=options.shape, sticker=_sticker(options.sticker), trials=1 if options.fast else Settings.trials, same_person=options.same_person,
        parser=FaceParser(options.parser_file) if options.parser_file else None,
    )
    include, exclude = (tuple(person_in(load_picture(p)) for p in paths) for paths in (options.include, options.exclude))
    return replace(settings, include=include, exclude=exclude)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path.name} cannot be read as text; check its name and folder") from None


def _sticker(path: Path | None) -> Tensor | None:
    import torch

    from .images import load_picture

    if path is None:
        return None
    picture = load_picture(path)
    alpha = torch.ones_like(picture.pixels[:, :1]) if picture.alpha is None else picture.alpha
    return torch.cat([picture.pixels, alpha], 1)


def _detect(options: argparse.Namespace) -> int:
    import io

    from .evaluate.sheet import draw_faces
    from .faces.detect import detect_faces, open_detector
    from .faces.external import ExternalLandmarks
    from .images import load_picture, write_whole

    picture = load_picture(options.input)
    landmarker = ExternalLandmarks(options.landmarks_file) if options.landmarks_file else None
    faces = detect_faces(picture.pixels, open_detector(options.detector, options.detector_file), landmarker=landmarker)
    for number, face in enumerate(faces):
        x1, y1, x2, y2 = (round(v) for v in face.box)
        _say(f"{number}: {x2 - x1} x {y2 - y1} px at ({x1}, {y1}), score {face.score:.2f}" + ("" if face.landmarks else ", no landmarks"))
    _say(f"{len(faces)} face{'s' if len(faces) != 1 else ''}")
    if options.output and options.output.suffix.lower() == ".json":
        write_whole(options.output, faces.to_json().encode())
    elif options.output:
        buffer = io.BytesIO()
        draw_faces(picture.pixels, faces).save(buffer, "PNG")
        write_whole(options.output, buffer.getvalue())
    return OK


def _compare(options: argparse.Namespace) -> int:
    from .identity.recognise import default_recogniser, judge
    from .images import load_picture
    from .jobs.people import person_in

    recogniser = default_recogniser()
    a, b = (person_in(load_picture(path)) for path in (options.a, options.b))
    verdict = judge(recogniser, a, b)
    _say(f"{recogniser.name}: distance {verdict.distance:.2f}, same person below {verdict.threshold:.2f}: {verdict.words}")
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import examine

    findings = examine()
    for finding in findings:
        _say(f"{'ok     ' if finding.ok else 'missing' if finding.needed else 'without'} {finding.what}: {finding.text}")
    return OK if all(f.ok or not f.needed for f in findings) else SOME_FAILED


def _sample(options: argparse.Namespace) -> int:
    from .images import picture_from, save_picture
    from .sample import astronaut

    save_picture(picture_from(astronaut()), options.output)
    _say(f"{options.output}: astronaut Eileen Collins, NASA, public domain")
    return OK


def _weights(options: argparse.Namespace) -> int:
    from ..weights.catalogue import card, cards
    from ..weights.fetch import fetch

    if options.name is None:
        for c in cards():
            _say(f"{c.name}: {c.file}, {c.megabytes:.1f} MB, {c.licence}; {c.purpose}")
        return OK
    with _progress() as progress:
        path = fetch(card(options.name), options.to, consent=True, mirror=options.mirror, progress=progress)
    _say(f"{path}")
    return OK


def _train_appearance(options: argparse.Namespace) -> int:
    from .methods.appearance.training import train

    with _progress() as progress:
        facts = train(options.images, options.output, options.workers, progress)
    _say(f"{options.output}: {json.dumps(facts)}")
    return OK


def _train_lds(options: argparse.Namespace) -> int:
    from .jobs.samplers import train_on_folder

    output = options.output or Path(f"lds_{options.space}.safetensors")
    with _progress() as progress:
        _, count = train_on_folder(options.images, options.space, output, options.steps, options.seed, options.workers, progress)
    _say(f"{output}: learned from {count} faces")
    return OK


def _train_referencenet(options: argparse.Namespace) -> int:
    try:
        from .methods.referencenet.training import read_config, train

        config = read_config(options.config)
        with _progress() as progress:
            facts = train(config, options.resume, progress)
    except ModuleNotFoundError as error:
        raise InputError(f"training needs the package {error.name}; install it with: pip install 'faceveil[train]'") from None
    _say(f"{config.output}: {json.dumps(facts)}")
    return OK


def _triplets(options: argparse.Namespace) -> int:
    from .methods.inswapper.network import PictureSwapper
    from .methods.referencenet.triplets import build_triplets

    if not options.people.is_dir():
        raise InputError(f"{options.people.name} is not a folder; give one with a sub-folder for each person")
    with _progress() as progress:
        made = build_triplets(options.people, options.output, PictureSwapper(options.swapper, options.recogniser), options.seed, progress)
    _say(f"{options.output / 'triplets.jsonl'}: {len(made)} triplets")
    return OK


def _say(text: str, error: bool = False) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text + "\n")
    stream.flush()


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on a terminal, nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
