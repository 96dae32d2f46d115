"""Node that loads a 3D morphable model."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io, ui

from ..convert import pixels_to_image
from ..files import OWN, model_stamp, names, path_of
from ..schema import schema
from ..sockets import BUILT_IN, MorphableSocket
from .common import CATEGORY, PREVIEW_SIDE


class LoadMorphableModel(io.ComfyNode):
    HELP = """
    The **built-in** model (2,416 vertices, 40 shapes, 7 expressions, 48 textures) needs no file. All 3D nodes work with
    all models, except **Sample Geometry**, which needs the built-in model.

    **BFM** requires a registration with its authors; prepare `BFM_model_front.mat` with Deep3DFaceRecon.
    For **ICT-FaceKit** (MIT), clone its repository. Put either into `models/faceveil`. `faceveil convert-morphable`
    converts it to one file that loads faster.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadMorphableModel",
            search_aliases=["3DMM", "BFM", "ICT-FaceKit"],
            display_name="Load Morphable Model",
            category=CATEGORY,
            is_output_node=True,
            description="Load a 3D face model: the built-in model, or your copy of BFM or ICT-FaceKit.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUILT_IN, *names(OWN, (".mat", "_morphable.safetensors", "generic_neutral_mesh.obj"))],
                    tooltip=(
                        "built-in, or a file from models/faceveil: BFM_model_front.mat, generic_neutral_mesh.obj of"
                        " ICT-FaceKit, or a converted NAME_morphable.safetensors."
                    ),
                ),
            ],
            outputs=[
                MorphableSocket.Output(
                    display_name="model", tooltip="For Estimate Coefficients and Load Coefficients."
                ),
                io.Image.Output(display_name="preview", tooltip="The mean face of the model."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str = BUILT_IN, **_: object) -> str:
        return model_stamp(OWN, model)

    @classmethod
    def execute(cls, model: str = BUILT_IN) -> io.NodeOutput:
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.coefficients import neutral
        from ...pipelines.geometry.lighting import soft_light
        from ...pipelines.geometry.readers import load_morphable
        from ...pipelines.viz.geometry import render_styled

        if model == BUILT_IN:
            opened = built_in_morphable_model()
        else:
            path = path_of(OWN, model, "put the file there and reload the page")
            opened = load_morphable(path.parent if path.suffix == ".obj" else path)
        face = replace(neutral(opened.name, opened.sizes), lighting=soft_light())
        preview = pixels_to_image(render_styled(opened, face, "shaded", PREVIEW_SIDE)[0])
        return io.NodeOutput(opened, preview, ui=ui.PreviewImage(preview))


NODES = [LoadMorphableModel]
