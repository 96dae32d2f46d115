"""Node that opens a 3D morphable model."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..convert import pixels_to_image
from ..files import OWN, names, path_of
from ..schema import schema
from ..sockets import BUILT_IN, MorphableSocket
from .common import CATEGORY, PREVIEW_SIDE


class LoadMorphableModel(io.ComfyNode):
    HELP = """
    The **built-in** model (2,440 vertices, 40 shapes, 7 expressions, 48 textures) needs nothing. **BFM** is
    prepared with Deep3DFaceRecon and needs a registration; **ICT-FaceKit** is a clone of its repository (MIT), put
    into `models/faceveil`. `faceveil convert-morphable` turns either into one file that opens at once. All are kept
    in decimeters with the same camera, so that nodes treat them alike.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="FaceVeil_LoadMorphableModel",
            search_aliases=["3DMM", "BFM", "ICT-FaceKit"],
            display_name="Load Morphable Model",
            category=CATEGORY,
            is_output_node=True,
            description="Open a 3D model of the face: the built-in one, or BFM and ICT-FaceKit, which you have.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[BUILT_IN, *names(OWN, (".mat", "_morphable.safetensors", "generic_neutral_mesh.obj"))],
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
    def execute(cls, model: str = BUILT_IN) -> io.NodeOutput:
        from ...pipelines.geometry.builtin import built_in_morphable_model
        from ...pipelines.geometry.coefficients import neutral
        from ...pipelines.geometry.readers import load_morphable
        from ...pipelines.viz.geometry import render_styled

        if model == BUILT_IN:
            opened = built_in_morphable_model()
        else:
            path = path_of(OWN, model, "put it there and reload the page")
            opened = load_morphable(path.parent if path.suffix == ".obj" else path)
        picture = pixels_to_image(render_styled(opened, neutral(opened.name, opened.sizes), "shaded", PREVIEW_SIDE)[0])
        return io.NodeOutput(opened, picture, ui=ui.PreviewImage(picture))


NODES = [LoadMorphableModel]
