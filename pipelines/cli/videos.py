"""Flags of videos, and what they describe; commands ``plan`` and ``render``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..imaging.formats import VIDEO_CODECS, VIDEO_SUFFIXES
from .terminal import OK, add_overwrite, command, progress_bar, say

if TYPE_CHECKING:
    from ..core.progress import Progress
    from ..imaging.video import VideoSource
    from ..jobs.video.job import VideoJob
    from ..jobs.video.plan import VideoPlan
    from .anonymize_file import Opened

PLAN = ".json"


def add_video_flags(group: Any) -> None:
    """Add the flags of a run that apply to videos."""
    group.add_argument("--start", type=seconds, metavar="TIME", help="first moment, in seconds or as MM:SS or HH:MM:SS")
    group.add_argument("--end", type=seconds, metavar="TIME", help="last moment, likewise")
    group.add_argument(
        "--video-codec",
        choices=VIDEO_CODECS,
        default="auto",
        help="of the written video; auto is the source's where it can be written, else h264; ffv1 is lossless"
        " (default: %(default)s)",
    )
    group.add_argument("--hardware", action="store_true", help="use the encoder of a graphics chip where there is one")


def add_commands(commands: Any) -> None:
    """Add ``plan``; ``render`` shares the flags of ``anonymize``, which adds it."""
    plan = command(commands, "plan", _plan, "find the faces of an image or video and write them as an editable plan")
    plan.add_argument("input", type=Path)
    plan.add_argument("-o", "--output", type=Path, required=True, help="the plan (.json)")
    plan.add_argument("--start", type=seconds, metavar="TIME", help="first moment of a video")
    plan.add_argument("--end", type=seconds, metavar="TIME", help="last moment of a video")
    from .terminal import add_sensitivity

    add_sensitivity(plan)
    add_overwrite(plan)


def seconds(text: str) -> float:
    """``12.5``, ``1:30`` or ``1:02:03.5`` in seconds, for ``argparse``."""
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is no time; give seconds, MM:SS or HH:MM:SS")
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def is_video(path: Path) -> bool:
    """Whether a file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def open_source(path: Path, options: argparse.Namespace, plan: VideoPlan | None = None) -> VideoSource:
    """The video that the flags name, with its span, or that of its plan.

    Raises:
        InputError: the video cannot be read, or the span is empty.
    """
    from ..imaging.video import Span, VideoSource

    span = Span(options.start or 0.0, options.end)
    if plan is not None:
        if not span.whole:
            raise InputError("--start and --end belong to the command that makes the plan; plan this part again")
        span = plan.span
    return VideoSource(path, span)


def job_from(opened: Opened) -> VideoJob:
    """The job that the flags describe."""
    from ..imaging.video_write import VideoFormat
    from ..jobs.video.job import VideoJob
    from .anonymize import method_options

    options = opened.options
    return VideoJob(
        settings=opened.settings,
        format=VideoFormat(options.video_codec, options.hardware),
        options=method_options(options),
        method=opened.method,
        identity=opened.identity,
        recognizers=opened.recognizers,
        verifiers=tuple(options.verify),
        processes=options.jobs,
        workers=opened.workers,
    )


def plan_from(options: argparse.Namespace, source: Path) -> VideoPlan | None:
    """The plan of a video that the flags name."""
    from ..jobs.video.plan import read_plan

    return read_plan(options.plan) if options.plan and is_video(source) else None


def _plan(options: argparse.Namespace) -> int:
    from ..core.files import check_outputs, write_whole

    if options.output.suffix.lower() != PLAN:
        raise InputError(f"the plan {options.output.name} must end in {PLAN}")
    check_outputs([options.output], [options.input], options.overwrite)
    with progress_bar() as progress:
        text = _planned(options, progress)
    write_whole(options.output, text.encode())
    say(f"{options.output}: edit it, then run: faceveil render {options.output} {options.input}")
    return OK


def _planned(options: argparse.Namespace, progress: Progress) -> str:
    if not is_video(options.input):
        from ..faces.transparency import detect_in_transparent
        from ..imaging.load import load_image

        image = load_image(options.input)
        faces = detect_in_transparent(image.pixels, image.alpha, progress=progress, sensitivity=options.sensitivity)
        say(f"{len(faces)} face{'s' * (len(faces) != 1)}")
        return faces.to_json()
    from ..jobs.settings import Settings
    from ..jobs.video.job import VideoJob

    source = open_source(options.input, options)
    plan, _ = VideoJob(Settings(sensitivity=options.sensitivity)).plan(source, progress)
    for line in plan.listing():
        say(line)
    return plan.to_json()


def add_render(commands: Any, add_flags: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add ``render``, with the flags of ``anonymize``."""
    parser = command(commands, "render", _render, "treat the faces of a plan that faceveil plan wrote")
    parser.add_argument("plan", type=Path)
    parser.add_argument("input", help="the image or video that was planned")
    add_flags(parser)


def _render(options: argparse.Namespace) -> int:
    from .anonymize import anonymize

    options.input = [options.input]
    return anonymize(options)
