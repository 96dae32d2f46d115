"""Nodes that keep coefficients as files."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..schema import schema
from ..sockets import CoefficientsSocket, MorphableSocket
from .common import CATEGORY, OUTPUTS, Geometry, result


class SaveCoefficients(io.ComfyNode):
    HELP = """
    A safetensors file with the numbers and where each face lies in its picture.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SaveCoefficients",
            search_aliases=["save 3D face"],
            display_name="Save Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description=(
                "Keep 3D faces as a file: numbers, the model's name and the date, no picture and no name of one."
            ),
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="The shape of a real person's face is personal data."),
                io.String.Input(
                    "filename_prefix", default="coefficients", tooltip="Name of the file below ComfyUI's output folder."
                ),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, coefficients: Geometry, filename_prefix: str) -> io.NodeOutput:
        from ...pipelines.geometry.coefficients import save_coefficients
        from ..files import output_path

        path = output_path(filename_prefix)
        save_coefficients(path, coefficients.estimate.coefficients, coefficients.estimate.transforms)
        return io.NodeOutput(ui=ui.PreviewText(path.name))


class LoadCoefficients(io.ComfyNode):
    HELP = """
    Rows are taken for pictures of a batch in order when they are drawn over an image.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadCoefficients",
            search_aliases=["load 3D face"],
            display_name="Load Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Read 3D faces that Save Coefficients wrote.",
            inputs=[
                io.String.Input(
                    "file", default="coefficients_00001_.safetensors", tooltip="Below ComfyUI's output or input folder."
                ),
                MorphableSocket.Input(
                    "model", optional=True, tooltip="The model they belong to; the built-in one without it."
                ),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, file: str, model: Any = None) -> io.NodeOutput:
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.coefficients import load_coefficients
        from ...pipelines.geometry.fitting import Estimate
        from ..files import kept_path

        model = model or built_in_morphable_model()
        coefficients, transforms = load_coefficients(kept_path(file, "Save Coefficients"), model.name)
        estimate = Estimate(coefficients, transforms, torch.full((len(coefficients),), float("nan")))
        return result(Geometry(model, estimate, tuple(range(len(coefficients)))))


NODES = [SaveCoefficients, LoadCoefficients]
