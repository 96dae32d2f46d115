"""Track Faces: find the faces of a video's frames, and tell which belong to one person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io

from ...pipelines.faces.names import SENSITIVITY_NAMES, SensitivityName
from ..convert import bar, image_to_pixels
from ..schema import schema
from ..sockets import ROOT, FacesSocket, RecognizerSocket

if TYPE_CHECKING:
    from ...pipelines.recognition.base import FaceRecognizer


class TrackFaces(io.ComfyNode):
    HELP = """
    For frames that are an IMAGE batch, from **Get Video Components** or another node. Connect *faces* to **Select
    Faces**, then to **Veil Faces**: each person gets one identity in all frames. To go on with the next batch
    of the same video, connect the *identity* of the first **Veil Faces**, or use **Map to Pseudonym**. For long videos
    use **Veil Video**: it keeps no frames in memory.

    A face that is lost for a moment is followed by its motion for up to a second, and redacted there.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_TrackFaces",
            search_aliases=["face tracking", "video faces"],
            display_name="Track Faces",
            category=f"{ROOT}/faces",
            description="Find the faces in the frames of a video, fill gaps, smooth landmarks, and tell who is who.",
            inputs=[
                io.Image.Input("frames", tooltip="The frames of one video, in order."),
                io.Float.Input("frame_rate", default=25.0, min=0.1, max=1000.0, step=0.1, tooltip="Frames per second."),
                io.Combo.Input(
                    "sensitivity",
                    options=list(SENSITIVITY_NAMES),
                    default="normal",
                    tooltip="high also finds smaller and more hidden faces, in more time.",
                ),
                RecognizerSocket.Input(
                    "recognizer", optional=True, tooltip="Also asked whether two tracks show one person."
                ),
            ],
            outputs=[FacesSocket.Output(display_name="faces", tooltip="The faces of all frames, with their tracks.")],
        )

    @classmethod
    def execute(
        cls,
        frames: torch.Tensor,
        frame_rate: float,
        sensitivity: SensitivityName,
        recognizer: FaceRecognizer | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.jobs.video.images import track_faces

        more = () if recognizer is None else (recognizer,)
        return io.NodeOutput(
            track_faces(image_to_pixels(frames), frame_rate, sensitivity, recognizers=more, progress=bar())
        )


NODES = [TrackFaces]
