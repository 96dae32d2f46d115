"""Canonical face space: the 2D coordinate system of the built-in model, a 256 px image of the mean face.

Coordinates are in inter-ocular distances (IOD). The origin is the midpoint between the eyes; x points right, y down.
The image spans x from -1.55 to 1.55 and y from -1.08 to 2.02.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from ...faces.face import MIRROR, eye_centers
from ...faces.masks import polygon_mask
from ...imaging.resample import blur, each_plane, pixel_grid, sample
from ...imaging.warp import thin_plate

SIZE = 256
X0, Y0, SPAN = -1.55, -1.08, 3.10
PX = SIZE / SPAN
"""Canonical pixels per inter-ocular distance."""
REGIONS = ("eyes", "nose", "mouth", "base")

_GRID = 65
_FOREHEAD_X = np.linspace(-0.92, 0.92, 7)
FOREHEAD = np.stack([_FOREHEAD_X, -0.42 - 0.50 * np.sqrt(np.clip(1 - (_FOREHEAD_X / 1.12) ** 2, 0, 1))], 1)
"""Hairline of the mean face in IOD. It has no landmarks: an affine fit to the upper face places it on each face."""
_UPPER = np.r_[0:4, 13:30, 36:48]


@dataclass(frozen=True)
class Pose2D:
    """2D pose of a face in its image.

    Attributes:
        center: midpoint between the eyes in pixels, ``(2,)``.
        rotation: ``(2, 2)``.
        iod: inter-ocular distance in pixels.
    """

    center: np.ndarray
    rotation: np.ndarray
    iod: float

    @classmethod
    def of(cls, points: np.ndarray) -> Pose2D:
        """Compute the pose from 68 landmarks ``(68, 2)`` in pixels."""
        left, right = eye_centers(points)
        across = right - left
        iod = float(np.linalg.norm(across))
        c, s = across / iod
        return cls((left + right) / 2, np.array([[c, s], [-s, c]]), iod)

    def to_canonical(self, points: np.ndarray) -> np.ndarray:
        """Convert image pixels to IOD units."""
        return (points - self.center) @ self.rotation.T / self.iod

    def to_image(self, shape: np.ndarray) -> np.ndarray:
        """Convert IOD units to image pixels."""
        return (shape * self.iod) @ self.rotation + self.center


def mirrored(shape: np.ndarray) -> np.ndarray:
    """Mirror a shape ``(..., 68, 2)`` in IOD units left to right."""
    return shape[..., MIRROR, :] * np.array([-1.0, 1.0])


def to_pixels(shape: np.ndarray) -> np.ndarray:
    """Convert IOD units to canonical pixels."""
    return (np.asarray(shape) - [X0, Y0]) * PX


class CanonicalSpace:
    """Coordinate maps and masks of the canonical face space. They depend only on the mean shape ``(68, 2)``."""

    def __init__(self, mean: np.ndarray) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.anchors = np.concatenate([self.mean, FOREHEAD])
        axis = torch.linspace(0.5, SIZE - 0.5, _GRID, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2) / PX + torch.tensor([X0, Y0])
        self._to_face = thin_plate(torch.from_numpy(self.anchors), grid, 2e-3)

    def extend(self, points: np.ndarray) -> np.ndarray:
        """Append seven hairline points to 68 landmarks by an affine fit to the upper face; returns ``(75, 2)``."""
        upper = np.concatenate([self.mean[_UPPER], np.ones((len(_UPPER), 1))], 1)
        affine = np.linalg.lstsq(upper, points[_UPPER], rcond=None)[0]
        return np.concatenate([points, np.concatenate([FOREHEAD, np.ones((7, 1))], 1) @ affine])

    def unwrap(self, image: Tensor, points: np.ndarray) -> Tensor:
        """Warp a face from its image to the canonical face space.

        Args:
            image: ``(1, C, H, W)``.
            points: 68 landmarks in image pixels.

        Returns:
            ``(1, C, 256, 256)``.
        """
        where = (self._to_face @ torch.from_numpy(self.extend(points))).view(1, _GRID, _GRID, 2).movedim(-1, 1).float()
        return sample(image, upsample(where, SIZE)[0].movedim(0, -1))

    def to_grid(self, anchors: np.ndarray) -> np.ndarray:
        """Interpolate values ``(75, k)`` at the anchors to a regular canonical grid ``(65, 65, k)``."""
        return (self._to_face.numpy() @ anchors).reshape(_GRID, _GRID, -1)

    def locate(self, points: np.ndarray, origin: tuple[int, int], height: int, width: int) -> Tensor:
        """Compute the canonical position of each pixel of an image patch.

        Args:
            points: 68 landmarks in image pixels.
            origin: ``(x, y)`` of the patch's top left corner.

        Returns:
            ``(height, width, 2)`` in canonical pixels.
        """
        pose = Pose2D.of(points)
        nodes = lattice(height, width, max(pose.iod / 10, 6.0))
        queries = (nodes.reshape(-1, 2).numpy() + np.asarray(origin) - pose.center) / pose.iod
        source = torch.from_numpy((self.extend(points) - pose.center) / pose.iod)
        operator = thin_plate(source, torch.from_numpy(queries), 2e-3)
        where = (operator @ torch.from_numpy(to_pixels(self.anchors))).view(*nodes.shape).float()
        return interpolate_lattice(where, height, width)

    @cached_property
    def xy(self) -> tuple[Tensor, Tensor]:
        """Coordinates of each canonical pixel in IOD: two tensors ``(256, 256)``, x and y."""
        grid = pixel_grid(SIZE, SIZE) / PX
        return grid[..., 0] + X0, grid[..., 1] + Y0

    @cached_property
    def face(self) -> Tensor:
        """Mask of the face from the jaw to the hairline, ``(1, 1, 256, 256)``, as all masks here."""
        ring = np.concatenate([self.mean[0:17], FOREHEAD[::-1]])
        return self._polygon(ring)

    @cached_property
    def eyes(self) -> Tensor:
        return torch.maximum(self._polygon(self.mean[36:42]), self._polygon(self.mean[42:48]))

    @cached_property
    def lips(self) -> Tensor:
        return self._polygon(self.mean[48:60])

    @cached_property
    def inner_mouth(self) -> Tensor:
        return self._polygon(self.mean[60:68])

    @cached_property
    def brows(self) -> Tensor:
        masks = []
        for brow in (self.mean[17:22], self.mean[22:27]):
            ring = np.concatenate([brow - [0, 0.06], brow[::-1] + [0, 0.072]])
            masks.append(dilate(self._polygon(ring), 0.05))
        return torch.maximum(*masks)

    @cached_property
    def skin(self) -> Tensor:
        """Mask of bare skin: the face without eyes, brows, lips and nostrils."""
        holes = torch.stack(
            [
                dilate(self.eyes, 0.10),
                self.brows,
                dilate(self.lips, 0.05),
                dilate(self._polygon(self.mean[31:36]), 0.05),
            ]
        )
        return self.face * (1 - holes.amax(0))

    @cached_property
    def fade(self) -> Tensor:
        """Blending weight of a change: 1 inside the face, 0 at the outline and at the hairline."""
        import cv2

        inside = (self.face[0, 0].numpy() > 0.5).astype(np.uint8)
        rough = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
        # Its last bits depend on OpenCV's number of threads; the square of a distance between pixels is a whole number.
        distance = torch.from_numpy(np.sqrt(np.rint(rough**2)) / PX).float()
        _, y = self.xy
        return (smooth_step(distance, 0.015, 0.11) * smooth_step(y, -1.0, -0.76))[None, None]

    @cached_property
    def core(self) -> Tensor:
        """Inner part of the face: 1 inside, 0 near the outline, where landmarks are unreliable."""
        return smooth_step(self.fade, 0.0, 0.5)

    @cached_property
    def regions(self) -> dict[str, Tensor]:
        """Soft masks of ``REGIONS`` that sum to one, each ``(1, 1, 256, 256)``."""
        x, y = self.xy
        eyes = smooth_step(-y, -0.30, -0.16) * smooth_step(y, -0.62, -0.48) * smooth_step(1.05 - x.abs(), 0, 0.20)
        # The bridge of the nose is part of the region "nose".
        eyes = eyes * (1 - 0.999 * torch.exp(-((x / 0.11) ** 2)) * smooth_step(y, -0.05, 0.10))
        wings = 0.36 - x.abs() + 0.18 * (y - 0.55).clamp(-1, 0.3)
        nose = smooth_step(wings, 0, 0.16) * smooth_step(y, 0.02, 0.25) * smooth_step(0.80 - y, 0, 0.08) * (1 - eyes)
        from_mouth = torch.hypot(x / 0.62, (y - 1.12) / 0.34)
        mouth = torch.exp(-((from_mouth - 0.72).clamp(min=0) ** 2) / 0.05) * smooth_step(y, 0.72, 0.81)
        masks = {"eyes": eyes, "nose": nose, "mouth": mouth, "base": (1 - eyes - nose - mouth).clamp(0, 1)}
        total = sum(masks.values())
        return {name: blur((mask / total)[None, None], 3.0) for name, mask in masks.items()}

    def _polygon(self, ring: np.ndarray) -> Tensor:
        return polygon_mask(to_pixels(ring), SIZE, SIZE)


class RenderMasks:
    """Precomputed canonical masks for rendering, each ``(1, 1, 256, 256)``."""

    def __init__(self, canonical: CanonicalSpace) -> None:
        x, y = canonical.xy
        inner = dilate(canonical.inner_mouth, 0.012)
        self.lips = erode(canonical.lips, 0.012) * (1 - inner)
        self.around_lips = blur(canonical.lips, 2.5) * (1 - blur(inner, 1.2))
        self.brow_core = canonical.brows * erode(canonical.brows, 0.025)
        self.around_brows = blur(canonical.brows, 3.0)
        # Eyelids and lashes are kept with the eye, because they convey gaze and eye opening.
        self.outside_eyes = 1 - blur(dilate(canonical.eyes, 0.02), 1.8)
        self.outside_mouth = 1 - blur(canonical.inner_mouth, 1.2)
        self.outside_lips = 1 - blur(dilate(canonical.inner_mouth, 0.06), 2.0)
        lips = blur(dilate(canonical.lips, 0.02), 1.5)
        self.lower_face = smooth_step(y, 0.42, 0.55)[None, None] * (1 - lips)
        # Below what glasses reach, and away from hair at the outline.
        below_eyes = smooth_step(y, 0.30, 0.45)[None, None]
        self.inner_skin = blur(erode(canonical.core * canonical.skin, 0.06), 2.0) * below_eyes
        self.skin = blur(canonical.skin, 1.5)
        self.upper_skin = self.skin * (1 - self.lower_face) * (1 - self.around_brows)
        self.forehead = self.upper_skin * smooth_step(-y, 0.0, 0.12)[None, None]
        self.above_mouth = (smooth_step(0.75 - x.abs(), 0.0, 0.1) * smooth_step(1.0 - y, 0.0, 0.1))[None, None]
        self.beard_zone = (smooth_step(y, 0.68, 0.76)[None, None] * (1 - lips)).clamp(0, 1)


def smooth_step(value: Tensor, low: float, high: float) -> Tensor:
    """Compute a Hermite step: 0 below ``low``, 1 above ``high``."""
    t = ((value - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Dilate a canonical mask by ``radius`` IOD."""
    import cv2

    side = 2 * max(1, round(radius * PX)) + 1
    square = np.ones((side, side), np.uint8)
    return each_plane(mask, lambda plane: cv2.dilate(plane, square))


def erode(mask: Tensor, radius: float) -> Tensor:
    """Erode a canonical mask by ``radius`` IOD."""
    return 1 - dilate(1 - mask, radius)


def closed(mask: Tensor, width: float) -> Tensor:
    """Fill gaps in the rows of a canonical mask that are up to ``width`` IOD wide."""
    import cv2

    return each_plane(mask, lambda plane: cv2.morphologyEx(plane, cv2.MORPH_CLOSE, _row(width)))


def opened(mask: Tensor, width: float) -> Tensor:
    """Remove what is less than ``width`` IOD wide in the rows of a canonical mask."""
    import cv2

    return each_plane(mask, lambda plane: cv2.morphologyEx(plane, cv2.MORPH_OPEN, _row(width)))


def _row(width: float) -> np.ndarray:
    return np.ones((1, max(1, round(width * PX))), np.uint8)


def lattice(height: int, width: int, spacing: float) -> Tensor:
    """Make a coarse grid of pixel positions ``(rows, columns, 2)`` over a patch, at most ``spacing`` pixels apart."""
    rows, columns = (max(2, int(np.ceil((n - 1) / max(spacing, 1.0))) + 1) for n in (height, width))
    y = torch.linspace(0.5, height - 0.5, rows, dtype=torch.float64)
    x = torch.linspace(0.5, width - 0.5, columns, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def interpolate_lattice(nodes: Tensor, height: int, width: int) -> Tensor:
    """Interpolate values ``(rows, columns, k)`` at lattice nodes to all pixels ``(height, width, k)``."""
    rows, columns = (enlarging(n, size, "bicubic", True) for n, size in zip(nodes.shape, (height, width), strict=False))
    return (rows @ nodes.movedim(-1, 0) @ columns.T).movedim(0, -1)


def upsample(grid: Tensor, size: int) -> Tensor:
    """Interpolate values ``(1, k, R, C)`` of a grid with aligned corners to all pixels ``(1, k, size, size)``."""
    rows, columns = (enlarging(n, size, "bilinear", True) for n in grid.shape[-2:])
    return rows @ grid @ columns.T


@lru_cache(maxsize=32)
def enlarging(count: int, size: int, mode: str, align_corners: bool) -> Tensor:
    """The matrix ``(size, count)`` that interpolates ``count`` values to ``size``.

    Two products with such matrices take a tenth of the time of torch's interpolation; the results differ by 5e-7.
    """
    values = torch.eye(count)[None, None]
    return torch.nn.functional.interpolate(values, size=(size, count), mode=mode, align_corners=align_corners)[0, 0]
