"""Nodes that edit 3D faces."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..inputs import seed_input
from ..schema import schema
from ..sockets import CoefficientsSocket
from .common import CATEGORY, OUTPUTS, Geometry, fields_of, result


class EditCoefficients(io.ComfyNode):
    HELP = """
    Each slider is a measurement between landmarks, such as the jaw width. The node applies the smallest change of the
    coefficients that changes this measurement and keeps the others. 1 is one standard deviation of the population;
    faces become implausible beyond 3.

    To apply the edit to the photo, connect the result to *edited* of **Reshape Face**.
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

        shape = [slider(n, f"{n.capitalize()}, in standard deviations of the population.") for n in SHAPE_SLIDERS]
        expression = [
            slider(n, f"{n.capitalize()}: changes the expression, not the identity.") for n in EXPRESSION_SLIDERS
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
            description="Edit 3D faces with sliders: proportions, expression and pose.",
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
    Both inputs must use the same morphable model. *pose* is the rotation and position of the head. *lighting* is nine
    spherical harmonics per color channel.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ReplaceCoefficients",
            search_aliases=["expression transfer", "reenactment"],
            display_name="Replace or Blend Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Copy or blend parts of another face: expression, light, shape, texture, pose or gaze.",
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="The faces to change."),
                CoefficientsSocket.Input("other", tooltip="The source of the parts: one face, or one per face."),
                io.String.Input(
                    "parts",
                    default="expression",
                    tooltip="One or more of identity, expression, texture, lighting, pose, gaze, separated by commas.",
                ),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=-1.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 keeps the face, 1 copies the other, 0.5 is halfway, 2 extrapolates beyond the other.",
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
    These coefficients have unit variance, so a scale of 1 is the typical difference between people. (IDEudemon adds
    noise of 0.05 to 0.40 to the codes of HeadNeRF.)

    A new shape alone does not hide the person from a recognizer. Apply **Reshape Face** and then **Veil Faces**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_PerturbCoefficients",
            search_aliases=["3D noise", "IDEudemon"],
            display_name="Perturb Coefficients",
            category=CATEGORY,
            is_output_node=True,
            description="Add the same seeded noise to all faces, the identity protection of IDEudemon.",
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From Estimate Coefficients."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=3.0,
                    step=0.05,
                    tooltip="Standard deviation of the noise, in standard deviations of the population.",
                ),
                seed_input("noise pattern"),
                io.String.Input(
                    "parts",
                    default="identity",
                    tooltip="One or more of identity, expression, texture, separated by commas.",
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
    The sampler works only with the built-in model. It was trained on the shapes of 3,200 synthetic faces. To apply the
    new shape to the photo, connect the result to *edited* of **Reshape Face**.
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
                "Sample the face shape of a synthetic person with the latent-diffusion sampler of DiffDeID. Expression,"
                " light, pose and gaze stay."
            ),
            inputs=[
                CoefficientsSocket.Input(
                    "coefficients", tooltip="From Estimate Coefficients, with the built-in model."
                ),
                seed_input(),
                io.Int.Input(
                    "level",
                    default=10,
                    min=1,
                    max=10,
                    tooltip="1 is similar to the original face, 10 is unrelated to it.",
                ),
                io.Boolean.Input("texture", default=True, tooltip="Also sample a new skin texture."),
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
