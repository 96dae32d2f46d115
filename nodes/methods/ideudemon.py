"""IDEudemon as separate nodes: fit HeadNeRF, protect the identity, render, compose, restore, then paste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...pipelines.core.errors import InputError
from ...pipelines.faces.crops import Place
from ...pipelines.faces.face import Faces
from ..convert import bar, image_to_pixels, mask_from_socket, mask_to_socket, pixels_to_image
from ..faces.parse import LANDMARKS, parser_input
from ..files import OWN, model_stamp, names, path_of
from ..inputs import optional_faces_input, seed_input
from ..schema import schema
from ..sockets import BUILT_IN, NONE, ROOT, CropsSocket

if TYPE_CHECKING:
    from ...pipelines.methods.ideudemon.drawing import HeadPainter, SquareFace
    from ...pipelines.methods.ideudemon.fitting import HeadFit
    from ...pipelines.methods.ideudemon.headnerf import HeadNeRF

CATEGORY = f"{ROOT}/IDEudemon"
HeadNeRFSocket = io.Custom("FACEVEIL_HEADNERF")
"""A ``HeadNeRF``."""
HeadsSocket = io.Custom("FACEVEIL_HEADS")
"""``Heads``: fitted heads."""
_CONVERT = "convert one with faceveil convert-headnerf, put it into models/faceveil, and reload the page"
_RESTORERS = ("faceveil", "upscale_models")


@dataclass(frozen=True)
class Heads:
    """Value of the heads socket.

    Attributes:
        painter: draws them.
        faces: the analyzed squares.
        fits: codes and camera of each.
    """

    painter: HeadPainter
    faces: Sequence[SquareFace]
    fits: Sequence[HeadFit]


class LoadHeadNeRF(io.ComfyNode):
    HELP = """
    Get `model_Reso32.pth` (256 px), `model_Reso32HR.pth` or `model_Reso64.pth` (512 px) from the authors of HeadNeRF,
    and run `faceveil convert-headnerf model_Reso32.pth -o models/faceveil/headnerf.safetensors` once. Their license
    allows non-commercial research only.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadHeadNeRF",
            search_aliases=["NeRF", "parametric head"],
            display_name="Load HeadNeRF",
            category=CATEGORY,
            description="Load HeadNeRF, a parametric head that is drawn as a radiance field.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=names(OWN, (".safetensors",), "headnerf") or [NONE],
                    tooltip="A file of faceveil convert-headnerf with headnerf in its name, from models/faceveil.",
                )
            ],
            outputs=[HeadNeRFSocket.Output(display_name="headnerf", tooltip="For Fit HeadNeRF.")],
        )

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str = NONE, **_: object) -> str:
        return model_stamp(OWN, checkpoint)

    @classmethod
    def execute(cls, checkpoint: str = NONE) -> io.NodeOutput:
        from ...pipelines.core.devices import best_device
        from ...pipelines.methods.ideudemon.checkpoint import open_headnerf

        return io.NodeOutput(open_headnerf(path_of(OWN, checkpoint, _CONVERT), best_device()))


class FitHeadNeRF(io.ComfyNode):
    HELP = """
    The pose comes from the built-in 3D face model; then the codes and small corrections of the camera are optimized. On
    a GPU this takes a minute or two per face, on a CPU up to an hour: use 20 to 40 *iterations* there. The fit stops
    early when the loss no longer falls.

    With a *parser*, only the head is fitted. Without one, the head is an outline around the landmarks, which cuts hair.
    With `vgg16` in `models/faceveil` the perceptual loss is the authors'; otherwise it uses the built-in recognizer.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_FitHeadNeRF",
            search_aliases=["NeRF inversion", "head fitting"],
            display_name="Fit HeadNeRF",
            category=CATEGORY,
            description="Fit HeadNeRF to each face: codes of identity, expression, albedo and light, and the camera.",
            inputs=[
                io.Image.Input("image", tooltip="Images with faces."),
                HeadNeRFSocket.Input("headnerf", tooltip="From Load HeadNeRF."),
                io.Int.Input(
                    "iterations", default=300, min=1, max=2000, tooltip="At most so many; the fit stops early."
                ),
                parser_input(),
                io.Combo.Input(
                    "vgg",
                    options=[NONE, *names(OWN, (".pth", ".safetensors"), "vgg16")],
                    tooltip="torchvision's VGG16 for the perceptual loss; none uses the built-in recognizer.",
                ),
                optional_faces_input("Fit"),
            ],
            outputs=[
                HeadsSocket.Output(display_name="heads", tooltip="For Protect Identity and Render HeadNeRF."),
                io.Image.Output(display_name="crops", tooltip="The aligned squares of the photo."),
                io.Mask.Output(display_name="masks", tooltip="The face in each square, for Hybrid Composition."),
                CropsSocket.Output(display_name="places", tooltip="Positions of the squares, for Paste Faces."),
                io.Image.Output(display_name="fitted", tooltip="The fitted heads, to check the fit."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, parser: str = LANDMARKS, vgg: str = NONE, **_: object) -> str:
        return model_stamp(OWN, parser, vgg)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        headnerf: HeadNeRF,
        iterations: int,
        parser: str = LANDMARKS,
        vgg: str = NONE,
        faces: Faces | None = None,
    ) -> io.NodeOutput:
        from ...pipelines.core.devices import best_device
        from ...pipelines.core.progress import part_of
        from ...pipelines.faces.detect import detect_faces
        from ...pipelines.faces.parse import open_parser
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.fitting import Fitter
        from ...pipelines.methods.ideudemon.drawing import HeadPainter
        from ...pipelines.methods.ideudemon.mesh import fit_mesh
        from ...pipelines.methods.ideudemon.method import Prepared, square_face
        from ...pipelines.training.perceptual import open_features

        pixels, progress = image_to_pixels(image), bar()
        found = detect_faces(pixels) if faces is None else faces
        found.check(pixels)
        chosen = [face for face in found if face.landmarks]
        if not chosen:
            raise InputError("no face with landmarks was found; connect images that show a face from the front")
        opened = None if parser == LANDMARKS else open_parser(path_of(OWN, parser, "put a face parser there"))
        device, fitter = best_device(), Fitter(built_in_morphable_model())
        features = open_features(None if vgg == NONE else path_of(OWN, vgg, "put torchvision's VGG16 there"), device)
        painter = HeadPainter(headnerf, iterations, features, opened)
        squares, fits, places = [], [], []
        for done, face in enumerate(chosen):
            one = pixels[face.image : face.image + 1]
            square = square_face(Prepared(one, face, fit_mesh(fitter, one, face)), painter.size, opened)
            squares.append(square)
            fits.append(painter.fit(square, part_of(progress, done, len(chosen))))
            places.append(Place(face, square.transform, square.size))
        fitted = pixels_to_image(torch.cat([fit.image for fit in fits]))
        return io.NodeOutput(
            Heads(painter, tuple(squares), tuple(fits)),
            pixels_to_image(torch.cat([s.square for s in squares])),
            mask_to_socket(torch.cat([s.masks.face for s in squares])),
            tuple(places),
            fitted,
            ui=ui.PreviewImage(fitted),
        )


class ProtectIdentity(io.ComfyNode):
    HELP = """
    z' = clamp(z + n, -1, 1): the same seeded noise n for all heads, so connect the heads of one person only. The paper
    recommends a *scale* of 0.2 to 0.3; below, the person stays similar, above, faces become strange. Expression, albedo
    and light stay.

    For the built-in mesh model use **Perturb Coefficients**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_ProtectIdentity",
            search_aliases=["identity noise", "IDEudemon"],
            display_name="Protect Identity",
            category=CATEGORY,
            description="Add seeded noise to the identity codes of fitted heads: step I of IDEudemon.",
            inputs=[
                HeadsSocket.Input("heads", tooltip="From Fit HeadNeRF."),
                io.Float.Input(
                    "scale",
                    default=0.25,
                    min=0.0,
                    max=0.4,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="Standard deviation of the noise. 0 changes nothing, 0.2 to 0.3 is recommended.",
                ),
                seed_input(),
            ],
            outputs=[HeadsSocket.Output(display_name="heads", tooltip="The protected heads.")],
        )

    @classmethod
    def execute(cls, heads: Heads, scale: float, seed: int) -> io.NodeOutput:
        from ...pipelines.methods.ideudemon.protect import SCALE, protected_codes

        fits = tuple(replace(fit, codes=protected_codes(fit.codes, scale / SCALE, seed)) for fit in heads.fits)
        return io.NodeOutput(replace(heads, fits=fits))


class RenderHeadNeRF(io.ComfyNode):
    HELP = """
    Connect *drawn* and *masks* to **Hybrid Composition** to put the heads into the photos. Angles other than 0 turn the
    heads away from the photo's pose, to look at them from the side.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        def angle(name: str, tip: str) -> io.Float.Input:
            return io.Float.Input(name, default=0.0, min=-45.0, max=45.0, step=1.0, tooltip=f"Degrees to {tip}.")

        return schema(
            node_id="FaceVeil_RenderHeadNeRF",
            search_aliases=["novel view", "NeRF"],
            display_name="Render HeadNeRF",
            category=CATEGORY,
            description="Draw fitted heads, in the pose of the photo or turned.",
            inputs=[
                HeadsSocket.Input("heads", tooltip="From Fit HeadNeRF or Protect Identity."),
                angle("pitch", "look at the head from above"),
                angle("yaw", "look at the head from image right"),
            ],
            outputs=[
                io.Image.Output(display_name="drawn", tooltip="The heads in front of white, one square each."),
                io.Mask.Output(display_name="masks", tooltip="The drawn faces, without hair."),
            ],
        )

    @classmethod
    def execute(cls, heads: Heads, pitch: float, yaw: float) -> io.NodeOutput:
        angles, progress = torch.deg2rad(torch.tensor([[-pitch, yaw, 0.0]])), bar()
        drawn = []
        for done, (face, fit) in enumerate(zip(heads.faces, heads.fits, strict=True)):
            progress(done, len(heads.fits), "rendering heads")
            camera = fit.camera.moved(angles.to(fit.camera.center), torch.zeros_like(fit.camera.center))
            drawn.append(heads.painter.draw(face, fit.codes, camera))
        progress(len(drawn), len(drawn), "rendering heads")
        image = pixels_to_image(torch.cat([d.image for d in drawn]))
        return io.NodeOutput(image, mask_to_socket(torch.cat([d.face for d in drawn])), ui=ui.PreviewImage(image))


class HybridComposition(io.ComfyNode):
    HELP = """
    Where *mask* is, the photo's face is replaced by the drawn one; hair, glasses, neck and background stay the photo's.
    Where the old face was and no new one is, the result is white, which *fill* replaces by the colors around it. Send
    the result to **Restore Face**, or to any inpainting with *gaps* as its mask.

    It works with any drawing of the same size: HeadNeRF's, or **Render 3D Face** with *image* and opacity 1.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_HybridComposition",
            search_aliases=["face composite", "visual similarity assistance"],
            display_name="Hybrid Composition",
            category=CATEGORY,
            description="Compose a drawn face with the hair, neck and background of the photo.",
            inputs=[
                io.Image.Input("image", tooltip="The photos, or their aligned squares."),
                io.Mask.Input("mask", tooltip="The photo's face, from Parse Face or Fit HeadNeRF."),
                io.Image.Input("drawn", tooltip="The drawn heads, of the same size."),
                io.Mask.Input("drawn_mask", tooltip="The drawn faces."),
                io.Boolean.Input("fill", default=True, tooltip="Fill the gaps with the colors around them."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The hybrid images."),
                io.Mask.Output(display_name="gaps", tooltip="Where the old face was and no new one is."),
            ],
        )

    @classmethod
    def execute(cls, image: Tensor, mask: Tensor, drawn: Tensor, drawn_mask: Tensor, fill: bool) -> io.NodeOutput:
        from ...pipelines.methods.ideudemon.hybrid import fill_gaps, hybrid_image

        photo, head = image_to_pixels(image), image_to_pixels(drawn)
        if photo.shape != head.shape:
            raise InputError(
                f"{len(head)} drawn heads of {head.shape[-1]} x {head.shape[-2]} px do not fit {len(photo)} images of"
                f" {photo.shape[-1]} x {photo.shape[-2]} px; connect both from the same faces"
            )
        face, drawn_face = (
            (mask_from_socket(m, len(photo), *photo.shape[-2:]) > 0.5).float() for m in (mask, drawn_mask)
        )
        gaps = face * (1 - drawn_face)
        hybrid = hybrid_image(photo, face, head, drawn_face)
        return io.NodeOutput(pixels_to_image(fill_gaps(hybrid, gaps) if fill else hybrid), mask_to_socket(gaps))


class RestoreFace(io.ComfyNode):
    HELP = """
    The squares must be aligned as in **Crop Faces** with *ffhq*. The built-in restorer works at 256 px; it learned to
    make drawings of the built-in 3D model photo-real. Restorers that spandrel knows also work: GFPGAN (1.2 to 1.4),
    RestoreFormer, and CodeFormer where spandrel_extra_arches is installed, at 512 px. The result has the size of the
    input.

    Public restorers were trained to repair photos, not to fill gaps, and may bring back a likeness. Compare the result
    with the original by **Compare Identity**.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_RestoreFace",
            search_aliases=["GFPGAN", "CodeFormer", "face restoration"],
            display_name="Restore Face",
            category=CATEGORY,
            description="Make composed or damaged faces photo-real with a face restorer: step II of IDEudemon.",
            inputs=[
                io.Image.Input("crops", tooltip="Aligned squares, from Crop Faces or Hybrid Composition."),
                io.Combo.Input(
                    "restorer",
                    options=[BUILT_IN, *names(_RESTORERS, (".safetensors", ".pth"))],
                    tooltip="built-in, or a face restorer in models/upscale_models or models/faceveil.",
                ),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 keeps the input, 1 is the restored face.",
                ),
            ],
            outputs=[io.Image.Output(display_name="crops", tooltip="The restored squares, of the same size.")],
        )

    @classmethod
    def fingerprint_inputs(cls, restorer: str = BUILT_IN, **_: object) -> str:
        return model_stamp(_RESTORERS, restorer)

    @classmethod
    def execute(cls, crops: Tensor, restorer: str = BUILT_IN, share: float = 1.0) -> io.NodeOutput:
        from ...pipelines.imaging.resample import resize
        from ...pipelines.methods.ideudemon.restorer import open_restorer

        squares, progress = image_to_pixels(crops), bar()
        if squares.shape[-1] != squares.shape[-2]:
            raise InputError("restorers need squares; connect Crop Faces or Hybrid Composition of its squares")
        remedy = "put a face restorer there and reload the page"
        restore = open_restorer() if restorer == BUILT_IN else open_restorer(path_of(_RESTORERS, restorer, remedy))
        drawn = []
        for done, square in enumerate(squares.split(1)):
            progress(done, len(squares), "restoring faces")
            drawn.append(resize(restore(square), *square.shape[-2:]).clamp(0, 1))
        progress(len(squares), len(squares), "restoring faces")
        return io.NodeOutput(pixels_to_image(torch.lerp(squares, torch.cat(drawn), share)))


NODES = [LoadHeadNeRF, FitHeadNeRF, ProtectIdentity, RenderHeadNeRF, HybridComposition, RestoreFace]
