"""Nodes for videos: veil or redact people while the frames stream through, and save without tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui

from ...pipelines.faces.names import REDACTION_SHAPES, REDACTION_STYLES, SENSITIVITY_NAMES
from ...pipelines.imaging.formats import VIDEO_CODECS
from ...pipelines.jobs.policy import Policy
from ..convert import Bar, bar, image_to_pixels
from ..inputs import seed_input, strength_input
from ..options import chosen_method, method_input, method_stamp
from ..schema import schema
from ..sockets import ROOT, IdentitySocket, RecognizerSocket
from .policy import no_face_input, policy_of, summary_output, unsafe_face_input

if TYPE_CHECKING:
    from ...pipelines.imaging.video import VideoSource
    from ...pipelines.jobs.settings import GivenIdentity
    from ...pipelines.jobs.video.job import VideoJob
    from ...pipelines.jobs.video.report import VideoReport
    from ...pipelines.recognition.base import FaceRecognizer

_REDACTIONS = [style for style in REDACTION_STYLES if style != "sticker"]
_CONTAINERS = {"mp4": ".mp4", "mkv": ".mkv", "webm": ".webm", "mov": ".mov"}


class VeilVideo(io.ComfyNode):
    HELP = """
    The node reads the video frame by frame, so a long video needs no more memory than a short one. In a first pass it
    finds the faces and follows them; in a second pass each person gets one new face in all frames. Sound, subtitles,
    chapters, frame times and colors stay; tags such as place, device and title do not.

    **Nothing slips through.** A face that is lost for a moment is followed by its motion and redacted there. So is a
    face that cannot be replaced in a frame, or that a recognizer still matches. A person who leaves and comes back
    keeps the new face, if dlib's recognizer and ours know them again.

    **Choose people.** *only_person* and *not_person* take a photo. Faces that nobody knows are always treated.

    Save the result with **Save De-identified Video**: core's *Save Video* adds the workflow to the file.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_VeilVideo",
            search_aliases=["anonymize video", "de-identify video", "video face replace", "deface video"],
            display_name="Veil Video",
            category=ROOT,
            description="Anonymize a video: one new face for each person in all frames; sound and frame times stay.",
            inputs=[
                io.Video.Input("video", tooltip="From Load Video. A trimmed video stays trimmed."),
                strength_input("changes more and looks less natural"),
                seed_input(),
                unsafe_face_input(),
                no_face_input(),
                _sensitivity_input(),
                _codec_input(),
                method_input(),
                *_people_inputs(),
                IdentitySocket.Input(
                    "identity", optional=True, tooltip="Show this identity on all people, or pseudonyms."
                ),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="Further recognizer for the check, from Load Recognizer."
                ),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, method: str | Mapping[str, Any] | None = None, **_: object) -> str:
        return method_stamp(method)

    @classmethod
    def execute(
        cls,
        video: Any,
        strength: float,
        seed: int,
        unsafe_face: str,
        no_face: str,
        sensitivity: str,
        codec: str,
        method: str | Mapping[str, Any],
        only_person: torch.Tensor | None = None,
        not_person: torch.Tensor | None = None,
        identity: GivenIdentity | None = None,
        recognizer: FaceRecognizer | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.imaging.video_write import VideoFormat
        from ...pipelines.jobs.settings import Settings
        from ...pipelines.jobs.video.job import VideoJob
        from ...pipelines.methods.registry import open_method

        name, options = chosen_method(method)
        settings = Settings(
            method=name,
            strength=strength,
            seed=seed,
            policy=policy_of(unsafe_face, no_face),
            sensitivity=sensitivity,  # type: ignore[arg-type]  # Settings checks it
            include=_embedded(only_person),
            exclude=_embedded(not_person),
        )
        # One process: those that ComfyUI's Python would start import ComfyUI again.
        job = VideoJob(
            settings,
            VideoFormat(codec),
            method=open_method(name, options),
            identity=identity,
            recognizers=() if recognizer is None else (recognizer,),
            processes=1,
        )
        return _run(job, video)


class RedactVideo(io.ComfyNode):
    HELP = """
    Use *solid* for real protection: it removes all pixels of the face. Pixelation and blur leave traces that software
    can sometimes match. Faces are followed from frame to frame, so a face that the detector misses for a moment is
    redacted there, too. Sound, subtitles, chapters and frame times stay; tags do not.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_RedactVideo",
            search_aliases=["blur faces video", "pixelate video", "censor video", "deface"],
            display_name="Redact Video",
            category=ROOT,
            description="Remove the faces of a video by a solid fill, pixelation or blur; sound and times stay.",
            inputs=[
                io.Video.Input("video", tooltip="From Load Video. A trimmed video stays trimmed."),
                io.Combo.Input(
                    "style",
                    options=_REDACTIONS,
                    default="solid",
                    tooltip="solid is safe; pixelate and blur leave traces.",
                ),
                io.Combo.Input(
                    "shape", options=list(REDACTION_SHAPES), default="ellipse", tooltip="Shape of the redaction."
                ),
                no_face_input(),
                _sensitivity_input(),
                _codec_input(),
                *_people_inputs(),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def execute(
        cls,
        video: Any,
        style: str,
        shape: str,
        no_face: str,
        sensitivity: str,
        codec: str,
        only_person: torch.Tensor | None = None,
        not_person: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.imaging.video_write import VideoFormat
        from ...pipelines.jobs.settings import Settings
        from ...pipelines.jobs.video.job import VideoJob

        settings = Settings(
            method=style,
            shape=shape,  # type: ignore[arg-type]  # Settings checks it
            policy=Policy(no_face=no_face),  # type: ignore[arg-type]  # Policy checks it
            sensitivity=sensitivity,  # type: ignore[arg-type]
            include=_embedded(only_person),
            exclude=_embedded(not_person),
        )
        return _run(VideoJob(settings, VideoFormat(codec), processes=1), video)


class SaveDeidentifiedVideo(io.ComfyNode):
    HELP = """
    ComfyUI's own *Save Video* writes the workflow into the file and copies the tags of the loaded video: place, device,
    title. This node writes only pictures, sound, subtitles and chapter times. It does not encode again, unless the
    video is trimmed or carries a rotation tag. Cover images, attachments and telemetry are left out.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveDeidentifiedVideo",
            search_aliases=["save video without metadata", "strip metadata video"],
            display_name="Save De-identified Video",
            category=ROOT,
            is_output_node=True,
            description="Save a video without metadata: no workflow, no GPS, no device, no title, no cover image.",
            inputs=[
                io.Video.Input("video", tooltip="From Veil Video or Redact Video."),
                io.String.Input(
                    "filename_prefix",
                    default="veiled",
                    tooltip="File name prefix in ComfyUI's output folder. It may include a subfolder: subfolder/name.",
                ),
                io.Combo.Input(
                    "format",
                    options=["auto", *_CONTAINERS],
                    default="auto",
                    tooltip="Container; auto keeps that of the video.",
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, video: Any, filename_prefix: str, format: str) -> io.NodeOutput:
        import folder_paths

        from ...pipelines.imaging.video_copy import copy_without_tags

        source = _source(video)
        suffix = _suffix(video) if format == "auto" else _CONTAINERS[format]
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), source.info.width, source.info.height
        )
        file = f"{name}_{counter:05}_{suffix}"
        copy_without_tags(source, Path(folder) / file, bar())
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(file, subfolder, io.FolderType.output)]))


def _sensitivity_input() -> Any:
    return io.Combo.Input(
        "sensitivity",
        options=list(SENSITIVITY_NAMES),
        default="normal",
        tooltip="high also finds smaller and more hidden faces, in more time; maximum takes all that could be heads.",
    )


def _codec_input() -> Any:
    return io.Combo.Input(
        "codec",
        options=list(VIDEO_CODECS),
        default="auto",
        tooltip="auto keeps the codec of the video where it can be written; ffv1 is lossless and needs mkv.",
    )


def _people_inputs() -> list[Any]:
    return [
        io.Image.Input("only_person", optional=True, tooltip="Photo of the only person who is treated."),
        io.Image.Input("not_person", optional=True, tooltip="Photo of a person who stays as they are."),
    ]


def _outputs() -> list[Any]:
    return [
        io.Video.Output(display_name="video", tooltip="The same video with its faces treated, without tags."),
        io.String.Output(display_name="report", tooltip="The outcome for each person, as JSON."),
        summary_output(),
    ]


def _embedded(photo: torch.Tensor | None) -> tuple[np.ndarray, ...]:
    """The embedding of the person in a reference photo."""
    from ...pipelines.imaging.image import LoadedImage
    from ...pipelines.jobs.people import embed_reference

    return () if photo is None else (embed_reference(LoadedImage(image_to_pixels(photo[:1]))),)


def _source(video: Any) -> VideoSource:
    """The file behind a VIDEO, with its trim window; nothing is decoded."""
    from ...pipelines.imaging.video import Span, VideoSource

    start, duration = video.get_active_trim_window() if hasattr(video, "get_active_trim_window") else (0.0, 0.0)
    file = video.get_stream_source()
    length = video.get_duration() if start < 0 else 0.0
    # A negative start counts from the end.
    first = max(0.0, start if start >= 0 else length + start)
    end = first + duration if duration > 0 and math.isfinite(duration) else None
    return VideoSource(BytesIO(file.getvalue()) if isinstance(file, BytesIO) else Path(file), Span(first, end))


def _suffix(video: Any) -> str:
    """The container's suffix, ``.mp4`` where it cannot be written."""
    from ...pipelines.imaging.formats import VIDEO_OUTPUTS

    file = video.get_stream_source()
    suffix = Path(file).suffix.lower() if isinstance(file, str) else ""
    return suffix if suffix in VIDEO_OUTPUTS else ".mp4"


def _run(job: VideoJob, video: Any) -> io.NodeOutput:
    """Treat a video into ComfyUI's temporary folder."""
    import folder_paths

    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    suffix = ".mkv" if job.format.codec == "ffv1" else _suffix(video)
    target = folder / f"faceveil-{uuid4().hex}{suffix}"
    progress = bar()
    report: VideoReport = job.run(_source(video), target, progress, lambda frame: _show(progress, frame))
    text = report.text()
    return io.NodeOutput(InputImpl.VideoFromFile(str(target)), report.to_json(), text, ui=ui.PreviewText(text))


def _show(progress: Bar, frame: np.ndarray) -> None:
    """Preview a finished frame, shrunk."""
    from ...pipelines.imaging.resample import resize_inside
    from ...pipelines.imaging.uint8 import to_tensor

    progress.preview(resize_inside(to_tensor(frame), 512)[0])


NODES = [VeilVideo, RedactVideo, SaveDeidentifiedVideo]
