"""Second step of a job: change the pixels of one face after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import FaceVeilError
from ..faces.face import Face
from ..faces.names import RedactionShape, RedactionStyle
from ..faces.redact import redact, redaction_window
from ..methods.base import Change

MARGIN = 0.3
"""Of a face that is cut out, as a share of its size."""
FILL = 0.5
"""Gray value of an image that is redacted as a whole."""


class Canvas:
    """The images of a job while their faces are changed.

    Attributes:
        pixels: ``(B, 3, H, W)``, RGB in [0, 1], on the CPU, with all changes so far.
        changed: ``(B, 1, H, W)``, whether a pixel may differ from the original.
        recent: the same for the changes since the last call of ``forget``.

    Args:
        in_place: whether the given pixels may be overwritten, which saves a copy of them.
        watched: whether ``recent`` is kept; without it, it is ``changed``.
    """

    def __init__(self, pixels: Tensor, in_place: bool = False, watched: bool = False) -> None:
        given = pixels.detach().to("cpu", torch.float32)
        self.pixels = given.clamp_(0, 1) if in_place else given.clamp(0, 1)
        self.changed = torch.zeros(len(pixels), 1, *pixels.shape[-2:], dtype=torch.bool)
        self.recent = self.changed if not watched else torch.zeros_like(self.changed)

    def forget(self) -> None:
        """Let ``recent`` begin anew."""
        if self.recent is not self.changed:
            self.recent.zero_()

    def image(self, index: int) -> Tensor:
        """One image ``(1, 3, H, W)`` as it is now."""
        return self.pixels[index : index + 1]

    def apply(self, index: int, change: Change) -> bool:
        """Put a rendered face into an image; says whether any pixel changed."""
        x, y = change.origin
        height, width = change.patch.shape[-2:]
        where = (slice(index, index + 1), slice(None), slice(y, y + height), slice(x, x + width))
        before = self.pixels[where]
        after = torch.where(change.mask > 0, change.patch, before)
        changed = not torch.equal(before, after)
        self.pixels[where] = after
        self._mark(where, change.mask > 0)
        return changed

    def redact(self, face: Face, style: RedactionStyle, shape: RedactionShape, sticker: Tensor | None) -> None:
        """Redact one face.

        Raises:
            FaceVeilError: the redaction reaches no pixel of the image.
        """
        height, width = self.pixels.shape[-2:]
        rows, columns = redaction_window(face, height, width, style, shape)
        where = (slice(face.image, face.image + 1), slice(None), rows, columns)
        moved = face.moved(-columns.start, -rows.start)
        redacted, mask = redact(self.pixels[where], moved, style, shape, sticker=sticker)
        if not bool((mask > 0).any()):
            raise FaceVeilError(f"the redaction of a face in image {face.image} reaches no pixel; check its box")
        self.pixels[where] = redacted
        self._mark(where, mask > 0)

    def cut_out(self, face: Face) -> Tensor:
        """A face with a margin as it is now, ``(1, 3, h, w)``."""
        x1, y1, x2, y2 = face.box
        margin = MARGIN * face.size
        height, width = self.pixels.shape[-2:]
        rows = slice(max(0, int(y1 - margin)), min(height, int(y2 + margin) + 1))
        columns = slice(max(0, int(x1 - margin)), min(width, int(x2 + margin) + 1))
        return self.image(face.image)[..., rows, columns]

    def redact_image(self, index: int) -> None:
        """Replace a whole image with gray."""
        self.pixels[index] = FILL
        self._mark(index, torch.tensor(True))

    def _mark(self, where: int | tuple[slice, ...], mask: Tensor) -> None:
        for marks in (self.changed, self.recent):
            marks[where] |= mask
