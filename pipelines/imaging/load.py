"""Read image files: EXIF orientation applied, metadata dropped, damage reported in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..core.errors import InputError
from ..core.files import exists, short_reason
from .deep import PHOTOMETRIC, is_deep, load_deep
from .formats import FORMATS
from .image import LoadedImage, from_array, from_pillow_image
from .profiles import clean_profile

MAX_PIXELS = 150_000_000
"""Larger images are refused: a file of a few kilobytes can decompress to more than the memory."""
SHALLOW = 8
"""Bits per channel of an ordinary image."""
_ORIENTATION = 0x0112


def load_image(path: Path) -> LoadedImage:
    """Read an image file.

    Raises:
        InputError: it is missing, empty, damaged, of no known format, or larger than 150 megapixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not exists(path):
        raise InputError(f"{path.name} does not exist; check its name and folder")
    if not path.is_file():
        # A named pipe would never end.
        raise InputError(
            f"{path.name or path.absolute()} is {'a folder' if path.is_dir() else 'no file'}, not an image"
        )
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InputError(
                    f"{path.name} has {image.width} x {image.height} pixels; make it smaller than"
                    f" {MAX_PIXELS // 10**6} megapixels"
                )
            if is_deep(image):
                array = load_deep(path, str(image.format), image.getexif().get(_ORIENTATION, 1))
                return replace(from_array(array), profile=clean_profile(image.info.get("icc_profile")))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            loaded = from_pillow_image(image)
            if loaded.depth == SHALLOW:
                return loaded
            white_is_zero = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0  # type: ignore[attr-defined]
            pixels = 1 - loaded.pixels if white_is_zero else loaded.pixels
            return replace(loaded, pixels=pixels, profile=clean_profile(image.info.get("icc_profile")))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{path.name} is damaged or no image of a known format ({', '.join(sorted(FORMATS))})"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path.name} has too many pixels; make it smaller than {MAX_PIXELS // 10**6} megapixels"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, TypeError, IndexError) as error:
        raise InputError(f"{path.name} is damaged or cut off ({short_reason(error)}); get a fresh copy") from None
