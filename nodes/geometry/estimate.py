"""Node that fits a 3D morphable model to faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, pixels_to_image
from ..files import OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input
from ..schema import schema
from ..sockets import CoefficientsSocket, MorphableSocket
from .common import CATEGORY, Geometry, overlaid

if TYPE_CHECKING:
    from ...pipelines.geometry.morphable import MorphableModel


class EstimateCoefficients(io.ComfyNode):
    HELP = """
    The fit starts from 68 landmarks, adds light and texture, and then optimizes all coefficients together, in well
    under a second per face. Check that the wireframe in *overlay* lies on the face. *numbers* gives the landmark error
    in percent of the inter-ocular distance; 2 % or less is good.

    **Limits.** One image does not determine depth, so the model's statistics fill it in. Heads that are rotated by more
    than 45 degrees, hands and masks cause errors. The gaze is estimated from the darkest part between the eyelids.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EstimateCoefficients",
            search_aliases=["3D face reconstruction", "3DMM fitting", "pose", "gaze"],
            display_name="Estimate Coefficients",
            category=CATEGORY,
            description="Fit a 3D face model to each face: shape, expression, texture, light, pose and gaze.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces, or the frames of a clip."),
                io.Combo.Input(
                    "regressor",
                    options=["none: fit", *names(OWN, (".pth",))],
                    tooltip=(
                        "none: fit needs no file. With epoch_20.pth of Deep3DFaceRecon, a network predicts the"
                        " coefficients of BFM; then connect BFM to model."
                    ),
                ),
                io.Float.Input(
                    "smoothing",
                    default=-1.0,
                    min=-1.0,
                    max=30.0,
                    step=0.5,
                    tooltip=(
                        "For a clip of one person: width of the smoothing over time, in frames. All frames then share"
                        " one shape and texture; 0 does only this. -1 treats all images independently."
                    ),
                ),
                MorphableSocket.Input(
                    "model", optional=True, tooltip="From Load Morphable Model. Without it, the built-in model."
                ),
                optional_faces_input("Fit"),
            ],
            outputs=[
                CoefficientsSocket.Output(display_name="coefficients", tooltip="One row per face."),
                io.Image.Output(
                    display_name="overlay", tooltip="The images with the fitted faces as wireframes, to check the fit."
                ),
                io.String.Output(
                    display_name="numbers", tooltip="Pose, gaze and landmark error of each face, as text."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, regressor: str = "", **_: object) -> str:
        return model_stamp(OWN, regressor)

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        regressor: str = "none: fit",
        smoothing: float = -1.0,
        model: MorphableModel | None = None,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.clip import estimate_faces, smooth
        from ...pipelines.geometry.fitting import Fitter
        from ...pipelines.geometry.regressor import Regressor

        model = model or built_in_morphable_model()
        estimator = (
            Fitter(model)
            if regressor.startswith("none")
            else Regressor(path_of(OWN, regressor, "put the file there and reload the page"), model)
        )
        if model.name != "bfm" and isinstance(estimator, Regressor):
            raise InputError(
                f"the regressor predicts coefficients of bfm, but the model is {model.name}; load BFM_model_front.mat"
            )
        pixels = image_to_pixels(image)
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        chosen = [f for f in found if f.landmarks]
        if not chosen:
            raise InputError("no face with landmarks was found; connect images that show a face from the front")
        estimate = estimate_faces(pixels, chosen, estimator, bar())
        if smoothing >= 0:
            estimate = smooth(estimate, smoothing)
        geometry = Geometry(model, estimate, tuple(f.image for f in chosen))
        overlay = pixels_to_image(overlaid(geometry, pixels, "wireframe", 0.9)[0])
        return io.NodeOutput(geometry, overlay, _words(geometry), ui=ui.PreviewImage(overlay))


def _words(geometry: Geometry) -> str:
    from ...pipelines.geometry.camera import degrees

    lines = []
    c = geometry.estimate.coefficients
    for row, error in enumerate(geometry.estimate.errors.tolist()):
        pitch, yaw, roll = degrees(c.angles[row])
        gaze = ", ".join(f"{v:+.2f}" for v in c.gaze[row].tolist())
        lines.append(
            f"face {row}: pitch {pitch:+.0f}, yaw {yaw:+.0f}, roll {roll:+.0f} degrees; gaze {gaze};"
            f" landmark error {error:.1%}"
        )
    return "\n".join(lines)


NODES = [EstimateCoefficients]
