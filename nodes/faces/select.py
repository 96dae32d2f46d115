"""Node that chooses faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ...pipelines.faces.select import Selection
from ..convert import image_to_pixels
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class SelectFaces(io.ComfyNode):
    HELP = """
    **others** holds what was not chosen: to keep one person and veil the rest, select that person and wire *others*
    into Veil Faces. Reference photos are compared with dlib's recognizer; a face that cannot be compared is treated
    as a stranger.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SelectFaces",
            search_aliases=["choose faces", "filter faces"],
            display_name="Select Faces",
            category=ROOT,
            description="Choose which faces are worked on: by size, place, number, or by a photo of the person.",
            inputs=[
                FacesSocket.Input("faces", tooltip="From Detect Faces."),
                io.Combo.Input(
                    "which",
                    options=["all", "largest", "smallest", "left", "right", "numbers"],
                    default="all",
                    tooltip="In each picture. For numbers fill in the next field; Preview Faces shows them.",
                ),
                io.String.Input("numbers", default="0", tooltip="Such as 0,2; only used when which is numbers."),
                io.Float.Input(
                    "min_size",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=1.0,
                    tooltip="Leave out faces smaller than this many pixels.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The pictures the faces were found in; needed with a reference photo.",
                ),
                io.Image.Input(
                    "only_person", optional=True, tooltip="A photo of the person to take. Everybody else is left out."
                ),
                io.Image.Input(
                    "not_person",
                    optional=True,
                    tooltip="A photo of a person to leave out, such as somebody who agreed to be shown.",
                ),
            ],
            outputs=[
                FacesSocket.Output(display_name="selected", tooltip="The chosen faces."),
                FacesSocket.Output(display_name="others", tooltip="The faces left out."),
            ],
        )

    @classmethod
    def execute(
        cls,
        faces: Faces,
        which: str,
        numbers: str,
        min_size: float,
        image: torch.Tensor | None = None,
        only_person: torch.Tensor | None = None,
        not_person: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.core.errors import InputError
        from ...pipelines.jobs.people import filter_by_person

        chosen = Selection(numbers if which == "numbers" else which, min_size).of(faces)
        if only_person is not None or not_person is not None:
            if image is None:
                raise InputError(
                    "to select by a reference photo, connect the pictures to the image input of Select Faces too"
                )
            references = [None if p is None else image_to_pixels(p) for p in (only_person, not_person)]
            chosen = filter_by_person(image_to_pixels(image), chosen, *references)
        taken = set(map(id, chosen))
        return io.NodeOutput(chosen, Faces(face for face in faces if id(face) not in taken))


NODES = [SelectFaces]
