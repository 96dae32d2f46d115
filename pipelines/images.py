"""Pictures in and out: orientation applied, metadata gone, depth and transparency kept, nothing half-written."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, OutputError

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".bmp": "BMP",
}
MOST_PIXELS = 150_000_000
"""A larger picture is refused: a few kilobytes can unpack to all memory there is."""
_DEEP = ("PNG", "TIFF")


@dataclass(frozen=True)
class Picture:
    """A decoded picture without its metadata.

    Attributes:
        pixels: ``(1, 3, H, W)``, RGB in [0, 1].
        alpha: ``(1, 1, H, W)`` or none.
        depth: bits a channel, 8 or 16.
        grey: whether the file held no colour.
        profile: ICC profile of 16-bit numbers, which are kept as they are; 8-bit pictures are converted to sRGB.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    depth: int = 8
    grey: bool = False
    profile: bytes | None = None

    def with_pixels(self, pixels: Tensor) -> Picture:
        """The same kind of picture with other pixels."""
        return replace(self, pixels=pixels)


def load_picture(path: Path) -> Picture:
    """Read a picture.

    Raises:
        InputError: it is missing, empty, damaged, of no known format, or larger than 150 megapixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not path.exists():
        raise InputError(f"{path.name} does not exist; check its name and folder")
    if path.is_dir():
        raise InputError(f"{path.name} is a folder, not a picture")
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InputError(
                    f"{path.name} has {image.width} x {image.height} pixels; make it smaller than"
                    f" {MOST_PIXELS // 10**6} megapixels"
                )
            if _is_deep(image):
                deep = _load_deep(path, image.getexif().get(0x0112, 1))
                return replace(deep, profile=image.info.get("icc_profile"))
            image.load()
            return _from_pil(ImageOps.exif_transpose(image))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path.name} is not a picture that can be read; use {', '.join(sorted(FORMATS))}") from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{path.name} has too many pixels; make it smaller than {MOST_PIXELS // 10**6} megapixels"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, TypeError, IndexError) as error:
        raise InputError(f"{path.name} is damaged or cut off ({_short(error)}); get a fresh copy") from None


def picture_from(image: Any) -> Picture:
    """Take a path, a Pillow image, an ``(H, W[, C])`` array or a ``(1, 3, H, W)`` tensor.

    Raises:
        InputError: it is none of these, is empty, or holds values that are not finite.
    """
    from PIL import Image, ImageOps

    if isinstance(image, Picture):
        return image
    if isinstance(image, (str, Path)):
        return load_picture(Path(image))
    if isinstance(image, Image.Image):
        return _from_pil(ImageOps.exif_transpose(image))
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if isinstance(image, Tensor):
        if image.dim() != 4 or image.shape[0] != 1 or image.shape[1] != 3 or image.numel() == 0:
            raise InputError(f"an image tensor must have shape (1, 3, H, W), got {tuple(image.shape)}")
        if not bool(torch.isfinite(image).all()):
            raise InputError("the image holds values that are not finite; check the step that made it")
        return Picture(image.float().clamp(0, 1))
    raise InputError(
        f"cannot read a picture from {type(image).__name__}; give a path, a Pillow image, an array or a tensor"
    )


def save_picture(picture: Picture, path: Path, overwrite: bool = True) -> None:
    """Write a picture without metadata; the file appears whole or not at all.

    Raises:
        OutputError: the format is unknown, the folder cannot be written, or the disk is full.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"{path.name} has no known picture ending; use {', '.join(sorted(FORMATS))}")
    if path.exists() and not overwrite:
        raise OutputError(f"{path.name} exists already; name another output or allow overwriting")
    try:
        data = _encode(picture, kind)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{path.name} cannot be written as {kind} ({_short(error)}); choose .png") from None
    write_whole(path, data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full; nothing is left behind.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".faceveil-", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        # mkstemp makes private files; a result should be as readable as any other file.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            f"{path.name} could not be written ({_short(error)}); choose another folder or free some space"
        ) from None


def _from_pil(image: Any) -> Picture:
    if image.width == 0 or image.height == 0:
        raise InputError("the picture has no pixels; get a fresh copy")
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        values = torch.from_numpy(np.asarray(image, dtype=np.float32)) / 65535.0
        return Picture(values.clamp(0, 1)[None, None].expand(1, 3, -1, -1).contiguous(), depth=16, grey=True)
    if image.mode == "F":
        raise InputError("the picture holds floating-point values; save it as an 8 or 16 bit file")
    image = _to_srgb(image)
    grey = image.mode in ("L", "LA", "1")
    has_alpha = image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info
    array = np.array(image.convert("RGBA" if has_alpha else "RGB"))
    picture = _from_array(array)
    return replace(picture, grey=grey)


def _to_srgb(image: Any) -> Any:
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        colour = image.convert("RGB") if image.mode == "RGBA" else image
        converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        # A broken profile says nothing about the colours; viewers ignore it too.
        return image
    if converted is not None and alpha is not None:
        converted.putalpha(alpha)
    return converted or image


def _from_array(array: np.ndarray) -> Picture:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise InputError(f"an image array must have shape (H, W), (H, W, 3) or (H, W, 4), got {array.shape}")
    if array.dtype == np.uint8:
        scale, depth = 255.0, 8
    elif array.dtype == np.uint16:
        scale, depth = 65535.0, 16
    elif array.dtype.kind == "f":
        scale, depth = 1.0, 8
    else:
        raise InputError(f"an image array must hold uint8, uint16 or floats, got {array.dtype}")
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).movedim(-1, 0)[None] / scale
    if not bool(torch.isfinite(values).all()):
        raise InputError("the image holds values that are not finite; check the step that made it")
    values = values.clamp(0, 1)
    pixels = values[:, :3] if array.shape[2] >= 3 else values.expand(1, 3, -1, -1).contiguous()
    return Picture(pixels, values[:, 3:] if array.shape[2] == 4 else None, depth, grey=array.shape[2] == 1)


def _is_deep(image: Any) -> bool:
    """Pillow cuts 16 bit colour to 8 bits without a word."""
    if image.format == "PNG":
        return any("16" in str(tile[3]) for tile in image.tile) and image.mode in ("RGB", "RGBA")
    if image.format == "TIFF":
        return tuple(image.tag_v2.get(258, ()))[:3] == (16, 16, 16)
    return False


def _load_deep(path: Path, orientation: int) -> Picture:
    import av

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        has_alpha = "a" in frame.format.name.replace("gray", "")
        array = frame.to_ndarray(format="rgba64le" if has_alpha else "rgb48le")
    # EXIF orientations 2 to 8 as mirror and quarter turns.
    turns, mirror = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (1, 1), 6: (3, 0), 7: (3, 1), 8: (1, 0)}.get(
        orientation, (0, 0)
    )
    array = np.rot90(array, turns)
    return _from_array(np.ascontiguousarray(array[:, ::-1] if mirror else array))


def _encode(picture: Picture, kind: str) -> bytes:
    from PIL import Image

    channels = [picture.pixels] if picture.alpha is None or kind in ("JPEG", "BMP") else [picture.pixels, picture.alpha]
    values = torch.cat(channels, 1)[0].movedim(0, -1).clamp(0, 1).cpu().numpy().astype(np.float64)
    if picture.depth == 16 and kind in _DEEP:
        deep = (values * 65535 + 0.5).astype(np.uint16)
        if picture.grey and picture.alpha is None:
            return _pillow_bytes(Image.fromarray(deep[..., 0]), kind, {})
        return _deep_tiff(deep, picture.profile) if kind == "TIFF" else _deep_png(deep, picture.profile)
    shallow = (values * 255 + 0.5).astype(np.uint8)
    image = Image.fromarray(shallow)
    if picture.grey:
        image = image.convert("LA" if shallow.shape[2] == 4 and kind != "WEBP" else "L") if kind != "WEBP" else image
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "PNG": {"compress_level": 3},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 92, "subsampling": "4:4:4"},
    }
    return _pillow_bytes(image, kind, options.get(kind, {}))


def _pillow_bytes(image: Any, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _deep_tiff(array: np.ndarray, profile: bytes | None) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    extra = ["unassalpha"] if array.shape[2] == 4 else None
    tifffile.imwrite(
        buffer,
        array,
        photometric="rgb",
        extrasamples=extra,
        compression="zlib",
        metadata=None,
        software=False,
        iccprofile=profile,
    )
    return buffer.getvalue()


def _deep_png(array: np.ndarray, profile: bytes | None) -> bytes:
    import av

    native, packed = ("rgba64le", "rgba64be") if array.shape[2] == 4 else ("rgb48le", "rgb48be")
    context: Any = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = array.shape[1], array.shape[0], packed
    context.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=native).reformat(format=packed)
    data = b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])
    if profile is None:
        return data
    chunk = b"iCCPicc\0\0" + zlib.compress(profile)
    # The profile's place is right behind the header: 8 bytes of signature and the 25 of IHDR.
    return data[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def _short(error: BaseException) -> str:
    text = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
