"""Commands ``detect``, ``compare``, ``doctor``, ``sample`` and ``weights``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..faces.names import DETECTORS
from ..methods.registry import method_specs
from .terminal import OK, SOME_FAILED, add_overwrite, add_sensitivity, command, progress_bar, say

PLAN, BOXES = ".json", ".png"
"""Suffixes of what ``detect`` writes."""


def add_commands(commands: Any) -> None:
    detect = command(commands, "detect", _detect, "list the faces of an image, or write them as an editable plan")
    detect.add_argument("input", type=Path)
    detect.add_argument(
        "-o", "--output", type=Path, help="write the plan (.json) or an image with numbered boxes (.png)"
    )
    detect.add_argument(
        "--detector", choices=DETECTORS, default="auto", help="what finds the faces (default: %(default)s)"
    )
    detect.add_argument("--detector-file", type=Path, help="model file of an insightface or uniface detector")
    add_sensitivity(detect)
    detect.add_argument(
        "--landmarks-file",
        type=Path,
        help="landmark model of insightface (1k3d68.onnx or 2d106det.onnx), instead of dlib",
    )
    add_overwrite(detect)
    compare = command(commands, "compare", _compare, "tell whether two images show the same person")
    compare.add_argument("a", type=Path)
    compare.add_argument("b", type=Path)
    compare.add_argument(
        "--recognizer",
        default="dlib",
        metavar="KIND:FILE",
        help="use another recognizer than dlib, from a file that you have",
    )
    command(commands, "doctor", _doctor, "check the installation")
    sample = command(commands, "sample", _sample, "write a public-domain portrait for a first try")
    sample.add_argument("output", type=Path, nargs="?", default=Path("astronaut.png"))
    add_overwrite(sample)
    weights = command(commands, "weights", _weights, "list weights with their licenses, or download one by name")
    weights.add_argument("name", nargs="?", help="name from the list; omit it to list the weights without a download")
    weights.add_argument("--to", type=Path, default=Path("models"), help="models folder (default: models)")
    weights.add_argument("--mirror", help="download from this URL instead of the one in the list")


def _detect(options: argparse.Namespace) -> int:
    import io

    from ..core.files import check_outputs, write_whole
    from ..faces.detectors import open_detector
    from ..faces.external import ExternalLandmarks
    from ..faces.transparency import detect_in_transparent
    from ..imaging.load import load_image
    from ..viz.sheets import draw_faces

    if options.output and options.output.suffix.lower() not in (PLAN, BOXES):
        raise InputError(f"{options.output.name} must end in {PLAN} (a plan) or {BOXES} (an image with boxes)")
    if options.output:
        models = [p for p in (options.detector_file, options.landmarks_file) if p is not None]
        check_outputs([options.output], [options.input, *models], options.overwrite)
    image = load_image(options.input)
    landmarker = ExternalLandmarks(options.landmarks_file) if options.landmarks_file else None
    detector = open_detector(options.detector, options.detector_file)
    faces = detect_in_transparent(
        image.pixels, image.alpha, detector, sensitivity=options.sensitivity, landmarker=landmarker
    )
    for number, face in enumerate(faces):
        x1, y1, x2, y2 = (round(v) for v in face.box)
        say(
            f"{number}: {x2 - x1} x {y2 - y1} px at ({x1}, {y1}), score {face.score:.2f}"
            + ("" if face.landmarks else ", no landmarks")
        )
    say(f"{len(faces)} face{'s' if len(faces) != 1 else ''}")
    if options.output and options.output.suffix.lower() == PLAN:
        write_whole(options.output, faces.to_json().encode())
    elif options.output:
        buffer = io.BytesIO()
        draw_faces(image.pixels, faces).save(buffer, "PNG")
        write_whole(options.output, buffer.getvalue())
    return OK


def _compare(options: argparse.Namespace) -> int:
    from ..identity.compare import recognizer_named
    from ..imaging.load import load_image
    from ..jobs.people import embed_reference
    from ..recognition.verdict import judge

    images = [load_image(path) for path in (options.a, options.b)]
    recognizer = recognizer_named(options.recognizer)
    verdict = judge(recognizer, *(embed_reference(image, recognizer=recognizer) for image in images))
    limit = f"same person below {verdict.threshold:.2f}"
    say(f"{recognizer.name}: distance {verdict.distance:.2f}, {limit}: {verdict.words}")
    return OK


def _doctor(options: argparse.Namespace) -> int:
    from .doctor import run_checks

    findings = run_checks()
    for finding in findings:
        status = "ok" if finding.ok else "missing" if finding.required else "absent"
        say(f"{status:7} {finding.name}: {finding.text}")
    return OK if all(f.ok or not f.required for f in findings) else SOME_FAILED


def _sample(options: argparse.Namespace) -> int:
    from ..core.files import check_outputs
    from ..imaging.image import as_image
    from ..imaging.samples import astronaut
    from ..imaging.save import encode_for, save_image

    image = as_image(astronaut())
    # The same portrait from an earlier run is no file of the user.
    if not options.output.is_file() or options.output.read_bytes() != encode_for(image, options.output):
        check_outputs([options.output], [], options.overwrite)
        save_image(image, options.output)
    say(f"{options.output}: astronaut Eileen Collins, NASA, public domain")
    return OK


def _weights(options: argparse.Namespace) -> int:
    from ...weights.catalog import card, cards
    from ...weights.fetch import fetch

    if options.name is None:
        specs = method_specs().values()
        for c in cards():
            users = ", ".join(spec.name for spec in specs if c.name in spec.needs)
            size = f"{c.megabytes:.1f} MB" if c.bytes else "size not listed"
            needed = f"; needed by the method {users}" if users else ""
            say(f"{c.name}: {c.file}, {size}, {c.license}; {c.purpose}{needed}")
        return OK
    with progress_bar() as progress:
        path = fetch(card(options.name), options.to, consent=True, mirror=options.mirror, progress=progress)
    say(f"{path}")
    return OK
