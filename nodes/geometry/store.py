"""Nodes that save and load coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from ..files import kept_path, output_path, saved_names, saved_stamp
from ..schema import schema
from ..sockets import NONE, CoefficientsSocket, MorphableSocket
from .common import CATEGORY, OUTPUTS, Geometry, result

if TYPE_CHECKING:
    from ...pipelines.geometry.morphable import MorphableModel


class SaveCoefficients(io.ComfyNode):
    HELP = """
    The safetensors file also contains the position of each face in its image. **Load Coefficients** reads it. The face
    shape of a real person is personal data, so protect the file.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveCoefficients",
            search_aliases=["save 3D face"],
            display_name="Save Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description=("Save 3D faces as a file: coefficients, model name and date, without images or image names."),
            inputs=[
                CoefficientsSocket.Input(
                    "coefficients", tooltip="The faces to save. The face shape of a real person is personal data."
                ),
                io.String.Input(
                    "filename_prefix", default="coefficients", tooltip="File name prefix in ComfyUI's output folder."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, coefficients: Geometry, filename_prefix: str) -> io.NodeOutput:
        from ...pipelines.geometry.coefficients import save_coefficients

        path = output_path(filename_prefix)
        save_coefficients(path, coefficients.estimate.coefficients, coefficients.estimate.transforms)
        return io.NodeOutput(ui=ui.PreviewText(path.name))


class LoadCoefficients(io.ComfyNode):
    HELP = """
    Choose a file of **Save Coefficients**. Press `r` to list a file that was saved after the page was loaded. If the
    file uses BFM or ICT-FaceKit, connect that model.

    To render the faces over images, use one image per face in the batch: the first face belongs to the first image, the
    second face to the second image, and so on.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadCoefficients",
            search_aliases=["load 3D face"],
            display_name="Load Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Load 3D faces from a file of Save Coefficients.",
            inputs=[
                io.Combo.Input("file", options=saved_names(), tooltip="A file in ComfyUI's output or input folder."),
                MorphableSocket.Input(
                    "model", optional=True, tooltip="The model of the saved faces. Without it, the built-in model."
                ),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = NONE, **_: object) -> str:
        return saved_stamp(file)

    @classmethod
    def execute(cls, file: str, model: MorphableModel | None = None) -> io.NodeOutput:
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.coefficients import load_coefficients
        from ...pipelines.geometry.fitting import Estimate

        model = model or built_in_morphable_model()
        coefficients, transforms = load_coefficients(kept_path(file, "Save Coefficients"), model.name)
        estimate = Estimate(coefficients, transforms, torch.full((len(coefficients),), float("nan")))
        return result(Geometry(model, estimate, tuple(range(len(coefficients)))))


NODES = [SaveCoefficients, LoadCoefficients]
