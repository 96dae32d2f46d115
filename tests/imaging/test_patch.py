"""What was changed of a frame is written; everything else reaches the encoder as it was decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from faceveil.pipelines.imaging.convert import converted
from faceveil.pipelines.imaging.patch import PLANAR, can_patch, patched
from faceveil.pipelines.imaging.video import VideoFrame, VideoSource
from odd_streams import Stream, written

WINDOW = (slice(11, 30), slice(7, 33))


def decoded(path: Path, layout: str, size: tuple[int, int] = (64, 48)) -> tuple[VideoFrame, VideoSource]:
    written(Stream("ffv1", layout, size))(path)
    source = VideoSource(path)
    return next(source.frames()), source


def planes(picture: object) -> list[np.ndarray]:
    deep = picture.format.name.endswith("10le")
    rows = [(np.frombuffer(p, np.uint16 if deep else np.uint8).reshape(p.height, -1), p.width) for p in picture.planes]
    return [values[:, :width].astype(int) for values, width in rows]


@pytest.mark.parametrize("size", [(64, 48), (63, 47)], ids=str)
@pytest.mark.parametrize("layout", PLANAR)
def test_only_the_changed_part_is_converted(tmp_path: Path, layout: str, size: tuple[int, int]) -> None:
    frame, source = decoded(tmp_path / "a.mkv", layout, size)
    assert frame.decoded is not None and can_patch(frame.decoded, layout)
    pixels = frame.pixels.copy()
    pixels[WINDOW] = np.iinfo(pixels.dtype).max // 2
    result = patched(frame.decoded, pixels, source.info.matrix)
    rgb = av.VideoFrame.from_ndarray(pixels, format="rgb48le" if source.info.deep else "rgb24")
    whole = planes(converted(rgb, layout, source.info.matrix))
    for before, after, expected in zip(planes(frame.decoded.picture), planes(result), whole, strict=True):
        down, across = round(size[1] / before.shape[0]), round(size[0] / before.shape[1])
        outside = np.ones(before.shape, bool)
        outside[10 // down : 30 // down + 1, 6 // across : 34 // across + 1] = False
        assert (before[outside] == after[outside]).all() and (before != after).any()
        # As a conversion of the whole frame makes it, but for chroma that looks over the window's edge.
        inside = np.s_[12 // down + 1 : 28 // down - 1, 8 // across + 1 : 32 // across - 1]
        assert np.abs(after[inside] - expected[inside]).max() <= (8 if source.info.deep else 2)


def test_a_change_at_the_last_pixel(tmp_path: Path) -> None:
    for size in ((64, 48), (63, 47)):
        frame, source = decoded(tmp_path / f"{size[0]}.mkv", "yuv420p", size)
        assert frame.decoded is not None
        pixels = frame.pixels.copy()
        pixels[-1, -1] = 255 - pixels[-1, -1]
        result = patched(frame.decoded, pixels, source.info.matrix)
        luma = planes(result)[0]
        assert luma[-1, -1] != planes(frame.decoded.picture)[0][-1, -1]


def test_pixels_cannot_be_changed_in_place(tmp_path: Path) -> None:
    """Else a changed frame could be taken for an unchanged one."""
    frame, _ = decoded(tmp_path / "a.mkv", "yuv420p")
    with pytest.raises(ValueError, match="read-only"):
        frame.pixels[:] = 0


def test_an_unchanged_frame_is_a_copy(tmp_path: Path) -> None:
    frame, source = decoded(tmp_path / "a.mkv", "yuv420p")
    assert frame.decoded is not None
    result = patched(frame.decoded, frame.pixels, source.info.matrix)
    assert all((a == b).all() for a, b in zip(planes(frame.decoded.picture), planes(result), strict=True))
    assert not list(result.side_data)


@pytest.mark.parametrize("layout", ["bgr0", "gray", "yuv411p"])
def test_other_formats_are_converted(tmp_path: Path, layout: str) -> None:
    frame, _ = decoded(tmp_path / "a.mkv", layout)
    assert frame.decoded is not None and not can_patch(frame.decoded, "yuv420p")
