"""Nodes that find, choose and show faces."""

from __future__ import annotations

import torch
from comfy_api.latest import io, ui

from ..pipelines.faces.face import Faces
from ..pipelines.faces.select import Selection
from .convert import bar, image_to_pixels, pixels_to_image
from .sockets import ROOT, FacesSocket


class DetectFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_DetectFaces",
            display_name="Detect Faces",
            category=ROOT,
            description="Find the faces of each picture, with 68 landmarks. Works offline on the CPU.",
            inputs=[
                io.Image.Input("image", tooltip="Pictures to search."),
                io.Combo.Input(
                    "detector",
                    options=["auto", "centerface", "dlib"],
                    default="auto",
                    tooltip=(
                        "auto takes CenterFace, which also finds small faces; dlib finds frontal faces of 40 px and"
                        " more."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.45,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip=(
                        "Least confidence. Lower it when faces are missed; some of what is found will then be no face."
                    ),
                ),
                io.Boolean.Input(
                    "rotated",
                    default=True,
                    tooltip="Also look for heads lying on their side or upside down. Costs half a second a picture.",
                ),
            ],
            outputs=[
                FacesSocket.Output(display_name="faces", tooltip="For Select Faces, Veil Faces and the others."),
                io.Int.Output(display_name="count", tooltip="How many faces were found in all pictures together."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, detector: str, threshold: float, rotated: bool) -> io.NodeOutput:
        from ..pipelines.faces.detect import detect_faces, open_detector

        pixels, progress, opened = image_to_pixels(image), bar(), open_detector(detector)
        found = []
        for index in range(len(pixels)):
            progress(index, len(pixels), "detecting")
            for face in detect_faces(pixels[index : index + 1], opened, threshold, rotated):
                found.append(face.in_image(index))
        progress(len(pixels), len(pixels), "detecting")
        return io.NodeOutput(Faces(found), len(found))


class SelectFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SelectFaces",
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
        from ..pipelines.core.errors import InputError
        from ..pipelines.jobs.people import by_person

        chosen = Selection(numbers if which == "numbers" else which, min_size).of(faces)
        if only_person is not None or not_person is not None:
            if image is None:
                raise InputError(
                    "to select by a reference photo, connect the pictures to the image input of Select Faces too"
                )
            references = [None if p is None else image_to_pixels(p) for p in (only_person, not_person)]
            chosen = by_person(image_to_pixels(image), chosen, *references)
        taken = set(map(id, chosen))
        return io.NodeOutput(chosen, Faces(face for face in faces if id(face) not in taken))


class PreviewFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_PreviewFaces",
            display_name="Preview Faces",
            category=ROOT,
            is_output_node=True,
            description="Show numbered boxes and landmarks on the pictures.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures the faces were found in."),
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Boolean.Input("landmarks", default=True, tooltip="Draw the 68 points of each face."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The pictures with boxes drawn on them.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, landmarks: bool) -> io.NodeOutput:
        import numpy as np

        from ..pipelines.viz.sheets import draw_faces

        pixels = image_to_pixels(image)
        drawn = [
            np.asarray(draw_faces(pixels, faces, i, landmarks), dtype=np.float32) / 255 for i in range(len(pixels))
        ]
        result = pixels_to_image(torch.from_numpy(np.stack(drawn)).movedim(-1, 1))
        return io.NodeOutput(result, ui=ui.PreviewImage(result, cls=cls))


NODES = [DetectFaces, SelectFaces, PreviewFaces]
