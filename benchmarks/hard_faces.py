"""200 hard faces: what Redact Faces covers and misses, beside the program ``deface`` in the same run.

    python benchmarks/hard_faces.py [PORTRAITS ...] [--sensitivity normal|high|maximum] [--sheet SHEET.png]

PORTRAITS are folders (default ../shared/data/portraits_cc0 and photos beside the repository). A face is covered when at
least 80 % of its inner ellipse is redacted. deface runs with its defaults (threshold 0.2, mask scale 1.3), but its mask
is filled, not blurred, so that it can be measured. "Other" counts redacted places that are neither the hard face nor
the easy one beside it: false alarms, and bystanders in some portraits.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from faceveil.pipelines.core.telemetry import import_onnxruntime
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Box
from faceveil.pipelines.faces.names import SENSITIVITY_NAMES
from faceveil.pipelines.faces.redact import shape_mask
from faceveil.pipelines.imaging.formats import find_images
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.uint8 import to_uint8
from hard_pictures import HardFace, hard_faces, portraits_of
from PIL import Image

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DEFACE_THRESHOLD, DEFACE_SCALE = 0.2, 1.3
COVERED = 0.8
SCENES = ("coffee", "brick", "grass", "gravel", "chelsea", "rocket")
MIN_SIZE = 12
"""Faces below this many pixels are listed, but do not count."""
ALLOWED = 0.01

Finder = Callable[[torch.Tensor], tuple[torch.Tensor, list[Box]]]
"""From an image to the redacted area ``(H, W)`` and the boxes that were redacted."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portraits", type=Path, nargs="*", default=[DATA / "portraits_cc0", DATA / "photos"])
    parser.add_argument("--sensitivity", choices=SENSITIVITY_NAMES, default="normal")
    parser.add_argument("--sheet", type=Path, help="write the images with the redacted areas")
    options = parser.parse_args()
    images = [load_image(path).pixels for folder in options.portraits for path in find_images(folder)]
    portraits = portraits_of(images)
    if len(portraits) < 2:
        sys.exit("the folders contain fewer than two faces; give others")
    faces = hard_faces(portraits, _scenes())
    finders: dict[str, Finder] = {"ours": lambda image: _ours(image, options.sensitivity), "deface": _deface()}
    covered, others, seconds = {}, {}, {}
    for name, finder in finders.items():
        start = time.process_time()
        found = [finder(face.image) for face in faces]
        seconds[name] = (time.process_time() - start) / len(faces)
        covered[name] = np.array([_is_covered(face, area) for face, (area, _) in zip(faces, found, strict=True)])
        others[name] = sum(_others(face, boxes) for face, (_, boxes) in zip(faces, found, strict=True))
        if name == "ours" and options.sheet:
            _sheet([(face.image, area) for face, (area, _) in zip(faces, found, strict=True)]).save(options.sheet)
    return _print(faces, covered, others, seconds)


def _print(
    faces: list[HardFace], covered: dict[str, np.ndarray], others: dict[str, int], seconds: dict[str, float]
) -> int:
    names, kinds = list(covered), np.array([face.kind for face in faces])
    print(f"{'missed':28}{'faces':>8}" + "".join(f"{name:>10}" for name in names))
    for kind in dict.fromkeys(kinds):
        rows = kinds == kind
        print(f"{kind:28}{rows.sum():8}" + "".join(f"{(~covered[name][rows]).sum():10}" for name in names))
    large = np.array([face.size >= MIN_SIZE for face in faces])
    missed = {name: int((~covered[name][large]).sum()) for name in names}
    only_theirs = int((covered["deface"] & ~covered["ours"] & large).sum())
    print(f"{f'all of {MIN_SIZE} px and more':28}{large.sum():8}" + "".join(f"{missed[n]:10}" for n in names))
    print(f"{'other places':28}{'':8}" + "".join(f"{others[name]:10}" for name in names))
    print(f"{'CPU seconds an image':28}{'':8}" + "".join(f"{seconds[name]:10.2f}" for name in names))
    print(f"covered by deface, missed by ours: {only_theirs} (0)")
    share = missed["ours"] / int(large.sum())
    print(f"missed by ours: {100 * share:.1f} % ({100 * ALLOWED:.0f} %)")
    return 0 if only_theirs == 0 and share <= ALLOWED else 1


def _scenes() -> list[torch.Tensor]:
    import skimage.data

    scenes = []
    for name in SCENES:
        values = np.asarray(getattr(skimage.data, name)())
        values = values if values.ndim == 3 else np.stack([values] * 3, -1)
        scenes.append(torch.from_numpy(values[..., :3].astype(np.float32) / 255).permute(2, 0, 1)[None])
    return scenes


def _ours(image: torch.Tensor, sensitivity: str) -> tuple[torch.Tensor, list[Box]]:
    height, width = image.shape[-2:]
    area = torch.zeros(height, width)
    faces = detect_faces(image, sensitivity=sensitivity)  # type: ignore[arg-type]  # argparse checked it
    for face in faces:
        area = torch.maximum(area, shape_mask(face, height, width)[0, 0])
    return area, [face.box for face in faces]


def _deface() -> Finder:
    import_onnxruntime()
    from deface.centerface import CenterFace
    from deface.deface import anonymize_frame

    network = CenterFace(backend="onnxrt", override_execution_provider="CPUExecutionProvider")

    def find(image: torch.Tensor) -> tuple[torch.Tensor, list[Box]]:
        frame = np.ascontiguousarray(to_uint8(image))
        boxes, _ = network(frame, threshold=DEFACE_THRESHOLD)
        # Its solid fill is black, so it is drawn on white.
        canvas = np.full_like(frame, 255)
        anonymize_frame(boxes, canvas, DEFACE_SCALE, "solid", True, False, None, 20)
        area = torch.from_numpy((canvas == 0).all(-1).astype(np.float32))
        return area, [tuple(map(float, box[:4])) for box in boxes]  # type: ignore[misc]

    return find


def _is_covered(face: HardFace, area: torch.Tensor) -> bool:
    return bool((area * face.area).sum() >= COVERED * face.area.sum())


def _others(face: HardFace, boxes: list[Box]) -> int:
    count = 0
    for x1, y1, x2, y2 in boxes:
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        row, column = (int(np.clip(v, 0, n - 1)) for v, n in zip((y, x), face.area.shape, strict=True))
        beside = bool(face.area[row, column] > 0)
        count += not beside and not (x < face.easy[0] and y < face.easy[1])
    return count


def _sheet(cells: list[tuple[torch.Tensor, torch.Tensor]]) -> Image.Image:
    sheet = Image.new("RGB", (8 * 200, -(-len(cells) // 8) * 140))
    for i, (image, area) in enumerate(cells):
        tinted = torch.lerp(image, torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), 0.6 * area)
        tile = Image.fromarray(to_uint8(tinted))
        tile.thumbnail((200, 140))
        sheet.paste(tile, ((i % 8) * 200, (i // 8) * 140))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
