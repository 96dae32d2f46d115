"""Regenerate the image of the README and the thumbnails of the workflow templates.

    python benchmarks/pictures.py

Only the public-domain sample portrait is used.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import torch
from faceveil.pipelines.core.files import write_whole
from faceveil.pipelines.faces.detect import detect_faces
from faceveil.pipelines.faces.select import Selection
from faceveil.pipelines.geometry.builtin import built_in_morphable_model
from faceveil.pipelines.geometry.coefficients import neutral
from faceveil.pipelines.geometry.fitting import Fitter
from faceveil.pipelines.geometry.reshape import reshape
from faceveil.pipelines.geometry.sliders import apply_sliders
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import astronaut, group
from faceveil.pipelines.jobs.people import embed_identities
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.ideudemon.protect import protected_coefficients
from faceveil.pipelines.viz.geometry import overlay, render_styled
from faceveil.pipelines.viz.sheets import draw_faces
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
SIDE = 300
README_SCALE, THUMBNAIL_SCALE, QUALITY = 0.78, 0.68, 75
"""Of the images as files: the repository stays small."""


def main() -> None:
    portrait, trio = as_image(astronaut()).pixels, as_image(group()).pixels
    anonymized = [anonymize_batch(portrait, Settings(seed=seed)).pixels for seed in range(3)]
    solid = anonymize_batch(portrait, Settings(method="solid")).pixels
    head = (90, 0, 390, 300)
    tiles = [("the photo", _tile(portrait, head))] + [(f"seed {i}", _tile(v, head)) for i, v in enumerate(anonymized)]
    tiles += [("solid", _tile(solid, head)), ("built-in 3D model", _model())]
    _write(_strip(tiles), ROOT / "web" / "faceveil.jpg", README_SCALE)
    faces = detect_faces(trio)
    others = [f for f in faces if f not in Selection("largest").of(faces)]
    kept = anonymize_batch(trio, Settings(), type(faces)(others)).pixels
    _write(
        _strip([("", _tile(portrait, head)), ("", _tile(anonymized[0], head))]),
        ROOT / "workflows" / "veil-one-portrait.jpg",
    )
    before = draw_faces(trio, faces, landmarks=False)
    stacked = Image.new("RGB", (560, 512))
    stacked.paste(before.resize((560, 256)), (0, 0))
    stacked.paste(_image(kept).resize((560, 256)), (0, 256))
    _write(stacked, ROOT / "workflows" / "veil-a-group-keep-one-person.jpg")
    _write(_strip([("", _tile(portrait, head)), ("", _tile(solid, head))]), ROOT / "workflows" / "redact-faces.jpg")
    sampler, source = builtin_sampler("dlib"), embed_identities(portrait)
    new_identity = Identity(sampler.away_from(source.vector, 7).vectors, "dlib")
    _write(
        _strip([("", _tile(portrait, head)), ("", _tile(_with_identity(portrait, new_identity), head))]),
        ROOT / "workflows" / "sample-a-new-identity.jpg",
    )
    pseudonym = Identity(sampler.sample(1, 11).vectors, "dlib")
    second = portrait[..., :400, 30:430]
    tiles = [
        ("", _tile(_with_identity(portrait, pseudonym), head)),
        ("", _image(_with_identity(second, pseudonym)).resize((SIDE, SIDE))),
    ]
    _write(_strip(tiles), ROOT / "workflows" / "same-pseudonym-in-two-photos.jpg")
    model = built_in_morphable_model()
    fit = Fitter(model)(portrait, detect_faces(portrait)[0].points)
    overlays = [overlay(model, portrait, fit, style, 0.95)[0] for style in ("shaded", "wireframe", "normals")]
    _write(
        _strip([("", _tile(d, head)) for d in (portrait, *overlays)]),
        ROOT / "workflows" / "3d-overlay-of-a-portrait.jpg",
    )
    drawn = overlay(
        model, portrait, replace(fit, coefficients=protected_coefficients(fit.coefficients, 1.0, 3)), "shaded", 1.0
    )
    restored = anonymize_batch(portrait, Settings(method="ideudemon", seed=3)).pixels
    _write(
        _strip([("", _tile(p, head)) for p in (portrait, drawn[0], restored)]),
        ROOT / "workflows" / "protect-the-3d-identity-and-restore.jpg",
    )
    edited = apply_sliders(model, fit.coefficients, {"jaw width": 2.0, "nose length": -1.5, "eye size": 1.5})
    reshaped, _ = reshape(model, portrait, fit, edited)
    tiles = [("", _tile(p, head)) for p in (portrait, reshaped, anonymize_batch(reshaped, Settings()).pixels)]
    _write(_strip(tiles), ROOT / "workflows" / "edit-the-face-in-3d-and-veil.jpg")


def _with_identity(pixels: torch.Tensor, identity: Identity) -> torch.Tensor:
    return anonymize_batch(pixels, Settings(), identity=identity).pixels


def _image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray((pixels[0].movedim(0, -1) * 255 + 0.5).byte().numpy())


def _tile(pixels: torch.Tensor, box: tuple[int, int, int, int]) -> Image.Image:
    return _image(pixels).crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _model() -> Image.Image:
    model = built_in_morphable_model()
    rotated = replace(
        neutral(model.name, model.sizes),
        angles=torch.tensor([[0.0, -0.42, 0.0]]),
        translation=torch.tensor([[0.0, 0.0, 0.6]]),
    )
    rendered, mask = render_styled(model, rotated, "shaded", 2 * SIDE)
    return _image(torch.where(mask > 0, rendered, 0.16)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _strip(tiles: list[tuple[str, Image.Image]]) -> Image.Image:
    caption = 30 if any(text for text, _ in tiles) else 0
    strip = Image.new("RGB", (len(tiles) * SIDE, SIDE + caption), (255, 255, 255))
    draw = ImageDraw.Draw(strip)
    for i, (text, tile) in enumerate(tiles):
        strip.paste(tile, (i * SIDE, 0))
        draw.text((i * SIDE + SIDE / 2, SIDE + 6), text, fill=(40, 40, 40), font_size=18, anchor="ma")
    return strip


def _write(image: Image.Image, path: Path, scale: float = THUMBNAIL_SCALE) -> None:
    buffer = io.BytesIO()
    size = round(image.width * scale), round(image.height * scale)
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=QUALITY)
    write_whole(path, buffer.getvalue())


if __name__ == "__main__":
    main()
