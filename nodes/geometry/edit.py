"""Nodes that change 3D faces."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..schema import schema
from ..sockets import MAX_SEED, CoefficientsSocket
from .common import CATEGORY, OUTPUTS, Geometry, fields_of, result


class EditCoefficients(io.ComfyNode):
    HELP = """
    Models have no mode called *jaw width*: each slider is a measure between landmarks, and the least change of the
    coefficients that moves it and leaves the other measures is applied. 1 is a standard deviation among people;
    beyond 3 faces fall apart.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...pipelines.geometry.names import EXPRESSION_SLIDERS, SHAPE_SLIDERS

        def slider(name: str, tip: str) -> io.Float.Input:
            return io.Float.Input(
                name.replace(" ", "_"),
                default=0.0,
                min=-4.0,
                max=4.0,
                step=0.1,
                display_mode=io.NumberDisplay.slider,
                tooltip=tip,
            )

        shape = [slider(n, f"{n.capitalize()}, in standard deviations among people.") for n in SHAPE_SLIDERS]
        expression = [
            slider(n, f"{n.capitalize()}: part of the expression, not of the person.") for n in EXPRESSION_SLIDERS
        ]
        pose = [
            io.Float.Input(
                n,
                default=0.0,
                min=-60.0,
                max=60.0,
                step=1.0,
                display_mode=io.NumberDisplay.slider,
                tooltip=f"Degrees to {tip}.",
            )
            for n, tip in (("pitch", "look up"), ("yaw", "rotate towards image right"), ("roll", "tilt clockwise"))
        ]
        return schema(
            node_id="FaceVeil_EditCoefficients",
            search_aliases=["expression editor", "face sliders"],
            display_name="Edit Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Change a face with sliders: proportions, expression and pose.",
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From Estimate Coefficients."),
                *shape,
                *expression,
                *pose,
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(
        cls, coefficients: Geometry, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0, **sliders: float
    ) -> io.NodeOutput:
        from ...pipelines.geometry.sliders import apply_sliders

        changed = apply_sliders(
            coefficients.model, coefficients.estimate.coefficients, {n.replace("_", " "): v for n, v in sliders.items()}
        )
        step = torch.deg2rad(torch.tensor([-pitch, yaw, -roll]))
        return result(coefficients.with_coefficients(replace(changed, angles=changed.angles + step)))


class ReplaceCoefficients(io.ComfyNode):
    HELP = """
    Both must be of one model. *pose* is the turn and place of the head, *lighting* the light as nine harmonics a
    color.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ReplaceCoefficients",
            search_aliases=["expression transfer", "reenactment"],
            display_name="Replace or Blend Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Give a face parts of another one: its expression, its light, its shape.",
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="The face that is changed."),
                CoefficientsSocket.Input("other", tooltip="Where the parts come from: one face, or one for each."),
                io.String.Input(
                    "parts",
                    default="expression",
                    tooltip="Some of identity, expression, texture, lighting, pose, gaze, separated by commas.",
                ),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 takes the other's, 0.5 is halfway, 2 goes past it.",
                ),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, other: Geometry, parts: str, share: float) -> io.NodeOutput:
        mine, theirs = coefficients.estimate.coefficients, other.estimate.coefficients
        return result(coefficients.with_coefficients(mine.blended(theirs, share, fields_of(parts))))


class PerturbCoefficients(io.ComfyNode):
    HELP = """
    IDEudemon adds noise of 0.05 to 0.40 to HeadNeRF's codes; these coefficients have unit variance, so that 1 is as
    far as people differ. A changed shape alone does not hide a person from a recognizer: veil the result.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PerturbCoefficients",
            search_aliases=["3D noise", "IDEudemon"],
            display_name="Perturb Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Add seeded noise, the same for all rows: the identity protection of IDEudemon.",
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From Estimate Coefficients."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Of the noise, in standard deviations among people.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed, another change.",
                ),
                io.String.Input(
                    "parts", default="identity", tooltip="Some of identity, expression, texture, separated by commas."
                ),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, scale: float, seed: int, parts: str) -> io.NodeOutput:
        return result(
            coefficients.with_coefficients(coefficients.estimate.coefficients.perturbed(scale, seed, fields_of(parts)))
        )


class SampleGeometry(io.ComfyNode):
    HELP = """
    The sampler was trained on the shapes of 3,200 people who do not exist, fitted with the built-in model; it works
    with that model only. Expression, light, pose and gaze stay.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_SampleGeometry",
            search_aliases=["random face shape", "DiffDeID"],
            display_name="Sample Geometry",
            category=CATEGORY,
            is_output_node=True,
            description=(
                "Draw the face shape of a person who does not exist (the latent-diffusion sampler of DiffDeID), keeping"
                " everything else."
            ),
            inputs=[
                CoefficientsSocket.Input(
                    "coefficients", tooltip="From Estimate Coefficients: expression, light and pose stay."
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                io.Int.Input("level", default=10, min=1, max=10, tooltip="1 stays akin to the face, 10 is a stranger."),
                io.Boolean.Input("texture", default=True, tooltip="Draw the skin's texture anew as well."),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, seed: int, level: int, texture: bool) -> io.NodeOutput:
        from ...pipelines.geometry.sampling import sample_geometry

        return result(
            coefficients.with_coefficients(sample_geometry(coefficients.estimate.coefficients, level, seed, texture))
        )


NODES = [EditCoefficients, ReplaceCoefficients, PerturbCoefficients, SampleGeometry]
