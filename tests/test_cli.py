"""The commands as a user types them."""

from __future__ import annotations

import json

import pytest
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED, UNPROTECTED
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.identity.identity import Identity, save_identity
from faceveil.pipelines.identity.lds import builtin_sampler
from PIL import Image


@pytest.fixture
def sample(tmp_path):
    assert main(["sample", str(tmp_path / "a.png")]) == OK
    return tmp_path / "a.png"


def test_the_main_job(sample, tmp_path, capsys) -> None:
    report, sheet, person = (tmp_path / n for n in ("r.json", "s.png", "p.safetensors"))
    arguments = [
        "anonymize",
        str(sample),
        "--report",
        str(report),
        "--preview",
        str(sheet),
        "--save-identity",
        str(person),
        "--fast",
    ]
    assert main(arguments) == OK
    out = tmp_path / "a_veiled.png"
    assert Image.open(out).size == (512, 512)
    assert Image.open(sheet).width > 1000
    rows = json.loads(report.read_text())
    assert rows[0]["faces"][0]["outcome"] in ("replaced", "redacted")
    assert "a.png" not in report.read_text() and str(tmp_path) not in report.read_text()
    again = tmp_path / "again.png"
    assert main(["anonymize", str(sample), "-o", str(again), "--identity", str(person)]) == OK
    assert again.read_bytes() == out.read_bytes()
    capsys.readouterr()
    assert main(["compare", str(sample), str(out)]) == OK
    assert "same person below 0.60" in capsys.readouterr().out


def test_one_identity_for_two_files(sample, tmp_path) -> None:
    Image.open(sample).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "b.png")
    assert (
        main(
            ["anonymize", str(sample), str(tmp_path / "b.png"), "-o", str(tmp_path / "out"), "--same-person", "--fast"]
        )
        == OK
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_sticker(sample, tmp_path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 255)).save(tmp_path / "dot.png")
    arguments = [
        "anonymize",
        str(sample),
        "--method",
        "sticker",
        "--sticker",
        str(tmp_path / "dot.png"),
        "-o",
        str(tmp_path / "o.png"),
    ]
    assert main(arguments) == OK
    assert Image.open(tmp_path / "o.png").getpixel((225, 115)) == (255, 0, 0)


def test_detect_writes_a_plan_and_a_picture(sample, tmp_path, capsys) -> None:
    assert main(["detect", str(sample), "-o", str(tmp_path / "plan.json")]) == OK
    assert len(Faces.from_json((tmp_path / "plan.json").read_text())) == 1
    assert main(["anonymize", str(sample), "--plan", str(tmp_path / "plan.json"), "--method", "solid"]) == OK
    assert Image.open(tmp_path / "a_veiled.png").getpixel((225, 115)) == (128, 128, 128)
    assert main(["detect", str(sample), "-o", str(tmp_path / "boxes.png")]) == OK
    assert Image.open(tmp_path / "boxes.png").size == (512, 512)
    assert "1 face" in capsys.readouterr().out


def test_doctor_and_weights(capsys) -> None:
    assert main(["doctor"]) == OK
    assert main(["weights"]) == OK
    said = capsys.readouterr().out
    assert "ok      appearance model" in said
    assert "appearance.safetensors" in said and "CC0" in said


def test_usage_errors_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["anonymize"])
    assert caught.value.code == 2


def test_pseudonyms_keep_a_key_and_a_ledger(portrait_file, tmp_path) -> None:
    key = tmp_path / "mine.key"
    for out in ("a.png", "b.png"):
        assert main(
            ["anonymize", str(portrait_file), "-o", str(tmp_path / out), "--pseudonyms", str(key), "--policy", "pass"]
        ) in (OK, UNPROTECTED)
    assert len(key.read_bytes()) == 32 and (tmp_path / "mine.ledger.json").is_file()
    assert len(json.loads((tmp_path / "mine.ledger.json").read_text())["entries"]) == 1
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_saved_identity_is_shown(portrait_file, tmp_path) -> None:
    save_identity(tmp_path / "somebody.safetensors", Identity(builtin_sampler("dlib").sample(1, 3).vectors, "dlib"))
    shown = [
        "anonymize",
        str(portrait_file),
        "-o",
        str(tmp_path / "out.png"),
        "--identity",
        str(tmp_path / "somebody.safetensors"),
    ]
    assert main([*shown, "--policy", "pass"]) in (OK, UNPROTECTED)
    assert main([*shown, "--pseudonyms", str(tmp_path / "x.key")]) == SOME_FAILED
    assert main([*shown, "--method", "solid"]) == SOME_FAILED
    assert not (tmp_path / "x.key").exists()
