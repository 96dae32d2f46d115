"""Node that fits a 3D morphable model to faces."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ...pipelines.core.errors import InputError
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, pixels_to_image
from ..files import OWN, names, path_of
from ..schema import schema
from ..sockets import CoefficientsSocket, FacesSocket, MorphableSocket
from .common import CATEGORY, Geometry, overlaid


class EstimateCoefficients(io.ComfyNode):
    HELP = """
    Fitting starts from 68 landmarks, then explains the picture with light and texture, and refines all together:
    about a second a face. The wires of *overlay* should lie on the face; *numbers* says how far landmarks are off,
    in shares of the distance between the eyes (2 % or less is good).

    **What it cannot do.** Depth is guessed from one picture with what faces usually look like; heads turned beyond
    45 degrees, hands and masks mislead it. The eyes' direction is read from the darkest part between the lids.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_EstimateCoefficients",
            search_aliases=["3D face reconstruction", "3DMM fitting", "pose", "gaze"],
            display_name="Estimate Coefficients",
            category=CATEGORY,
            description="Fit a 3D face to each face of the pictures: shape, expression, texture, light, pose and gaze.",
            inputs=[
                io.Image.Input("image", tooltip="Pictures with faces, or the frames of a clip."),
                io.Combo.Input(
                    "regressor",
                    options=["none: fit", *names(OWN, (".pth",))],
                    tooltip=(
                        "Fitting needs no weights. epoch_20.pth of Deep3DFaceRecon reads BFM coefficients instead; load"
                        " BFM as model."
                    ),
                ),
                io.Float.Input(
                    "smoothing",
                    default=-1.0,
                    min=-1.0,
                    max=30.0,
                    step=0.5,
                    tooltip=(
                        "For a clip of one person: frames that are averaged over, 0 shares the shape only. -1: pictures"
                        " are on their own."
                    ),
                ),
                MorphableSocket.Input("model", optional=True, tooltip="The built-in one without it."),
                FacesSocket.Input("faces", optional=True, tooltip="Only these faces; without it all that are found."),
            ],
            outputs=[
                CoefficientsSocket.Output(display_name="coefficients", tooltip="One row for each face."),
                io.Image.Output(
                    display_name="overlay", tooltip="The fitted faces over the pictures: look whether they line up."
                ),
                io.String.Output(
                    display_name="numbers", tooltip="Pose, gaze and the landmarks' error of each face, to read."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        regressor: str = "none: fit",
        smoothing: float = -1.0,
        model: Any = None,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.clip import join, smooth
        from ...pipelines.geometry.fitting import Fitter
        from ...pipelines.geometry.regressor import Regressor

        model = model or built_in_morphable_model()
        estimator: Any = (
            Fitter(model)
            if regressor.startswith("none")
            else Regressor(path_of(OWN, regressor, "put it there and reload the page"), model)
        )
        if model.name != "bfm" and isinstance(estimator, Regressor):
            raise InputError(
                f"the regressor reads coefficients of bfm, but the model is {model.name}; load BFM_model_front.mat"
            )
        pixels = image_to_pixels(image)
        chosen = [f for f in (detect_faces(pixels) if faces is None else faces) if f.landmarks]
        if not chosen:
            raise InputError("no face with landmarks was found; connect pictures that show a face from the front")
        progress, estimates = bar(), []
        for done, face in enumerate(chosen):
            progress(done, len(chosen), "fitting faces")
            estimates.append(
                estimator(pixels[face.image : face.image + 1], face.points, _within(progress, done, len(chosen)))
            )
        estimate = join(estimates)
        if smoothing >= 0:
            estimate = smooth(estimate, smoothing)
        geometry = Geometry(model, estimate, tuple(f.image for f in chosen))
        shown = pixels_to_image(overlaid(geometry, pixels, "wireframe", 0.9)[0])
        return io.NodeOutput(geometry, shown, _words(geometry), ui=ui.PreviewImage(shown))


def _within(progress: Any, done: int, count: int) -> Any:
    """Steps of one face on the bar of all; each step can be interrupted."""
    return lambda step, total, what: progress(done * total + step, count * total, what)


def _words(geometry: Geometry) -> str:
    from ...pipelines.geometry.camera import degrees

    lines = []
    c = geometry.estimate.coefficients
    for row, error in enumerate(geometry.estimate.errors.tolist()):
        pitch, yaw, roll = degrees(c.angles[row])
        gaze = ", ".join(f"{v:+.2f}" for v in c.gaze[row].tolist())
        lines.append(
            f"face {row}: pitch {pitch:+.0f}, yaw {yaw:+.0f}, roll {roll:+.0f} degrees; gaze {gaze};"
            f" landmarks off by {error:.1%}"
        )
    return "\n".join(lines)


NODES = [EstimateCoefficients]
