"""Faces in three dimensions: load a model, estimate, edit, draw, keep. Every node that changes a face shows it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..pipelines.core.errors import InputError
from ..pipelines.faces.face import Faces
from .convert import bar, image_to_pixels, mask_to_socket, pixels_to_image
from .files import OWN, names, path_of
from .sockets import ROOT, CoefficientsSocket, FacesSocket, MorphableSocket

CATEGORY = f"{ROOT}/3D"
_SEED_MAX = 0xFFFFFFFFFFFFFFFF
_BUILTIN = "built-in"
_PREVIEW = 384
_PARTS = ("identity", "expression", "texture", "lighting", "pose", "gaze")


@dataclass(frozen=True)
class Geometry:
    """What the coefficients socket carries.

    Attributes:
        model: the morphable model.
        estimate: coefficients, and where their squares lie in the pictures.
        images: the picture of the batch that each row belongs to.
    """

    model: Any
    estimate: Any
    images: tuple[int, ...]

    def with_coefficients(self, coefficients: Any) -> Geometry:
        return replace(self, estimate=replace(self.estimate, coefficients=coefficients))


def _fields(parts: str) -> tuple[str, ...]:
    """Names of coefficients from names that people use: ``identity, pose``.

    Raises:
        InputError: a part is unknown, or none is named.
    """
    chosen = [p.strip() for p in parts.split(",") if p.strip()]
    if not chosen or set(chosen) - set(_PARTS):
        raise InputError(f"parts must be some of {', '.join(_PARTS)}, separated by commas; got {parts!r}")
    return tuple(name for part in chosen for name in (("angles", "translation") if part == "pose" else (part,)))


def _shown(geometry: Geometry, style: str = "shaded", size: int = _PREVIEW) -> tuple[torch.Tensor, torch.Tensor]:
    """The faces alone, as IMAGE and MASK."""
    from ..pipelines.viz.geometry import render_styled

    picture, mask = render_styled(geometry.model, geometry.estimate.coefficients, style, size)
    return pixels_to_image(picture), mask_to_socket(mask)


def _result(geometry: Geometry) -> io.NodeOutput:
    """Changed coefficients with their picture under the node."""
    picture, _ = _shown(geometry)
    return io.NodeOutput(geometry, picture, ui=ui.PreviewImage(picture))


_OUTPUTS = [
    CoefficientsSocket.Output(display_name="coefficients", tooltip="For the other 3D nodes."),
    io.Image.Output(display_name="preview", tooltip="The faces, rendered alone."),
]


class LoadMorphableModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_LoadMorphableModel",
            display_name="Load Morphable Model",
            category=CATEGORY,
            is_output_node=True,
            description="Open a 3D model of the face: the built-in one, or BFM and ICT-FaceKit, which you have.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[_BUILTIN, *names(OWN, (".mat", "_morphable.safetensors", "generic_neutral_mesh.obj"))],
                    tooltip=(
                        "From models/faceveil: BFM_model_front.mat, ICT-FaceKit's folder, or a converted"
                        " NAME_morphable.safetensors."
                    ),
                ),
            ],
            outputs=[
                MorphableSocket.Output(
                    display_name="model", tooltip="For Estimate Coefficients and Load Coefficients."
                ),
                io.Image.Output(display_name="preview", tooltip="Its mean face."),
            ],
        )

    @classmethod
    def execute(cls, model: str = _BUILTIN) -> io.NodeOutput:
        from ..pipelines.geometry.builtin import built_in_morphable_model
        from ..pipelines.geometry.coefficients import neutral
        from ..pipelines.geometry.readers import load_morphable
        from ..pipelines.viz.geometry import render_styled

        if model == _BUILTIN:
            opened = built_in_morphable_model()
        else:
            path = path_of(OWN, model, "put it there and reload the page")
            opened = load_morphable(path.parent if path.suffix == ".obj" else path)
        picture = pixels_to_image(render_styled(opened, neutral(opened.name, opened.sizes), "shaded", _PREVIEW)[0])
        return io.NodeOutput(opened, picture, ui=ui.PreviewImage(picture))


class EstimateCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_EstimateCoefficients",
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
        from ..pipelines.faces.detect import detect_faces
        from ..pipelines.geometry.builtin import built_in_morphable_model
        from ..pipelines.geometry.clip import join, smooth
        from ..pipelines.geometry.fitting import Fitter
        from ..pipelines.geometry.regressor import Regressor

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
        shown = pixels_to_image(_over(geometry, pixels, "wireframe", 0.9)[0])
        return io.NodeOutput(geometry, shown, _words(geometry), ui=ui.PreviewImage(shown))


class EditCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..pipelines.geometry.names import EXPRESSION_SLIDERS, SHAPE_SLIDERS

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
            for n, tip in (("nod", "look up"), ("turn", "turn towards image right"), ("lean", "lean clockwise"))
        ]
        return io.Schema(
            node_id="FaceVeil_EditCoefficients",
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
            outputs=_OUTPUTS,
        )

    @classmethod
    def execute(
        cls, coefficients: Geometry, nod: float = 0.0, turn: float = 0.0, lean: float = 0.0, **sliders: float
    ) -> io.NodeOutput:
        from ..pipelines.geometry.sliders import apply_sliders

        changed = apply_sliders(
            coefficients.model, coefficients.estimate.coefficients, {n.replace("_", " "): v for n, v in sliders.items()}
        )
        step = torch.deg2rad(torch.tensor([-nod, turn, -lean]))
        return _result(coefficients.with_coefficients(replace(changed, angles=changed.angles + step)))


class ReplaceCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_ReplaceCoefficients",
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
            outputs=_OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, other: Geometry, parts: str, share: float) -> io.NodeOutput:
        mine, theirs = coefficients.estimate.coefficients, other.estimate.coefficients
        return _result(coefficients.with_coefficients(mine.blended(theirs, share, _fields(parts))))


class PerturbCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_PerturbCoefficients",
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
                    max=_SEED_MAX,
                    control_after_generate=True,
                    tooltip="Another seed, another change.",
                ),
                io.String.Input(
                    "parts", default="identity", tooltip="Some of identity, expression, texture, separated by commas."
                ),
            ],
            outputs=_OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, scale: float, seed: int, parts: str) -> io.NodeOutput:
        return _result(
            coefficients.with_coefficients(coefficients.estimate.coefficients.perturbed(scale, seed, _fields(parts)))
        )


class SampleGeometry(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SampleGeometry",
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
                    max=_SEED_MAX,
                    control_after_generate=True,
                    tooltip="Another seed, another person.",
                ),
                io.Int.Input("level", default=10, min=1, max=10, tooltip="1 stays akin to the face, 10 is a stranger."),
                io.Boolean.Input("texture", default=True, tooltip="Draw the skin's texture anew as well."),
            ],
            outputs=_OUTPUTS,
        )

    @classmethod
    def execute(cls, coefficients: Geometry, seed: int, level: int, texture: bool) -> io.NodeOutput:
        from ..pipelines.geometry.sampling import sample_geometry

        return _result(
            coefficients.with_coefficients(sample_geometry(coefficients.estimate.coefficients, level, seed, texture))
        )


class Render3DFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        from ..pipelines.geometry.names import STYLES

        return io.Schema(
            node_id="FaceVeil_Render3DFace",
            display_name="Render 3D Face",
            category=CATEGORY,
            description=(
                "Draw 3D faces alone or over their pictures: shaded, as normals or depth for ControlNet, as a mask or"
                " as wires."
            ),
            inputs=[
                CoefficientsSocket.Input("coefficients", tooltip="From any 3D node."),
                io.Combo.Input("style", options=list(STYLES), default="shaded", tooltip="What is drawn."),
                io.Int.Input(
                    "size", default=512, min=64, max=2048, step=64, tooltip="Of the square, when no image is connected."
                ),
                io.Float.Input("opacity", default=0.9, min=0.0, max=1.0, step=0.05, tooltip="Over an image."),
                io.Image.Input(
                    "image", optional=True, tooltip="The pictures that the coefficients come from, to draw over."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="One square a face, or the pictures with the faces over them."
                ),
                io.Mask.Output(display_name="mask", tooltip="Where the faces are."),
            ],
        )

    @classmethod
    def execute(
        cls,
        coefficients: Geometry,
        style: str,
        size: int,
        opacity: float,
        image: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        if image is None:
            return io.NodeOutput(*_shown(coefficients, style, size))
        picture, mask = _over(coefficients, image_to_pixels(image), style, opacity)
        return io.NodeOutput(pixels_to_image(picture), mask_to_socket(mask))


class ReshapeFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_ReshapeFace",
            display_name="Reshape Face",
            category=CATEGORY,
            description="Bend the photo to an edited 3D face: its own pixels follow the surface.",
            inputs=[
                io.Image.Input("image", tooltip="The pictures that the coefficients come from."),
                CoefficientsSocket.Input("coefficients", tooltip="The faces as they are, from Estimate Coefficients."),
                CoefficientsSocket.Input("edited", tooltip="The same faces after Edit, Replace, Perturb or Sample."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the faces reshaped."),
                io.Mask.Output(display_name="mask", tooltip="Where pixels moved."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, coefficients: Geometry, edited: Geometry) -> io.NodeOutput:
        from ..pipelines.geometry.reshape import reshape

        pixels, pictures, masks = image_to_pixels(image), [], []
        if coefficients.images != edited.images:
            raise InputError(
                "the edited faces come from other pictures; connect both from the same Estimate Coefficients"
            )
        for i, rows in enumerate(_rows(coefficients, len(pixels))):
            part = coefficients.estimate.rows(rows)
            picture, mask = reshape(
                coefficients.model, pixels[i : i + 1], part, edited.estimate.coefficients.rows(rows)
            )
            pictures.append(picture)
            masks.append(mask)
        return io.NodeOutput(pixels_to_image(torch.cat(pictures)), mask_to_socket(torch.cat(masks)))


class SaveCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_SaveCoefficients",
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
        from ..pipelines.geometry.coefficients import save_coefficients
        from .files import output_path

        path = output_path(filename_prefix)
        save_coefficients(path, coefficients.estimate.coefficients, coefficients.estimate.transforms)
        return io.NodeOutput(ui=ui.PreviewText(path.name))


class LoadCoefficients(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FaceVeil_LoadCoefficients",
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
            outputs=_OUTPUTS,
        )

    @classmethod
    def execute(cls, file: str, model: Any = None) -> io.NodeOutput:
        from ..pipelines.geometry.builtin import built_in_morphable_model
        from ..pipelines.geometry.coefficients import load_coefficients
        from ..pipelines.geometry.fitting import Estimate
        from .files import kept_path

        model = model or built_in_morphable_model()
        coefficients, transforms = load_coefficients(kept_path(file, "Save Coefficients"), model.name)
        estimate = Estimate(coefficients, transforms, torch.full((len(coefficients),), float("nan")))
        return _result(Geometry(model, estimate, tuple(range(len(coefficients)))))


def _over(geometry: Geometry, pixels: torch.Tensor, style: str, opacity: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Every face drawn over its picture of the batch."""
    from ..pipelines.viz.geometry import overlay

    pictures, masks = [], []
    for i, rows in enumerate(_rows(geometry, len(pixels))):
        picture, mask = overlay(geometry.model, pixels[i : i + 1], geometry.estimate.rows(rows), style, opacity)
        pictures.append(picture)
        masks.append(mask)
    return torch.cat(pictures), torch.cat(masks)


def _rows(geometry: Geometry, count: int) -> list[list[int]]:
    """Rows of coefficients of each of ``count`` pictures.

    Raises:
        InputError: a row belongs to a picture that is not there.
    """
    if max(geometry.images) >= count:
        raise InputError(
            f"the coefficients name picture {max(geometry.images)}, but there are {count}; connect the pictures they"
            " come from"
        )
    return [[row for row, image in enumerate(geometry.images) if image == i] for i in range(count)]


def _within(progress: Any, done: int, count: int) -> Any:
    """Steps of one face on the bar of all; each step can be interrupted."""
    return lambda step, total, what: progress(done * total + step, count * total, what)


def _words(geometry: Geometry) -> str:
    from ..pipelines.geometry.camera import degrees

    lines = []
    c = geometry.estimate.coefficients
    for row, error in enumerate(geometry.estimate.errors.tolist()):
        nod, turn, lean = degrees(c.angles[row])
        gaze = ", ".join(f"{v:+.2f}" for v in c.gaze[row].tolist())
        lines.append(
            f"face {row}: up {nod:+.0f}, towards image right {turn:+.0f}, clockwise {lean:+.0f} degrees; gaze {gaze};"
            f" landmarks off by {error:.1%}"
        )
    return "\n".join(lines)


NODES = [
    LoadMorphableModel,
    EstimateCoefficients,
    EditCoefficients,
    ReplaceCoefficients,
    PerturbCoefficients,
    SampleGeometry,
    Render3DFace,
    ReshapeFace,
    SaveCoefficients,
    LoadCoefficients,
]
