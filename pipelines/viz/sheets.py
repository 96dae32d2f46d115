"""Preview images: numbered faces, original and result side by side, and a plot of a distance."""

from __future__ import annotations

import io
from typing import Any

from torch import Tensor

from ..faces.face import Faces
from ..imaging.uint8 import to_pillow
from ..jobs.settings import Result

_COLORS = {
    "replaced": (60, 180, 90),
    "redacted": (240, 150, 40),
    "passed": (220, 50, 50),
    "unverified": (220, 50, 50),
    "kept": (90, 140, 220),
}
_SIDE = 640


def draw_faces(
    pixels: Tensor,
    faces: Faces,
    index: int = 0,
    landmarks: bool = True,
    colors: list[tuple[int, int, int]] | None = None,
) -> Any:
    """Draw numbered boxes and landmarks on one image of a batch; a tracked face has the number of its track.

    Args:
        pixels: the batch ``(B, 3, H, W)``, RGB in [0, 1].
        faces: faces of the batch.
        index: number of the image in the batch.
        landmarks: whether landmarks are drawn.
        colors: one for each face of this image.

    Returns:
        A Pillow image.
    """
    from PIL import ImageDraw

    image = to_pillow(pixels[index])
    draw = ImageDraw.Draw(image)
    line = max(1, round(max(image.size) / 400))
    for number, face in enumerate(faces.of_image(index)):
        color = colors[number] if colors else _COLORS["replaced"]
        draw.rectangle(face.box, outline=color, width=line)
        size = max(11, round(face.size / 7))
        place = (face.box[0] + line + 1, face.box[1] + line)
        # The number by which Select Faces knows it. The rows of a report count the faces of each image.
        shown = number if colors or face.track is None else face.track
        draw.text(place, str(shown), fill=color, font_size=size, stroke_width=max(1, size // 12), stroke_fill=(0, 0, 0))
        if landmarks:
            r = max(0.6, face.size / 160)
            for x, y in face.landmarks:
                draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    return image


def preview_rows(original: Tensor, result: Result) -> list[Any]:
    """Draw one row for each image of a batch: numbered faces on the left, the result on the right, the report below.

    Args:
        original: the batch before the job, ``(B, 3, H, W)``, RGB in [0, 1].

    Returns:
        Pillow images.
    """
    from PIL import Image, ImageDraw

    rows = []
    for index in range(len(original)):
        reports = [r for r in result.report.faces if r.image == index]
        left = draw_faces(original, result.faces, index, landmarks=False, colors=[_COLORS[r.outcome] for r in reports])
        right = to_pillow(result.pixels[index])
        text = "\n".join(_line(r) for r in reports) or "\n".join(result.report.notes)
        for image in (left, right):
            image.thumbnail((_SIDE, _SIDE))
        height = max(left.height, right.height)
        font = 14
        caption = (text.count("\n") + 1) * (font + 4) + 10 if text else 0
        row = Image.new("RGB", (left.width + right.width, height + caption), (24, 24, 24))
        row.paste(left, (0, 0))
        row.paste(right, (left.width, 0))
        if caption:
            ImageDraw.Draw(row).multiline_text((8, height + 4), text, fill=(230, 230, 230), font_size=font)
        rows.append(row)
    return rows


def stack_rows(rows: list[Any]) -> bytes:
    """Stack Pillow images vertically and encode them as PNG."""
    from PIL import Image

    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), (24, 24, 24))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _line(report: Any) -> str:
    checks = ", ".join(f"{c.recognizer} {c.distance:.2f} (same person below {c.threshold:.2f})" for c in report.checks)
    return (
        f"{report.number}: {report.outcome}"
        + (f", {report.reason}" if report.reason else "")
        + (f", {checks}" if checks else "")
    )


def distance_plot(distance: float, threshold: float, width: int = 512, height: int = 96) -> Any:
    """Plot a distance on a scale from 0 to twice the threshold.

    The mark in the middle is the threshold. Left of it the two faces show the same person.

    Returns:
        A Pillow image.
    """
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    left, right, middle = 24, width - 24, height // 2

    def place(value: float) -> float:
        return left + (right - left) * min(value / (2 * threshold), 1.0)

    draw.rectangle((left, middle - 6, place(threshold), middle + 6), fill="#e8a3a3")
    draw.rectangle((place(threshold), middle - 6, right, middle + 6), fill="#a8d5a8")
    draw.line((place(threshold), middle - 18, place(threshold), middle + 18), fill="black", width=2)
    x = place(distance)
    draw.ellipse((x - 8, middle - 8, x + 8, middle + 8), fill="black")
    draw.text((left, height - 22), "same person", fill="black")
    draw.text((right - 100, height - 22), "different people", fill="black")
    return image
