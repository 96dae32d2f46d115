"""Nodes that cut aligned faces out and put them back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from comfy_api.latest import io

from ..pipelines.core.errors import InputError
from ..pipelines.faces.face import Face, Faces
from .convert import bar, image_to_pixels, mask_from_socket, mask_to_socket, pixels_to_image
from .sockets import ROOT, CropsSocket, FacesSocket


@dataclass(frozen=True)
class Place:
    """Where a square belongs: its face, the affine map ``(2, 3)`` from the picture to it, and its side in pixels."""

    face: Face
    transform: np.ndarray
    size: int


class CropFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_CropFaces",
            display_name="Crop Faces",
            category=ROOT,
            description="Cut every face out as an aligned square, to work on it with any other node and paste it back.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures the faces were found in."),
                FacesSocket.Input("faces", tooltip="From Detect Faces or Select Faces."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=64,
                    max=2048,
                    step=8,
                    tooltip="Side of the squares in pixels. 512 suits Stable Diffusion 1.5 and 2.1.",
                ),
                io.Combo.Input(
                    "alignment",
                    options=["ffhq", "arcface", "box"],
                    default="ffhq",
                    tooltip="ffhq shows the whole head upright, arcface the inner face, box is not turned.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="crops", tooltip="One square a face."),
                io.Mask.Output(display_name="masks", tooltip="The face in each square, with a soft edge."),
                CropsSocket.Output(display_name="places", tooltip="Where the squares belong, for Paste Faces."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, faces: Faces, size: int, alignment: str) -> io.NodeOutput:
        from ..pipelines.faces.align import crop_faces

        if not faces:
            raise InputError("there is no face to crop; check Detect Faces with Preview Faces")
        pixels, progress = image_to_pixels(image), bar()
        crops = []
        for number, face in enumerate(faces):
            progress(number, len(faces), "cropping")
            crops.append(crop_faces(pixels[face.image : face.image + 1], [face], size, alignment))
        images, masks = torch.cat([c.images for c in crops]), torch.cat([c.masks for c in crops])
        places = tuple(
            Place(face, c.transforms[0].double().numpy(), size) for face, c in zip(faces, crops, strict=True)
        )
        return io.NodeOutput(pixels_to_image(images), mask_to_socket(masks), places)


class PasteFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_PasteFaces",
            display_name="Paste Faces",
            category=ROOT,
            description=(
                "Put worked-on squares back into their pictures, smallest face first, so that overlapping faces stay"
                " whole."
            ),
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the faces were cropped from."),
                io.Image.Input("crops", tooltip="The changed squares, in the order of Crop Faces."),
                CropsSocket.Input("places", tooltip="From Crop Faces."),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="What to paste of each square; without it the face with a soft edge.",
                ),
                io.Boolean.Input(
                    "match_color", default=False, tooltip="Give each square the colors of the face it replaces."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the squares pasted in."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels may have changed."),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        crops: torch.Tensor,
        places: tuple[Place, ...],
        masks: torch.Tensor | None = None,
        match_color: bool = False,
    ) -> io.NodeOutput:
        from ..pipelines.faces.align import apply, crop
        from ..pipelines.faces.paste import match_color as matched
        from ..pipelines.faces.paste import paste
        from ..pipelines.imaging.masks import hull_mask

        pixels, squares = image_to_pixels(image), image_to_pixels(crops)
        if len(squares) != len(places):
            raise InputError(
                f"{len(squares)} squares do not fit the {len(places)} faces that were cropped; keep the batch whole"
            )
        size = squares.shape[-1]
        given = None if masks is None else mask_from_socket(masks, len(squares), *squares.shape[-2:])
        result, progress = pixels.clone(), bar()
        order = sorted(range(len(places)), key=lambda i: places[i].face.area)
        for done, i in enumerate(order):
            progress(done, len(order), "pasting")
            face = places[i].face
            # The squares may have been resized on the way.
            transform = places[i].transform * (size / places[i].size)
            if given is not None:
                mask = given[i : i + 1]
            elif face.landmarks:
                mask = hull_mask(apply(transform, face.points), size, size, feather=size / 64)
            else:
                mask = torch.ones(1, 1, size, size)
            here = result[face.image : face.image + 1]
            square = squares[i : i + 1]
            if match_color:
                square = matched(square, crop(here, transform, size), mask)
            result[face.image : face.image + 1] = paste(here, square, transform, mask)
        changed = (result != pixels).any(1, keepdim=True).float()
        return io.NodeOutput(pixels_to_image(result), mask_to_socket(changed))


NODES = [CropFaces, PasteFaces]
