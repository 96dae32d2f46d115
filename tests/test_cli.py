"""The commands as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.identity.identity import Identity, save_identity
from faceveil.pipelines.identity.lds import builtin_sampler
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.samples import group
from faceveil.pipelines.imaging.save import save_image
from faceveil.pipelines.methods.identities import load_any_identity
from PIL import Image

QUICK = ("--appearance-search", "1")


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
        *QUICK,
    ]
    assert main(arguments) == OK
    out = tmp_path / "a_veiled.png"
    assert Image.open(out).size == (512, 512)
    assert Image.open(sheet).width > 1000
    rows = json.loads(report.read_text())
    assert rows[0]["faces"][0]["outcome"] == "replaced"
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
        main(["anonymize", str(sample), str(tmp_path / "b.png"), "-o", str(tmp_path / "out"), "--same-person", *QUICK])
        == OK
    )
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["a.png", "b.png"]


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
    assert "ok      method appearance" in said
    assert "appearance.safetensors" in said and "CC0" in said


def test_usage_errors_exit_with_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["anonymize"])
    assert caught.value.code == 2


def test_pseudonyms_keep_a_key_and_a_ledger(portrait_file, tmp_path) -> None:
    key = tmp_path / "mine.key"
    for out in ("a.png", "b.png"):
        arguments = ["anonymize", str(portrait_file), "-o", str(tmp_path / out), "--pseudonyms", str(key)]
        main([*arguments, "--policy", "pass"])
    assert len(key.read_bytes()) == 32 and (tmp_path / "mine.ledger.json").is_file()
    assert len(json.loads((tmp_path / "mine.ledger.json").read_text())["entries"]) == 1
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_saved_identity_is_shown(portrait_file, tmp_path, capsys) -> None:
    """The same identity twice gives the same pixels, another one gives others."""
    pixels = []
    for place, seed in enumerate((3, 3, 4)):
        person = tmp_path / f"person{seed}.safetensors"
        save_identity(person, Identity(builtin_sampler("dlib").sample(1, seed).vectors, "dlib"))
        out = tmp_path / f"out{place}.png"
        main(["anonymize", str(portrait_file), "-o", str(out), "--identity", str(person), "--policy", "pass"])
        pixels.append(out.read_bytes())
    assert pixels[0] == pixels[1] != pixels[2]
    shown = ["anonymize", str(portrait_file), "-o", str(tmp_path / "o.png"), "--identity", str(person)]
    assert main([*shown, "--method", "solid"]) == SOME_FAILED
    assert "--identity needs a method that replaces faces" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*shown, "--pseudonyms", str(tmp_path / "x.key")])
    assert not (tmp_path / "x.key").exists()


def test_flags_of_another_method_are_refused(portrait_file, capsys) -> None:
    assert main(["anonymize", str(portrait_file), "--referencenet-steps", "5"]) == SOME_FAILED
    assert (
        "--referencenet-steps belongs to --method referencenet, but the method is appearance" in capsys.readouterr().err
    )


def test_several_identities_are_not_saved_as_one(tmp_path, capsys) -> None:
    save_image(as_image(group()), tmp_path / "group.png")
    kept = tmp_path / "who.safetensors"
    arguments = ["anonymize", str(tmp_path / "group.png"), "--save-identity", str(kept), *QUICK]
    assert main([*arguments, "-o", str(tmp_path / "a.png")]) == SOME_FAILED
    assert "3 identities were shown, so none was saved in who.safetensors" in capsys.readouterr().err
    assert (tmp_path / "a.png").is_file() and not kept.exists()
    assert main([*arguments, "-o", str(tmp_path / "b.png"), "--same-person", "--policy", "redact"]) == OK
    assert load_any_identity(kept).method == "appearance"


def test_missing_files_are_reported_before_anything_is_loaded(portrait_file, tmp_path) -> None:
    """In a process of its own, so that no other test has loaded torch."""
    arguments = [str(tmp_path / "none.png"), "--exclude", str(portrait_file)]
    code = (
        "import sys\nfrom faceveil.pipelines.cli import main\n"
        f"code = main(['anonymize', *{arguments!r}])\n"
        "print(code, 'torch' in sys.modules, 'dlib' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["1", "False", "False"]
    assert "none.png does not exist" in answer.stderr


def test_several_processes_give_the_same(sample, tmp_path, capsys) -> None:
    (tmp_path / "in").mkdir()
    for i, name in enumerate("abc"):
        Image.open(sample).rotate(4 * i).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"none")
    reports = []
    for jobs in (1, 2):
        report = tmp_path / f"{jobs}.json"
        arguments = ["anonymize", str(tmp_path / "in"), "-o", str(tmp_path / f"out{jobs}"), "--report", str(report)]
        assert main([*arguments, "--jobs", str(jobs), *QUICK]) == SOME_FAILED
        assert "bad.png" in capsys.readouterr().err
        reports.append(report.read_text())
    assert reports[0] == reports[1]
    outputs = [{p.name: p.read_bytes() for p in (tmp_path / f"out{jobs}").glob("*.png")} for jobs in (1, 2)]
    assert len(outputs[0]) == 3
    assert outputs[0] == outputs[1]


def test_a_ledger_is_filled_in_order(sample, tmp_path, capsys) -> None:
    arguments = ["anonymize", str(sample), "--pseudonyms", str(tmp_path / "k.key"), "--jobs", "2"]
    assert main(arguments) == SOME_FAILED
    assert capsys.readouterr().err.startswith("error: a ledger of pseudonyms is filled in the order")
