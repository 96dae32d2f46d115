"""Code that the 3D nodes share: the value of the coefficients socket, and its renderings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from comfy_api.latest import io, ui

from ...pipelines.core.errors import InputError
from ..convert import mask_to_socket, pixels_to_image
from ..sockets import ROOT, CoefficientsSocket

if TYPE_CHECKING:
    from ...pipelines.geometry.coefficients import Coefficients
    from ...pipelines.geometry.fitting import Estimate
    from ...pipelines.geometry.morphable import MorphableModel

CATEGORY = f"{ROOT}/3D"
PREVIEW_SIDE = 384
PARTS = ("identity", "expression", "texture", "lighting", "pose", "gaze")
OUTPUTS = [
    CoefficientsSocket.Output(display_name="coefficients", tooltip="Coefficients, for the other 3D nodes."),
    io.Image.Output(display_name="preview", tooltip="The rendered faces, without their images."),
]


@dataclass(frozen=True)
class Geometry:
    """Value of the coefficients socket.

    Attributes:
        model: the morphable model.
        estimate: coefficients, and the position of each face in its image.
        images: batch index of the image of each row.
    """

    model: MorphableModel
    estimate: Estimate
    images: tuple[int, ...]

    def with_coefficients(self, coefficients: Coefficients) -> Geometry:
        """Return the same faces with other coefficients."""
        return replace(self, estimate=replace(self.estimate, coefficients=coefficients))

    def rows_by_image(self, count: int) -> list[list[int]]:
        """Return the indices of the rows that belong to each of ``count`` images.

        Raises:
            InputError: a row belongs to an image outside the batch.
        """
        if max(self.images) >= count:
            raise InputError(
                f"the coefficients belong to image {max(self.images)}, but the batch has {count} images (numbered from"
                " 0); connect the images that were used for the estimate"
            )
        return [[row for row, image in enumerate(self.images) if image == i] for i in range(count)]


def fields_of(parts: str) -> tuple[str, ...]:
    """Parse a list of parts such as ``identity, pose`` to field names of ``Coefficients``.

    Raises:
        InputError: a part is unknown, or the list is empty.
    """
    chosen = [p.strip() for p in parts.split(",") if p.strip()]
    if not chosen or set(chosen) - set(PARTS):
        raise InputError(f"parts must be one or more of {', '.join(PARTS)}, separated by commas; got {parts!r}")
    return tuple(name for part in chosen for name in (("angles", "translation") if part == "pose" else (part,)))


def rendered(geometry: Geometry, style: str = "shaded", size: int = PREVIEW_SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """Render the faces without their images; return IMAGE and MASK."""
    from ...pipelines.viz.geometry import render_styled

    image, mask = render_styled(geometry.model, geometry.estimate.coefficients, style, size)
    return pixels_to_image(image), mask_to_socket(mask)


def result(geometry: Geometry) -> io.NodeOutput:
    """Create the node output: coefficients, rendering, and the rendering as preview on the node."""
    image, _ = rendered(geometry)
    return io.NodeOutput(geometry, image, ui=ui.PreviewImage(image))


def overlaid(geometry: Geometry, pixels: torch.Tensor, style: str, opacity: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Render each face over its image of the batch ``(B, 3, H, W)``; return the images and the masks."""
    from ...pipelines.viz.geometry import overlay

    images, masks = [], []
    for i, rows in enumerate(geometry.rows_by_image(len(pixels))):
        image, mask = overlay(geometry.model, pixels[i : i + 1], geometry.estimate.rows(rows), style, opacity)
        images.append(image)
        masks.append(mask)
    return torch.cat(images), torch.cat(masks)
