"""Reading and writing image files."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from faceveil.pipelines.core.errors import InputError, OutputError
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.save import save_image
from PIL import Image, PngImagePlugin


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", [".png", ".webp", ".tiff", ".bmp"])
def test_lossless_formats_round_trip(tmp_path, noise, ending) -> None:
    path = tmp_path / f"a{ending}"
    save_image(as_image(noise), path)
    assert np.array_equal(np.array(Image.open(path).convert("RGB")), noise)


@pytest.mark.parametrize("ending", [".jpg", ".avif"])
def test_lossy_formats_stay_close(tmp_path, ending) -> None:
    smooth = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (64, 64, 3)).copy()
    path = tmp_path / f"a{ending}"
    save_image(as_image(smooth), path)
    assert np.abs(np.array(Image.open(path).convert("RGB")).astype(int) - smooth).mean() < 4


@pytest.mark.parametrize("ending", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_images_round_trip(tmp_path, ending, channels) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (20, 30, channels), dtype=np.uint16)
    path = tmp_path / f"a{ending}"
    save_image(as_image(deep), path)
    loaded = load_image(path)
    assert loaded.depth == 16
    assert loaded.pixels.shape == (1, 3, 20, 30)
    first = deep[..., 0].astype(np.float64) / 65535
    assert np.abs(loaded.pixels[0, 0].numpy() - first).max() < 1e-5
    assert (loaded.alpha is not None) == (channels == 4)


def test_alpha_round_trips(tmp_path) -> None:
    rgba = np.random.default_rng(2).integers(0, 256, (10, 12, 4), dtype=np.uint8)
    save_image(as_image(rgba), tmp_path / "a.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "a.png")), rgba)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_metadata_is_removed(tmp_path, noise, orientation) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "secret place"
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "secret prompt")
    Image.fromarray(noise).save(tmp_path / "in.png", exif=exif, pnginfo=info)
    image = load_image(tmp_path / "in.png")
    assert image.pixels.shape[-2:] == ((60, 40) if orientation >= 5 else (40, 60))
    for ending in (".png", ".jpg", ".webp", ".tiff"):
        save_image(image, tmp_path / f"out{ending}")
        written = (tmp_path / f"out{ending}").read_bytes()
        assert b"secret" not in written
        assert not dict(Image.open(tmp_path / f"out{ending}").getexif()).get(0x010E)


def test_8_bit_images_are_converted_to_srgb(tmp_path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    Image.new("RGB", (8, 8), (200, 30, 30)).save(tmp_path / "a.png", icc_profile=profile.tobytes())
    image = load_image(tmp_path / "a.png")
    assert (image.pixels[0, :, 0, 0] * 255).round().tolist() == [200, 30, 30]
    save_image(image, tmp_path / "b.png")
    assert "icc_profile" not in Image.open(tmp_path / "b.png").info


def test_a_failed_write_leaves_the_old_file(tmp_path, noise, monkeypatch) -> None:
    import os

    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"a\.png could not be written \(No space left on device\)"):
        save_image(as_image(noise), target)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("tile", [None, (16, 32)])
def test_deep_tiff_is_upright_like_its_8_bit_copy(tmp_path, orientation, tile) -> None:
    """Tiled and in strips, in all orientations: Pillow turns the 8-bit copy."""
    rng = np.random.default_rng(orientation)
    deep = rng.integers(0, 256, (40, 60, 3)).astype(np.uint16) * 257
    tag = (0x0112, "H", 1, orientation, True)
    for name, array in (("deep.tif", deep), ("flat.tif", (deep // 257).astype(np.uint8))):
        tifffile.imwrite(tmp_path / name, array, photometric="rgb", tile=tile, metadata=None, extratags=[tag])
    loaded, flat = load_image(tmp_path / "deep.tif"), load_image(tmp_path / "flat.tif")
    assert loaded.pixels.shape == flat.pixels.shape
    assert (loaded.pixels - flat.pixels).abs().max() < 1e-6


@pytest.mark.parametrize("bigtiff", [False, True])
def test_deep_tiff_of_either_kind_with_two_descriptions(tmp_path, bigtiff) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (40, 60, 3), dtype=np.uint16)
    tags = [(65000 + i, "s", 0, f"text {i}", True) for i in range(2)]
    tifffile.imwrite(tmp_path / "a.tif", deep, bigtiff=bigtiff, photometric="rgb", metadata=None, extratags=tags)
    data = (tmp_path / "a.tif").read_bytes()
    # tifffile writes one description only, so two other tags become descriptions.
    for number in (65000, 65001):
        data = data.replace(number.to_bytes(2, "little") + b"\2\0", (270).to_bytes(2, "little") + b"\2\0")
    (tmp_path / "a.tif").write_bytes(data)
    loaded = load_image(tmp_path / "a.tif")
    assert loaded.depth == 16
    assert np.abs(loaded.pixels[0].movedim(0, -1).numpy() * 65535 - deep).max() < 0.01
    save_image(loaded, tmp_path / "b.tif")
    assert b"text 1" not in (tmp_path / "b.tif").read_bytes()


def _deep(path, array, **options) -> None:
    tifffile.imwrite(path, array, metadata=None, **options)


def test_deep_tiff_whose_fourth_channel_is_no_straight_alpha(tmp_path) -> None:
    """Colors that were multiplied with alpha are divided again; a channel of no stated meaning is dropped."""
    colors = np.random.default_rng(0).integers(0, 65536, (8, 9, 3), dtype=np.uint16)
    alpha = np.full((8, 9, 1), 32768, np.uint16)
    multiplied = (colors * (alpha / 65535.0)).astype(np.uint16)
    _deep(tmp_path / "a.tif", np.concatenate([multiplied, alpha], 2), photometric="rgb", extrasamples=["assocalpha"])
    loaded = load_image(tmp_path / "a.tif")
    assert loaded.alpha is not None
    assert np.abs(loaded.pixels[0].movedim(0, -1).numpy() * 65535 - colors).max() < 5
    _deep(tmp_path / "b.tif", np.concatenate([colors, 0 * alpha], 2), photometric="rgb", extrasamples=["unspecified"])
    assert load_image(tmp_path / "b.tif").alpha is None


def test_deep_cmyk_tiff_is_not_read_as_rgba(tmp_path) -> None:
    white = np.zeros((8, 9, 4), np.uint16)
    _deep(tmp_path / "a.tif", white, photometric="separated")
    try:
        loaded = load_image(tmp_path / "a.tif")
    except InputError:
        return
    assert loaded.alpha is None
    assert float(loaded.pixels.min()) > 0.9


def test_deep_gray_tiff_where_white_is_zero(tmp_path) -> None:
    _deep(tmp_path / "a.tif", np.zeros((8, 9), np.uint16), photometric="miniswhite")
    assert float(load_image(tmp_path / "a.tif").pixels.min()) == 1


def test_a_profile_does_not_cost_the_transparency(tmp_path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("RGB", (8, 8), (0, 255, 0))
    image.save(tmp_path / "a.png", transparency=(0, 255, 0), icc_profile=profile)
    loaded = load_image(tmp_path / "a.png")
    assert loaded.alpha is not None
    assert float(loaded.alpha.max()) == 0
