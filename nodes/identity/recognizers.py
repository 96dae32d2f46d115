"""Node that opens a face recognizer."""

from __future__ import annotations

from comfy_api.latest import io

from ..files import FACES, names, path_of
from ..schema import schema
from ..sockets import NONE, RecognizerSocket
from .common import CATEGORY

_NETWORKS = (".onnx", ".pt", ".pth", ".safetensors")


class LoadRecognizer(io.ComfyNode):
    HELP = """
    *arcface*: `w600k_r50.onnx` of insightface. *adaface*, *sphereface*, *mobileface*: uniface's files under their
    own names, checked by SHA-256. *facenet*: `20180402-114759-vggface2.pt` of facenet-pytorch. *farl*: `FaRL-Base-
    Patch16-LAIONFace20M-ep64.pth`. They differ in who looks alike: the thresholds of AdaFace, SphereFace and
    MobileFace are ArcFace's, unmeasured, and FaRL has none; `faceveil calibrate` measures one on photos of
    strangers. insightface and uniface are installed with `pip install insightface uniface`.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...pipelines.recognition.kinds import KINDS

        return schema(
            node_id="FaceVeil_LoadRecognizer",
            search_aliases=["ArcFace", "AdaFace", "FaceNet", "FaRL"],
            display_name="Load Recognizer",
            category=CATEGORY,
            description="Open a recognizer that you have, in place of the built-in dlib. Nothing is downloaded.",
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    tooltip="dlib needs no file. Vectors of different recognizers cannot be mixed.",
                ),
                io.Combo.Input(
                    "file",
                    options=[NONE, *names(FACES, _NETWORKS)],
                    tooltip="From models/faceveil or models/insightface.",
                ),
            ],
            outputs=[
                RecognizerSocket.Output(
                    display_name="recognizer", tooltip="For Embed Faces, Build Synthetic Bank and Swap with Identity."
                )
            ],
        )

    @classmethod
    def execute(cls, kind: str, file: str = NONE) -> io.NodeOutput:
        from ...pipelines.recognition.catalog import open_recognizer

        path = None if file == NONE else path_of(FACES, file, "put it there and reload the page")
        return io.NodeOutput(open_recognizer(kind, path))


NODES = [LoadRecognizer]
