"""Detectors and landmark networks of ``insightface`` and ``uniface``.

The user provides the model files; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..core.errors import WeightsError
from ..imaging.uint8 import to_uint8
from .detectors import Detection

# Index of each of the 68 iBUG landmarks among the 106 points of "2d106det".
FROM_106 = np.array(
    [1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17]
    + [43, 48, 49, 51, 50, 102, 103, 104, 105, 101, 72, 73, 74, 86, 78, 79, 80, 85, 84]
    + [35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90]
    + [52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54]
)


class ExternalDetector:
    """A detector of ``insightface`` or ``uniface`` with a model file of the user.

    Raises:
        WeightsError: the file or the package is missing, or the file is not a detector.
    """

    def __init__(self, kind: str, path: Path) -> None:
        if not path.is_file():
            raise WeightsError(f"detector file {path.name} does not exist; download it and give its path")
        self._kind, self._model = kind, _open_detector(kind, path)

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        bgr = np.ascontiguousarray(to_uint8(image)[:, :, ::-1])
        rows: list[tuple[np.ndarray, Any]]
        if self._kind == "insightface":
            boxes, points = self._model.detect(bgr, input_size=(640, 640))
            rows = list(zip(boxes, points if points is not None else [None] * len(boxes), strict=True))
        else:
            rows = [(np.append(f.bbox, f.confidence), f.landmarks) for f in self._model.detect(bgr)]
        return [
            Detection(
                np.asarray(box[:4], float),
                float(box[4]),
                None if five is None else np.asarray(five, float).reshape(5, 2),
            )
            for box, five in rows
            if box[4] >= threshold
        ]


class ExternalLandmarks:
    """A landmark network of both packages: ``1k3d68.onnx`` (68 points in 3D) or ``2d106det.onnx`` (106 points).

    Raises:
        WeightsError: the file or the insightface package is missing, or the file is not one of these networks.
    """

    def __init__(self, path: Path) -> None:
        self._model = _open_landmarks(path)

    def __call__(self, image: Tensor, box: np.ndarray) -> np.ndarray | None:
        from insightface.app.common import Face as InsightFace

        bgr = np.ascontiguousarray(to_uint8(image)[:, :, ::-1])
        found = np.asarray(self._model.get(bgr, InsightFace(bbox=np.asarray(box, np.float32))), dtype=np.float64)
        points = found[FROM_106] if len(found) == 106 else found[:, :2]
        # Here the center of a pixel is at index + 0.5, in insightface at index.
        return points + 0.5 if np.isfinite(points).all() else None


def _open_landmarks(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"landmark file {path.name} does not exist; download it and give its path")
    try:
        from insightface.model_zoo.landmark import Landmark
    except ImportError:
        raise WeightsError("the insightface package is missing; install it with: pip install insightface") from None
    try:
        model = Landmark(str(path))
    except Exception as error:  # the loader passes on all errors of onnxruntime
        raise WeightsError(
            f"{path.name} is not a landmark model that insightface can open ({type(error).__name__}); download it again"
        ) from None
    if (model.lmk_num, model.lmk_dim) not in ((68, 3), (106, 2)):
        raise WeightsError(f"{path.name} predicts {model.lmk_num} points; use 1k3d68.onnx or 2d106det.onnx")
    return model


def _open_detector(kind: str, path: Path) -> Any:
    try:
        return _open_insightface(path) if kind == "insightface" else _open_uniface(path)
    except ImportError:
        raise WeightsError(f"the {kind} package is missing; install it with: pip install {kind}") from None


def _open_insightface(path: Path) -> Any:
    from insightface.model_zoo import get_model

    try:
        model = get_model(str(path), providers=["CPUExecutionProvider"])
        model.prepare(ctx_id=-1, input_size=(640, 640))
    except Exception as error:  # the loader passes on all errors of onnxruntime
        raise WeightsError(
            f"{path.name} is not a detector that insightface can open ({type(error).__name__}); download it again"
        ) from None
    return model


def _open_uniface(path: Path) -> Any:
    from uniface import constants
    from uniface.detection import SCRFD, RetinaFace

    known = {
        w.value: (cls, w)
        for cls, names in ((SCRFD, constants.SCRFDWeights), (RetinaFace, constants.RetinaFaceWeights))
        for w in names
    }
    return open_uniface(path, "detector", known, confidence_threshold=0.3)


def open_uniface(path: Path, what: str, known: Mapping[str, tuple[Any, Any]], **options: Any) -> Any:
    """Open a network of uniface from a file of the user.

    uniface looks its files up by name in one folder and downloads a file that is missing or damaged. This function
    first checks that the file exists and is intact, so that nothing is downloaded.

    Args:
        path: the ONNX file.
        what: the kind of network, for error messages.
        known: maps the file name without its extension to the class and the name of the weights.
        options: keyword arguments of the class.

    Raises:
        WeightsError: the file is missing, or is not one of the files of uniface.
    """
    from unittest.mock import patch

    from uniface import constants, model_store

    if not path.is_file():
        raise WeightsError(f"{what} file {path.name} does not exist; download it and give its path")
    if path.stem not in known or path.suffix != ".onnx":
        raise WeightsError(
            f"{path.name} is not a {what} of uniface; the files of uniface are named"
            f" {', '.join(f'{n}.onnx' for n in sorted(known))}"
        )
    cls, name = known[path.stem]
    if not model_store.verify_file_hash(str(path), constants.MODEL_REGISTRY[name].sha256):
        raise WeightsError(f"{path.name} is not the original file of uniface (SHA-256 differs); download it again")
    with patch.dict("os.environ", {"UNIFACE_CACHE_DIR": str(path.parent)}):
        return cls(model_name=name, **options)
