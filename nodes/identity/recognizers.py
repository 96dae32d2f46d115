"""Node that loads a face recognizer."""

from __future__ import annotations

from comfy_api.latest import io

from ..files import FACES, model_stamp, names, path_of
from ..schema import schema
from ..sockets import NONE, RecognizerSocket
from .common import CATEGORY

_NETWORKS = (".onnx", ".pt", ".pth", ".safetensors")


class LoadRecognizer(io.ComfyNode):
    HELP = """
    Put the file into `models/faceveil` or `models/insightface`. *arcface*: `w600k_r50.onnx` of insightface. *adaface*,
    *sphereface*, *mobileface*: files of uniface with their original names, checked by SHA-256. *facenet*:
    `20180402-114759-vggface2.pt` of facenet-pytorch. *farl*: `FaRL-Base-Patch16-LAIONFace20M-ep64.pth`.

    Some kinds also need a package: `pip install insightface uniface`.

    **Thresholds.** AdaFace, SphereFace and MobileFace use the threshold of ArcFace, which was not measured for them.
    FaRL has no threshold. `faceveil calibrate` measures one on photos of different people; enter it as *threshold*.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        from ...pipelines.recognition.kinds import KINDS

        return schema(
            node_id="FaceVeil_LoadRecognizer",
            search_aliases=["ArcFace", "AdaFace", "FaceNet", "FaRL"],
            display_name="Load Recognizer",
            category=CATEGORY,
            description="Load a face recognizer from your own file. Nothing is downloaded.",
            inputs=[
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    tooltip="dlib and faceveil need no file. Identities of different recognizers cannot be mixed.",
                ),
                io.Combo.Input(
                    "file",
                    options=[NONE, *names(FACES, _NETWORKS)],
                    tooltip="Weights file from models/faceveil or models/insightface.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.0,
                    min=0.0,
                    max=4.0,
                    step=0.01,
                    tooltip=(
                        "Faces whose distance is smaller show one person. 0 uses the known threshold;"
                        " faceveil calibrate measures another."
                    ),
                ),
            ],
            outputs=[
                RecognizerSocket.Output(
                    display_name="recognizer",
                    tooltip="For Veil Faces, Embed Faces, Build Synthetic Bank and Swap with Identity.",
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str = NONE, **_: object) -> str:
        return model_stamp(FACES, file)

    @classmethod
    def execute(cls, kind: str, file: str = NONE, threshold: float = 0.0) -> io.NodeOutput:
        from ...pipelines.recognition.catalog import open_recognizer

        path = None if file == NONE else path_of(FACES, file, "put the file there and reload the page")
        recognizer = open_recognizer(kind, path)
        return io.NodeOutput(recognizer.with_threshold(threshold) if threshold else recognizer)


NODES = [LoadRecognizer]
