"""Search one image for faces: at several sizes and rotations first, then a second look at each uncertain candidate.

CenterFace alone at the image's own size misses what is small, noisy or behind a wire grid. Its score map still peaks
there, far below any useful threshold. Each such peak is therefore cut out, enlarged or reduced to a size that the
detector knows best, and scored again: true faces then score above 0.4, and nearly everything else stays below
(``benchmarks/hard_faces.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.progress import Progress, part_of, silent
from ..imaging.resample import each_plane, resize, resize_inside
from .align import apply, box_transform, crop, invert
from .detectors import CenterFace, Detection, Detector
from .face import SURE_SCORE
from .names import SensitivityName

MAX_SIDE = 5000
"""Longer side, in pixels, up to which an image is searched at its own size."""
OTHER_SIDE = 2800
"""The same for other detectors than CenterFace."""
TILE, TILE_OVERLAP = 1536, 256
"""Maximum side and overlap, in pixels, of the tiles of a large image: memory grows with the tile, not with the image.
Faces larger than the overlap are found at the smaller sizes."""
SCALES = (960, 416)
"""Longer sides, in pixels, to which an image is also reduced: faces above 300 px are found there."""
MARGIN_SIDE, MARGIN = 300, 0.4
"""A face that fills the image is found only with a margin around it, here as a share of the reduced image."""
ROTATIONS = (90, 180, 270, 45, 315)
"""Degrees by which the image is rotated to detect rotated heads."""
ROTATED_SIDES = (416, 800)
"""Bounds, in pixels, of the longer side of rotated images, which is half that of the original image."""
WIRE_SIDES = (200, 1400)
"""Bounds, in pixels, of the longer side of the images without wires, which is half that of the original image."""
WIRE = 3
"""Side, in pixels, of the morphological closing and opening that remove dark and bright wires in front of a face."""
LESS = 0.9
"""Factor on the scores of altered views: a detection of the same face in the unaltered image is preferred."""

THRESHOLD = SURE_SCORE
"""Score from which a detection is sure: true faces score above 0.7 at their best scale."""
ROTATED_THRESHOLD = 0.6
"""The same for a face in a rotated image, before ``LESS``."""
PROPOSED = 0.03
"""Score from which a candidate is looked at again."""
MAX_PROPOSED = 150
"""Candidates that are looked at again; the best ones of more."""
LOOK = 128
"""Side, in pixels, of a second look."""
LOOK_FACES = (32, 56)
"""Sizes, in pixels, of the face in the second looks."""
SAME_PLACE = 0.3
"""Intersection over union of a candidate with what the second look finds in its place."""
INSIDE = 0.7
"""Share of a box that lies inside another, from which it is a part of it."""
SAME_CANDIDATE = 0.5
"""Intersection over union of two candidates that are looked at once."""
OVERLAP = 0.35
"""Overlap from which two detections are one face."""


@dataclass(frozen=True)
class Sensitivity:
    """How much is done to miss no face.

    Attributes:
        accepted: score, 0 to 1, from which a candidate is a face. From ``THRESHOLD`` on it is replaced, below redacted.
        min_size: minimum shorter side of a box in pixels.
        enlarged: factors by which the image is also enlarged, up to ``MAX_SIDE``.
        thorough: also looks at each candidate rotated by quarter turns, and asks a detector of another family.
        grow: factor on the box of an uncertain face, so that it includes the head.
    """

    accepted: float
    min_size: float
    enlarged: tuple[float, ...] = ()
    thorough: bool = False
    grow: float = 1.0


SENSITIVITIES: dict[SensitivityName, Sensitivity] = {
    "normal": Sensitivity(accepted=0.4, min_size=6.0),
    "high": Sensitivity(accepted=0.25, min_size=4.0, enlarged=(2.0, 3.0), thorough=True),
    "maximum": Sensitivity(accepted=0.06, min_size=4.0, enlarged=(2.0, 3.0), thorough=True, grow=1.5),
}


@dataclass(frozen=True)
class _View:
    """One altered copy of the image.

    Attributes:
        image: ``(1, 3, h, w)``.
        to_image: maps points ``(N, 2)`` of it into the image.
        core: ``(x1, y1, x2, y2)`` in pixels of the view, outside which a neighboring view knows better.
        lowest: minimum score.
        factor: on the scores.
    """

    image: Tensor
    to_image: Callable[[np.ndarray], np.ndarray]
    core: tuple[float, float, float, float] | None = None
    lowest: float = PROPOSED
    factor: float = 1.0


def search(
    image: Tensor,
    detectors: Sequence[Detector],
    sensitivity: Sensitivity = SENSITIVITIES["normal"],
    rotated: bool = True,
    progress: Progress = silent,
) -> list[Detection]:
    """Detections in one image, each face once.

    Args:
        image: ``(1, 3, H, W)``, RGB in [0, 1].
        detectors: the union of what they find is returned; where two find one face, it is the earlier one's.
        rotated: also detect heads that lie on their side or upside down.
        progress: called before each view.
    """
    united: list[Detection] = []
    for number, detector in enumerate(detectors):
        found: list[Detection] = []
        # Only CenterFace is cheap enough, and knows faces that are small enough, to be shown everything.
        every = isinstance(detector, CenterFace)
        limit = OTHER_SIDE if not every else None if sensitivity.thorough else MAX_SIDE
        # The other views are made from this one: each would have to read all pixels of a large image again.
        base, scale = (image, 1.0) if limit is None else resize_inside(image, limit)
        # The first detector has found the rotated heads already.
        for done, view in enumerate(_views(base, sensitivity, rotated and number == 0, every)):
            part_of(progress, 2 * number, 2 * len(detectors))(0, 1, f"searching (view {done + 1})")
            lowest = view.lowest if every else max(view.lowest, min(sensitivity.accepted, THRESHOLD))
            found += [_scaled(_mapped(d, view), scale) for d in detector(view.image, lowest) if _in_core(d, view)]
        if every:
            looks = part_of(progress, 2 * number + 1, 2 * len(detectors))
            found = _second_looks(image, found, detector, sensitivity, looks)
        kept = suppress([d for d in found if _is_accepted(d, image, sensitivity)])
        # Scores of different detectors cannot be compared: the box of an earlier one stays.
        known = np.array([d.box for d in united]).reshape(-1, 4)
        united += [d for d in kept if not (_overlaps(d.box, known) >= OVERLAP).any()]
    return [_grown(d, sensitivity.grow) for d in united]


def _is_accepted(d: Detection, image: Tensor, sensitivity: Sensitivity) -> bool:
    large = min(d.box[2:] - d.box[:2]) >= sensitivity.min_size
    return d.score >= sensitivity.accepted and bool(large) and _center_inside(d.box, image)


def suppress(found: Sequence[Detection], overlap: float = OVERLAP) -> list[Detection]:
    """Non-maximum suppression: keep the best of each group of boxes that overlap (intersection over union), or of which
    one lies inside a better one.

    A large face with a better, small one in front of it is kept, unless it is uncertain.
    """
    kept: list[Detection] = []
    boxes = np.empty((0, 4))
    for d in sorted(found, key=lambda d: -d.score):
        both, _, areas = _areas(d.box, boxes)
        known = (_overlaps(d.box, boxes) >= overlap) | ((both >= INSIDE * areas) & (d.score < THRESHOLD))
        if not known.any():
            kept.append(d)
            boxes = np.concatenate([boxes, d.box[None]])
    return kept


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union ``(N,)`` of a box with boxes ``(N, 4)``."""
    both, area, areas = _areas(box, others)
    return both / (area + areas - both)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The same, or half of the share of the box inside another, so that a part of a face that was detected at another
    scale counts as the same face."""
    both, area, areas = _areas(box, others)
    return np.maximum(both / (area + areas - both), 0.5 * both / area)


def _areas(box: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Areas of the intersections ``(N,)``, of the box, and of the others ``(N,)``."""
    size = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.prod(np.maximum(size, 0), axis=1)
    return both, float(np.prod(box[2:] - box[:2])), np.prod(others[:, 2:] - others[:, :2], axis=1)


def _views(image: Tensor, sensitivity: Sensitivity, rotated: bool, every: bool) -> Iterator[_View]:
    """The image at several sizes, in tiles, with a margin, without wires, enlarged and rotated."""
    longest = max(image.shape[-2:])
    # A size that is at least two thirds of the image's own size adds no detections.
    for side in (longest, *(s for s in SCALES if 1.5 * s < longest)):
        yield from _tiles(*resize_inside(image, side))
    yield _with_margin(image)
    if every:
        small, scale = resize_inside(image, int(np.clip(longest / 2, *WIRE_SIDES)))
        for without in (_closed(small), -_closed(-small)):
            yield from _tiles(without, scale, factor=LESS)
        for factor in sensitivity.enlarged:
            height, width = (round(n * factor) for n in image.shape[-2:])
            if max(height, width) <= MAX_SIDE:
                yield from _tiles(resize(image, height, width), factor)
    if rotated:
        yield from _rotated(image, ROTATED_THRESHOLD if not sensitivity.thorough else sensitivity.accepted / LESS)


def _tiles(image: Tensor, scale: float, factor: float = 1.0) -> Iterator[_View]:
    """Overlapping tiles of an image that was resized by ``scale``."""
    height, width = image.shape[-2:]
    half = TILE_OVERLAP / 2
    for y, h in _spans(height):
        for x, w in _spans(width):
            tile = image[..., y : y + h, x : x + w]
            # A face at an inner edge is whole in the next tile.
            core = (
                0.0 if x == 0 else half,
                0.0 if y == 0 else half,
                float(w) if x + w == width else w - half,
                float(h) if y + h == height else h - half,
            )

            def to_image(p: np.ndarray, corner: tuple[int, int] = (x, y)) -> np.ndarray:
                return (p + corner) / scale

            whole = x == 0 and y == 0 and (h, w) == (height, width)
            yield _View(_padded(tile), to_image, None if whole else core, factor=factor)


def _spans(length: int) -> list[tuple[int, int]]:
    """First pixel and length of the tiles of one axis: as few as possible, of about equal length."""
    count = max(1, -(-(length - TILE_OVERLAP) // (TILE - TILE_OVERLAP)))
    side = -(-(length + (count - 1) * TILE_OVERLAP) // count)
    starts = [i * (side - TILE_OVERLAP) for i in range(count)]
    return [(start, min(side, length - start)) for start in starts]


def _with_margin(image: Tensor) -> _View:
    small, scale = resize_inside(image, MARGIN_SIDE)
    height, width = small.shape[-2:]
    dy, dx = round(height * MARGIN), round(width * MARGIN)
    padded = F.pad(small, (dx, dx, dy, dy), value=0.5)
    return _View(padded, lambda p: (p - [dx, dy]) / scale)


def _closed(image: Tensor) -> Tensor:
    """Morphological closing: lines darker than what is around them disappear."""
    import cv2

    square = np.ones((WIRE, WIRE), np.uint8)
    return each_plane(image, lambda plane: cv2.morphologyEx(plane, cv2.MORPH_CLOSE, square))


def _rotated(image: Tensor, lowest: float) -> Iterator[_View]:
    small, scale = resize_inside(image, int(np.clip(max(image.shape[-2:]) / 2, *ROTATED_SIDES)))
    size = np.array([small.shape[-1], small.shape[-2]])
    side = int(np.ceil(np.hypot(*size)))
    x0, y0 = (side - size) // 2
    canvas = torch.full((1, 3, side, side), 0.5)
    canvas[..., y0 : y0 + size[1], x0 : x0 + size[0]] = small
    for degrees in ROTATIONS:
        view = torch.rot90(small, degrees // 90, (2, 3)) if degrees % 90 == 0 else _turned(canvas, degrees)
        center = np.array([view.shape[-1], view.shape[-2]]) / 2
        angle = np.deg2rad(degrees)
        # Counter-clockwise rotation of the image about its center, with y pointing down.
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

        def to_image(p: np.ndarray, rotation: np.ndarray = rotation, center: np.ndarray = center) -> np.ndarray:
            return ((p - center) @ rotation + size / 2) / scale

        yield _View(view, to_image, lowest=lowest, factor=LESS)


def _turned(square: Tensor, degrees: float) -> Tensor:
    """A square image, rotated counter-clockwise about its center; what comes in at the corners is black."""
    import cv2

    side = square.shape[-1]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, 1.0)
    return each_plane(square, lambda plane: np.asarray(cv2.warpAffine(plane, turn, (side, side))))


def _second_looks(
    image: Tensor, found: Sequence[Detection], detector: Detector, sensitivity: Sensitivity, progress: Progress
) -> list[Detection]:
    """Score uncertain candidates again, each cut out at the sizes that the detector knows best."""
    sure = suppress([d for d in found if d.score >= THRESHOLD])
    uncertain = _candidates([d for d in found if _center_inside(d.box, image)], sure)
    turns = (0, 1, 2, 3) if sensitivity.thorough else (0,)
    for done, candidate in enumerate(uncertain):
        progress(done, len(uncertain), "looking again")
        best = candidate
        for face in LOOK_FACES:
            transform = box_transform(tuple(candidate.box), LOOK, LOOK / face - 1)  # type: ignore[arg-type]
            look = crop(image, transform, LOOK)
            for turn in turns:
                seen = _seen_again(detector, look, turn, face)
                if seen is not None and seen.score > best.score:
                    best = _mapped(seen, _View(look, partial(apply, invert(transform))))
        sure.append(best)
    return sure


def _candidates(found: Sequence[Detection], sure: Sequence[Detection]) -> list[Detection]:
    """The best uncertain detections where no sure one is. A small one inside a large one is another candidate."""
    known = np.array([d.box for d in sure]).reshape(-1, 4)
    candidates: list[Detection] = []
    boxes = np.empty((0, 4))
    for d in sorted(found, key=lambda d: -d.score):
        if d.score >= THRESHOLD or (_overlaps(d.box, known) >= OVERLAP).any():
            continue
        if not (_iou(d.box, boxes) >= SAME_CANDIDATE).any():
            candidates.append(d)
            boxes = np.concatenate([boxes, d.box[None]])
        if len(candidates) == MAX_PROPOSED:
            break
    return candidates


def _seen_again(detector: Detector, look: Tensor, turn: int, face: int) -> Detection | None:
    """The best detection at the center of a second look, in its pixels; the look is rotated by quarter ``turn``s."""
    middle = np.array([[LOOK - face, LOOK - face, LOOK + face, LOOK + face]]) / 2
    found = [d for d in detector(torch.rot90(look, turn, (2, 3)), PROPOSED) if _iou(d.box, middle)[0] > SAME_PLACE]
    if not found:
        return None
    best = max(found, key=lambda d: d.score)
    angle = np.deg2rad(90.0 * turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return _mapped(best, _View(look, lambda p: (p - LOOK / 2) @ rotation + LOOK / 2)) if turn else best


def _mapped(d: Detection, view: _View) -> Detection:
    """The detection in pixels of the image that the view was made from."""
    x1, y1, x2, y2 = d.box
    corners = view.to_image(np.array([[x1, y1], [x2, y1], [x1, y2], [x2, y2]]))
    box = np.concatenate([corners.min(0), corners.max(0)])
    score = d.score * view.factor
    if d.five is None:
        return replace(d, box=box, score=score)
    five = view.to_image(d.five)
    # The axis-aligned hull of a box that was rotated by 45 degrees is too large: limit it to the original size.
    half = np.array([x2 - x1, y2 - y1]).mean() / 2
    scale = np.linalg.norm(corners[1] - corners[0]) / max(x2 - x1, 1e-6)
    limit = half * scale * 1.15
    center = (box[:2] + box[2:]) / 2
    limited = np.concatenate([np.maximum(box[:2], center - limit), np.minimum(box[2:], center + limit)])
    return replace(d, box=limited, five=five, score=score)


def _scaled(d: Detection, scale: float) -> Detection:
    """The detection in an image of which the given one is a copy that was resized by ``scale``."""
    return replace(d, box=d.box / scale, five=None if d.five is None else d.five / scale)


def _grown(d: Detection, factor: float) -> Detection:
    """An uncertain detection with a box that includes the head."""
    if d.score >= THRESHOLD or factor == 1.0:
        return d
    center, half = (d.box[:2] + d.box[2:]) / 2, (d.box[2:] - d.box[:2]) / 2 * factor
    return replace(d, box=np.concatenate([center - half, center + half]))


def _in_core(d: Detection, view: _View) -> bool:
    if view.core is None:
        return True
    (x, y), (x1, y1, x2, y2) = (d.box[:2] + d.box[2:]) / 2, view.core
    return bool(x1 <= x <= x2 and y1 <= y <= y2)


def _padded(image: Tensor) -> Tensor:
    """Pad to at least 64 px a side, the minimum for detection."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, max(0, 64 - width), 0, max(0, 64 - height)), value=0.5)


def _center_inside(box: np.ndarray, image: Tensor) -> bool:
    height, width = image.shape[-2:]
    center = (box[:2] + box[2:]) / 2
    return bool(0 <= center[0] <= width and 0 <= center[1] <= height)
