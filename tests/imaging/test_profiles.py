"""ICC profiles of 16-bit files: the colors stay, everything else goes."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.profiles import HEADER, clean_profile
from faceveil.pipelines.imaging.save import save_image
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SECRET = b"Jane Doe, camera 4711"


def profile(version: int = 4) -> bytes:
    """Another RGB space than sRGB (red and blue exchanged), with a serial number in every place that can hold one."""
    made = bytearray(SRGB)
    for i in range(struct.unpack_from(">I", made, HEADER)[0]):
        place = HEADER + 4 + 12 * i
        name = bytes(made[place : place + 4])
        made[place : place + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ", b"chrm": b"serl"}.get(name, name)
    made[8] = version
    made[80:101] = SECRET
    made += SECRET
    return bytes(made)


def converted(data: bytes) -> np.ndarray:
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    source = ImageCms.ImageCmsProfile(io.BytesIO(data))
    return np.asarray(ImageCms.profileToProfile(colors, source, ImageCms.createProfile("sRGB"))).astype(int)


@pytest.mark.parametrize("version", [2, 4])
def test_colors_stay_and_the_rest_goes(version) -> None:
    dirty = profile(version)
    clean = clean_profile(dirty)
    assert clean is not None
    assert np.abs(converted(clean) - converted(dirty)).max() <= 1
    assert (
        np.abs(converted(clean) - converted(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())).max()
        > 20
    )
    assert SECRET not in clean
    assert b"serl" not in clean
    assert clean_profile(clean) == clean


def test_bytes_behind_the_numbers_of_a_tag_go() -> None:
    """A tag that is declared longer than its numbers need."""
    dirty = bytearray(profile())
    end = len(dirty)
    dirty += b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061) + SECRET
    for i in range(struct.unpack_from(">I", dirty, HEADER)[0]):
        place = HEADER + 4 + 12 * i
        if dirty[place : place + 4] == b"wtpt":
            struct.pack_into(">II", dirty, place + 4, end, 20 + len(SECRET))
    struct.pack_into(">I", dirty, 0, len(dirty))
    clean = clean_profile(bytes(dirty))
    assert clean is not None
    assert SECRET not in clean


@pytest.mark.parametrize(
    "broken",
    [b"", b"short", b"\0" * 200, profile()[:150], profile()[:400], b"\xff" * 4000, profile().replace(b"acsp", b"....")],
)
def test_broken_profiles_are_dropped(broken) -> None:
    assert clean_profile(broken) is None


@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bit_images_keep_their_color_profile(tmp_path, ending) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    image = replace(as_image(deep), profile=profile())
    save_image(image, tmp_path / f"a{ending}")
    loaded = load_image(tmp_path / f"a{ending}")
    assert loaded.profile == clean_profile(profile())
    assert (loaded.pixels - image.pixels).abs().max() < 1e-5
    save_image(loaded, tmp_path / f"b{ending}")
    assert SECRET not in (tmp_path / f"b{ending}").read_bytes()
    save_image(replace(image, profile=None), tmp_path / f"c{ending}")
    assert load_image(tmp_path / f"c{ending}").profile is None


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_8_bit_images_of_all_kinds_are_converted(tmp_path, mode) -> None:
    """Red and blue are exchanged in the profile, so they are exchanged in the picture."""
    image = Image.new("RGB", (8, 8), (200, 30, 60)).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=profile())
    red, _, blue = (float(v) for v in load_image(tmp_path / "a.png").pixels[0, :, 0, 0])
    assert blue > red


def test_a_deep_image_saved_with_8_bits_is_converted(tmp_path) -> None:
    deep = np.full((8, 8, 3), (50000, 8000, 16000), np.uint16)
    save_image(replace(as_image(deep), profile=clean_profile(profile())), tmp_path / "a.png")
    save_image(load_image(tmp_path / "a.png"), tmp_path / "a.webp")
    red, _, blue = (float(v) for v in load_image(tmp_path / "a.webp").pixels[0, :, 0, 0])
    assert blue > red
