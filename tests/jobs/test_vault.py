"""The vault gives back what was sealed, bit for bit, to whom holds the key, and tells others nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import Card, Pose, Shot, frames_of, write_clip
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.core.sealing import Secret
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import group
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.imaging.uint8 import to_uint8
from faceveil.pipelines.imaging.video import VideoSource
from faceveil.pipelines.jobs.vault import UNKNOWN, Digest, Sealed, Vault, VaultWriter
from PIL import Image
from torch import Tensor

SECRET = Secret(b"0123456789abcdef")


def filled(path: Path, secret: Secret = SECRET, people: int = 2) -> list[np.ndarray]:
    """A vault with one random window for each person in one image; returns the original image and the masks."""
    rng = np.random.default_rng(0)
    original = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = [original]
    with VaultWriter(path, secret) as vault:
        for person in range(people):
            mask = np.zeros((40, 60), bool)
            mask[5 : 20 + person, 20 * person + 2 : 20 * person + 15] = rng.random((15 + person, 13)) > 0.3
            vault.add(person, 0, Sealed.of(original, mask))
            found.append(mask)
        vault.finish("digest")
    return found


def test_each_person_is_restored_alone(tmp_path: Path) -> None:
    original, *masks = filled(tmp_path / "v")
    for secret_or_key in ("vault", "person"):
        vault = Vault.open(tmp_path / "v", SECRET)
        for person, mask in enumerate(masks):
            opened = vault
            if secret_or_key == "person":
                opened = Vault.open_for_person(tmp_path / "v", vault.person_key(person))
                with pytest.raises(InputError, match="no person"):
                    opened.faces(1 - person)
            image = np.zeros_like(original)
            for sealed in opened.read(opened.faces(person)[0]):
                sealed.restore(image)
            assert (image[mask] == original[mask]).all()
            assert not image[~mask].any()


def test_without_the_key_it_is_random(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    filled(tmp_path / "b")
    a, b = ((tmp_path / name).read_bytes() for name in "ab")
    # Two vaults of the same faces under one key have nothing in common, and no structure.
    length = min(len(a), len(b))
    same = np.mean(np.frombuffer(a[:length], np.uint8) == np.frombuffer(b[:length], np.uint8))
    assert same < 0.02
    counts = np.bincount(np.frombuffer(a, np.uint8), minlength=256)
    assert counts.max() < len(a) / 256 * 4
    assert (tmp_path / "a").stat().st_mode & 0o077 == 0


def test_every_change_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "v", people=1)
    data = (tmp_path / "v").read_bytes()
    rng = np.random.default_rng(0)
    places = {0, 15, 16, len(data) - 1, len(data) - 24, *(int(v) for v in rng.integers(0, len(data), 150))}
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "d").write_bytes(damaged)
        with pytest.raises(InputError):
            vault = Vault.open(tmp_path / "d", SECRET)
            list(vault.read(vault.faces()[0]))
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "d").write_bytes(data[:length])
        with pytest.raises(InputError):
            Vault.open(tmp_path / "d", SECRET)
    (tmp_path / "d").write_bytes(data + b"x")
    with pytest.raises(InputError):
        Vault.open(tmp_path / "d", SECRET)


def test_wrong_keys_are_one_sentence(tmp_path: Path) -> None:
    filled(tmp_path / "a")
    filled(tmp_path / "b")
    with pytest.raises(InputError, match="the key is another one"):
        Vault.open(tmp_path / "a", Secret(b"fedcba9876543210"))
    key = Vault.open(tmp_path / "a", SECRET).person_key(0)
    with pytest.raises(InputError, match="for another vault"):
        Vault.open_for_person(tmp_path / "b", key)
    for text in (b"", b"{}", b"nonsense", key[:-20]):
        with pytest.raises(InputError, match="no key of a person"):
            Vault.open_for_person(tmp_path / "a", text)
    with pytest.raises(InputError, match="no person 5"):
        Vault.open(tmp_path / "a", SECRET).person_key(5)


def test_secrets(tmp_path: Path) -> None:
    phrase = Secret.from_passphrase("correct horse battery")
    filled(tmp_path / "v", phrase)
    assert Vault.open(tmp_path / "v", phrase).digest == "digest"
    with pytest.raises(InputError, match="another one"):
        Vault.open(tmp_path / "v", Secret.from_passphrase("correct horse batterz"))
    with pytest.raises(InputError, match="at least 12"):
        Secret.from_passphrase("short")
    (tmp_path / "k").write_bytes(b"short")
    with pytest.raises(InputError, match="no key file"):
        Secret.from_file(tmp_path / "k")
    with pytest.raises(InputError, match="cannot be read"):
        Secret.from_file(tmp_path / "none")


def test_nothing_is_left_of_an_unfinished_vault(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VaultWriter(tmp_path / "v", SECRET) as vault:
        vault.add(UNKNOWN, 0, Sealed.of(np.ones((4, 4, 3), np.uint8), np.ones((4, 4), bool)))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "deep"])
def test_images_from_the_command_line(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "in.png"
    image = Image.fromarray(group())
    if kind == "deep":
        import cv2

        deep = np.asarray(image).astype(np.uint16) * 257 + np.arange(image.width, dtype=np.uint16)[None, :, None] % 200
        cv2.imwrite(str(source), deep[..., ::-1])
    elif kind == "RGBA":
        alpha = Image.fromarray(np.tile(np.linspace(40, 255, image.width).astype(np.uint8), (image.height, 1)))
        image.putalpha(alpha)
        image.save(source)
    else:
        image.convert(kind).save(source)
    out, vault, key, back = (str(tmp_path / n) for n in ("out.png", "v.vault", "k.key", "back.png"))
    assert main(["vault-key", key]) == OK
    assert main(["anonymize", str(source), "-o", out, "--method", "solid", "--vault", vault, "--key", key]) == OK
    assert main(["restore", out, "--vault", vault, "--key", key, "-o", back]) == OK
    read = [as_image(p) for p in (str(source), back, out)]
    for name in ("pixels", "alpha"):
        first, second = (getattr(r, name) for r in read[:2])
        assert (first is None) == (second is None)
        assert first is None or bool((first == second).all())
    assert not bool((read[0].pixels == read[2].pixels).all())
    assert read[0].depth == read[1].depth
    one = str(tmp_path / "one.png")
    assert main(["restore", out, "--vault", vault, "--key", key, "--person", "0", "-o", one]) == OK
    partly = as_image(one).pixels
    assert not bool((partly == read[0].pixels).all()) and not bool((partly == read[2].pixels).all())


def test_a_format_that_cannot_hold_the_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(group())
    image.putalpha(200)
    image.save(tmp_path / "in.png")
    out, vault, key = (str(tmp_path / n) for n in ("out.bmp", "v.vault", "k.key"))
    assert main(["vault-key", key]) == OK
    command = ["anonymize", str(tmp_path / "in.png"), "-o", out, "--method", "solid", "--vault", vault, "--key", key]
    assert main(command) == SOME_FAILED
    assert "cannot hold" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "k.key"]


def test_a_changed_picture_is_refused(tmp_path: Path, portrait: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.png"
    save_image(as_image(portrait), source)
    out, vault, key = (str(tmp_path / n) for n in ("out.png", "v.vault", "k.key"))
    assert main(["vault-key", key]) == OK
    assert main(["anonymize", str(source), "-o", out, "--method", "solid", "--vault", vault, "--key", key]) == OK
    pixels = np.asarray(Image.open(out)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(out)
    assert main(["restore", out, "--vault", vault, "--key", key, "-o", str(tmp_path / "b.png")]) == SOME_FAILED
    assert "was changed; nothing was restored" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "out.jpg", "--vault", "v", "--key", "k.key"], "would lose pixels"),
        (["-o", "out.png", "--vault", "v"], "needs --key"),
        (["-o", "out.png", "--key", "k.key"], "belong to --vault"),
        (["-o", "out.png", "--vault", "v", "--key", "none.key"], "does not exist"),
        (["-o", "out.png", "--vault", "in.png", "--key", "k.key"], "is an input"),
    ],
)
def test_flags(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("in.png")
    (tmp_path / "k.key").write_bytes(b"0123456789abcdef")
    assert main(["anonymize", "in.png", "--method", "solid", *flags]) == SOME_FAILED
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png", "k.key"]


def test_a_video(tmp_path: Path, portrait: Tensor, portrait_faces: Faces) -> None:
    face = portrait_faces[0]
    card = Card("a", to_uint8(portrait), np.array(face.box), face.points)
    source, out, vault, key, back = (tmp_path / n for n in ("a.mp4", "b.mkv", "v.vault", "k.key", "c.mkv"))
    frames = frames_of([Shot(8, [(0, lambda t: Pose(0.8 + 0.2 * t, 0.5, 0.9))])], [card], 320, 180)
    write_clip(source, (p for p, _ in frames))
    assert main(["vault-key", str(key)]) == OK
    command = ["anonymize", str(source), "-o", str(out), "--method", "solid", "--video-codec", "ffv1"]
    assert main([*command, "--vault", str(vault), "--key", str(key)]) == OK
    assert main(["restore", str(out), "--vault", str(vault), "--key", str(key), "-o", str(back)]) == OK
    first, second = ([f.pixels for f in VideoSource(p).frames()] for p in (source, back))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_an_ordinary_video(tmp_path: Path, portrait: Tensor, portrait_faces: Faces, capsys) -> None:
    """The sealed H.264 file is lossy outside the faces; they come back as they were."""
    face = portrait_faces[0]
    card = Card("a", to_uint8(portrait), np.array(face.box), face.points)
    source, out, vault, key = (str(tmp_path / n) for n in ("a.mp4", "b.mp4", "v.vault", "k.key"))
    truth, pixels = [], []
    for frame, faces in frames_of([Shot(4, [(0, lambda t: Pose(0.8, 0.5, 0.9))])], [card], 320, 180):
        pixels.append(frame)
        (x1, y1), (x2, y2) = np.split(faces[0].box, 2)
        # The sealed mask is an ellipse: without the corners.
        truth.append([x1 + 0.2 * (x2 - x1), y1 + 0.2 * (y2 - y1), x2 - 0.2 * (x2 - x1), y2 - 0.2 * (y2 - y1)])
    write_clip(Path(source), pixels)
    main(["vault-key", key])
    assert main(["anonymize", source, "-o", out, "--method", "solid", "--vault", vault, "--key", key]) == OK
    restore = ["restore", out, "--vault", vault, "--key", key, "-o"]
    assert main([*restore, str(tmp_path / "back.mp4")]) == SOME_FAILED
    assert "name a .mkv file" in capsys.readouterr().err
    assert main([*restore, str(tmp_path / "lossy.mp4"), "--video-codec", "h264"]) == OK
    assert main([*restore, str(tmp_path / "back.mkv")]) == OK
    for (x1, y1, x2, y2), a, b in zip(
        np.round(truth).astype(int),
        VideoSource(Path(source)).frames(),
        VideoSource(tmp_path / "back.mkv").frames(),
        strict=True,
    ):
        assert (a.pixels[y1:y2, x1:x2] == b.pixels[y1:y2, x1:x2]).all()


def test_digests_tell_shapes_apart() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert Digest().add(pixels).hex != Digest().add(pixels.reshape(4, 2, 3)).hex
    assert Digest().add(pixels).hex == Digest().add(pixels.copy()).hex
