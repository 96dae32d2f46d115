"""200 faces that are hard to find, made from portraits: small, turned, dark, blurred, behind a grid, cut by the border.

Each image also shows one easy face, because a tool that finds it does not redact the image as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.face import Face
from faceveil.pipelines.faces.masks import ellipse_mask
from faceveil.pipelines.imaging.resample import blur, resize
from torch import Tensor

SIZES = (8, 10, 12, 16, 20, 28, 40, 80, 160, 320, 600)
EASY = 110
"""Side, in pixels, of the easy face's box."""
MIN_CANVAS = (360, 560)

Edit = Callable[[Tensor, Face, np.random.Generator], Tensor]
"""Changes a portrait ``(1, 3, H, W)`` with one face."""


@dataclass(frozen=True)
class HardFace:
    """One image with one hard face.

    Attributes:
        kind: what makes it hard.
        image: ``(1, 3, H, W)``, RGB in [0, 1].
        size: longer side, in pixels, of the face's box.
        area: ``(H, W)``, 1 on the inner face (an ellipse in its box), as far as it is in the image.
        easy: width and height, in pixels, of the corner of the image with the easy portrait.
    """

    kind: str
    image: Tensor
    size: int
    area: Tensor
    easy: tuple[int, int]


@dataclass(frozen=True)
class Portrait:
    """A portrait and the largest face of it."""

    pixels: Tensor
    face: Face


def portraits_of(images: list[Tensor]) -> list[Portrait]:
    """Those of the images ``(1, 3, H, W)`` in which a face is found."""
    found = [(image, detect_faces(image, rotated=False)) for image in images]
    return [Portrait(image, max(faces, key=lambda f: f.area)) for image, faces in found if faces]


def hard_faces(portraits: list[Portrait], scenes: list[Tensor], seed: int = 0) -> list[HardFace]:
    """200 faces: eight of each of 25 kinds; not all images have the same size.

    Args:
        portraits: at least two.
        scenes: backgrounds without faces, ``(1, 3, H, W)``.
    """
    rng = np.random.default_rng(seed)
    kinds: list[tuple[str, int, Edit | None, float]] = [(f"{size} px", size, None, 0.0) for size in SIZES]
    kinds += [("turned 45 and 90 degrees", 60, None, 45.0), ("turned 135 and 180 degrees", 60, None, 135.0)]
    kinds += [(name, side, edit, 0.0) for name, (side, edit) in EDITS.items()]
    made = []
    for name, size, edit, degrees in kinds:
        for i in range(8):
            portrait = portraits[int(rng.integers(len(portraits)))]
            turn = degrees + 45.0 * (i % 2) if degrees else 0.0
            sign = 1 if i % 4 < 2 else -1
            easy = portraits[int(rng.integers(len(portraits)))]
            scene = scenes[int(rng.integers(len(scenes)))]
            made.append(_place(name, size, portrait, easy, scene, edit, sign * turn, rng))
    return made


def _place(
    name: str,
    size: int,
    portrait: Portrait,
    easy: Portrait,
    scene: Tensor,
    edit: Edit | None,
    degrees: float,
    rng: np.random.Generator,
) -> HardFace:
    tile, face = _scaled(portrait, size)
    area = ellipse_mask(face.box, *tile.shape[-2:], 0.0)
    if name == "poster":
        tile, area = _from_the_side(torch.cat([tile, area], 1), rng).split((3, 1), 1)
    if edit is not None:
        tile = edit(tile, face, rng).clamp(0, 1)
    mask = torch.ones_like(area)
    if degrees:
        tile, area, mask = (_turned(v, degrees) for v in (tile, area, mask))
    other, _ = _scaled(easy, EASY)
    height = max(MIN_CANVAS[0], tile.shape[-2] + 20, other.shape[-2] + 20)
    width = max(MIN_CANVAS[1], tile.shape[-1] + other.shape[-1] + 60)
    image = resize(scene, height, width).clone()
    image[..., 10 : 10 + other.shape[-2], 10 : 10 + other.shape[-1]] = other
    free = other.shape[-1] + 20
    y = int(rng.integers(10, max(height - tile.shape[-2] - 10, 11)))
    x = free + int(rng.integers(10, max(width - free - tile.shape[-1] - 10, 11)))
    if name == "cut by the border":
        # Half of the face is outside the image.
        middle = (portrait.face.box[0] + portrait.face.box[2]) / 2 / portrait.pixels.shape[-1]
        cut = round(width - middle * tile.shape[-1])
        tile, area, mask, x = (*(v[..., : width - cut] for v in (tile, area, mask)), cut)
    place = (..., slice(y, y + tile.shape[-2]), slice(x, x + tile.shape[-1]))
    image[place] = torch.lerp(image[place], tile, mask)
    full = torch.zeros(height, width)
    full[place[1:]] = area[0, 0]
    return HardFace(name, image, size, (full > 0.5).float(), (free - 10, other.shape[-2] + 10))


def _scaled(portrait: Portrait, size: int) -> tuple[Tensor, Face]:
    """The portrait with a face of ``size`` px."""
    scale = size / portrait.face.size
    height, width = (max(2, round(n * scale)) for n in portrait.pixels.shape[-2:])
    face = portrait.face.stretched(width / portrait.pixels.shape[-1], height / portrait.pixels.shape[-2])
    return resize(portrait.pixels, height, width), face


def _turned(tile: Tensor, degrees: float) -> Tensor:
    from kornia.geometry.transform import rotate

    pad = round(0.25 * max(tile.shape[-2:]))
    return rotate(torch.nn.functional.pad(tile, (pad,) * 4), torch.tensor(degrees))


def _dark(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.normal(0, 3 / 255, tuple(tile.shape))).float()
    return tile * float(rng.uniform(0.04, 0.12)) + noise


def _bright(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    return tile * float(rng.uniform(0.5, 1.0)) + 0.6


def _faded(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    return 0.5 + (tile - 0.5) * float(rng.uniform(0.08, 0.2))


def _blurred(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    return blur(tile, float(rng.uniform(3, 7)))


def _noisy(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    return tile + torch.from_numpy(rng.normal(0, rng.uniform(0.15, 0.35), tuple(tile.shape))).float()


def _grid(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    made, spacing, tone = tile.clone(), int(rng.integers(8, 18)), float(rng.choice([0.05, 0.9]))
    for offset in range(int(rng.integers(2, 4))):
        made[..., offset::spacing, :] = tone
        made[..., offset::spacing] = tone
    return made


def _poster(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    """Printed in two tones of one ink."""
    ink = torch.from_numpy(rng.uniform(0, 0.5, (1, 3, 1, 1))).float()
    return torch.lerp(ink, torch.tensor(0.95), tile.mean(1, keepdim=True))


def _from_the_side(tile: Tensor, rng: np.random.Generator) -> Tensor:
    from kornia.geometry.transform import warp_perspective

    height, width = tile.shape[-2:]
    narrow = float(rng.uniform(0.55, 0.8))
    matrix = torch.tensor([[[narrow, 0.0, 0.1 * width], [0.12, 1.0, 0.0], [0.3 / width, 0.0, 1.0]]])
    return warp_perspective(tile, matrix, (height, width))


def _sketch(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    gray = tile.mean(1, keepdim=True)
    spread = blur(1 - gray, float(rng.uniform(2, 4)))
    return (gray / (1 - spread).clamp(min=0.05)).clamp(0, 1).expand_as(tile)


def _mirror(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    """Seen in a dim, tinted glass with a bright reflection."""
    flipped = tile.flip(-1) * torch.tensor([0.35, 0.45, 0.42]).view(1, 3, 1, 1)
    columns = torch.linspace(0, 1, tile.shape[-1])
    band = torch.exp(-(((columns - float(rng.uniform(0.3, 0.7))) / 0.08) ** 2))
    return flipped + 0.5 * band


def _striped(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    """With a bar over the eyes."""
    made, (x1, y1, x2, y2) = tile.clone(), face.box
    rows = slice(round(y1 + 0.28 * (y2 - y1)), round(y1 + 0.48 * (y2 - y1)))
    made[..., rows, round(x1) : round(x2)] = float(rng.uniform(0, 0.3))
    return made


def _masked(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    """With a medical mask."""
    made, (x1, y1, x2, y2) = tile.clone(), face.box
    color = torch.from_numpy(rng.uniform(0.5, 0.95, (1, 3, 1, 1))).float()
    made[..., round(y1 + 0.55 * (y2 - y1)) : round(y2), round(x1) : round(x2)] = color
    return made


def _plain(tile: Tensor, face: Face, rng: np.random.Generator) -> Tensor:
    return tile


EDITS: dict[str, tuple[int, Edit]] = {
    "dark": (80, _dark),
    "overexposed": (80, _bright),
    "faded": (80, _faded),
    "blurred": (80, _blurred),
    "noisy": (80, _noisy),
    "behind a grid": (80, _grid),
    "cut by the border": (120, _plain),
    "in a mirror": (80, _mirror),
    "poster": (120, _poster),
    "sketch": (120, _sketch),
    "bar over the eyes": (80, _striped),
    "medical mask": (80, _masked),
}
