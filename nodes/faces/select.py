"""Node that selects faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pipelines.faces.face import Faces
from ...pipelines.faces.select import Selection, painted
from ..convert import bar, image_to_pixels, mask_from_socket
from ..schema import schema
from ..sockets import ROOT, FacesSocket


class SelectFaces(io.ComfyNode):
    HELP = """
    *others* contains the faces that are not selected. To keep one person and anonymize all others, select that person
    and connect *others* to **Veil Faces**.

    *only_person* and *not_person* use dlib's recognizer. A face without landmarks cannot be compared and counts as
    a different person.

    Faces from **Track Faces** are selected as people, in all frames: by the median of their boxes, their mean
    embedding, or a mask that marks them in one frame; *min_size* keeps who is smaller in all frames.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SelectFaces",
            search_aliases=["choose faces", "filter faces"],
            display_name="Select Faces",
            category=ROOT,
            description="Select faces by size, position, number, a painted mask, or a reference photo of the person.",
            inputs=[
                FacesSocket.Input("faces", tooltip="From Detect Faces or Track Faces."),
                io.Combo.Input(
                    "which",
                    options=["all", "largest", "smallest", "left", "right", "numbers"],
                    default="all",
                    tooltip="Faces to select in each image; of tracked faces, people in all images.",
                ),
                io.String.Input(
                    "numbers",
                    default="0",
                    tooltip="Face numbers from Preview Faces, such as 0,2; of tracked faces, people.",
                ),
                io.Float.Input(
                    "min_size",
                    default=0.0,
                    min=0.0,
                    max=4096.0,
                    step=1.0,
                    tooltip="Minimum face size in pixels. Smaller faces are not selected.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The images in which the faces were detected. Needed with a reference photo.",
                ),
                io.Image.Input("only_person", optional=True, tooltip="Reference photo: select only this person."),
                io.Image.Input(
                    "not_person",
                    optional=True,
                    tooltip="Reference photo: do not select this person, such as a person who agreed to publication.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Select only faces that are painted: in the middle, or on a quarter of their box.",
                ),
            ],
            outputs=[
                FacesSocket.Output(display_name="selected", tooltip="The selected faces."),
                FacesSocket.Output(display_name="others", tooltip="All other faces."),
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
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.core.errors import InputError
        from ...pipelines.jobs.people import filter_by_person

        chosen = Selection(numbers if which == "numbers" else which, min_size).of(faces)
        if only_person is not None or not_person is not None:
            if image is None:
                raise InputError(
                    "to select by a reference photo, also connect the images to the image input of Select Faces"
                )
            references = [None if p is None else image_to_pixels(p) for p in (only_person, not_person)]
            chosen = filter_by_person(image_to_pixels(image), chosen, *references, bar())
        if mask is not None:
            chosen = painted(chosen, _masks(mask, faces))
        taken = set(map(id, chosen))
        return io.NodeOutput(chosen, faces.only(face for face in faces if id(face) not in taken))


def _masks(mask: torch.Tensor, faces: Faces) -> torch.Tensor:
    """A mask for each image of the detection, at its size."""
    from ...pipelines.core.errors import InputError

    if faces.images is None:
        raise InputError("these faces do not know their images; connect Detect Faces to select by a mask")
    return mask_from_socket(mask, faces.images.count, faces.images.height, faces.images.width)


NODES = [SelectFaces]
