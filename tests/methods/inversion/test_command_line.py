"""From the command line, with a checkpoint folder of tiny networks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.imaging.image import as_image
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.imaging.samples import astronaut
from faceveil.pipelines.imaging.save import save_image


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    save_image(as_image(astronaut()), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(recorded, tmp_path_factory) -> Path:
    """The recorded UNet and VAE, and a random text encoder of their size."""
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("checkpoint")
    for part in ("unet", "vae"):
        shutil.copytree(recorded / "sd15" / part, folder / part)
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    CLIPTextModel(CLIPTextConfig(vocab_size=49408, **sizes)).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture
def command(recorded, checkpoint, photo, w600k, tmp_path) -> list[str]:
    adapter = recorded / "ipadapter" / "ip-adapter-faceid_sd15.safetensors"
    return [
        *("anonymize", str(photo), "-o", str(tmp_path / "out.png"), "--method", "inversion", "--checkpoint"),
        *(str(checkpoint), "--adapter", str(adapter), "--recognizer", f"arcface:{w600k}"),
        *("--steps", "10", "--inversion-size", "96", "--report", str(tmp_path / "report.json")),
    ]


def test_a_photo(command, photo, tmp_path: Path) -> None:
    assert main(command) == 0
    (row,) = json.loads((tmp_path / "report.json").read_text())[0]["faces"]
    assert row["outcome"] in ("replaced", "redacted") and row["tries"] >= 1
    before, after = (load_image(p).pixels for p in (photo, tmp_path / "out.png"))
    changed = (before != after).any(1).float().mean()
    assert 0.02 < float(changed) < 0.4
    shutil.move(tmp_path / "out.png", tmp_path / "first.png")
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_a_prompt_needs_a_vocabulary(command, capsys) -> None:
    assert main([*command, "--prompt", "an old man"]) == 1
    assert "vocab.json" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "message"), [("--adapter", "FaceID"), ("--checkpoint", "checkpoint")])
def test_a_wrong_file_is_one_sentence(command, capsys, photo, flag: str, message: str) -> None:
    wrong = photo.with_suffix(".safetensors")
    wrong.write_bytes(b"none")
    command[command.index(flag) + 1] = str(wrong)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("part", ["scheduler", "tokenizer", "unet"])
def test_other_checkpoint_folders_are_one_sentence(command, checkpoint, capsys, tmp_path: Path, part: str) -> None:
    """Of v-prediction, with a damaged vocabulary, and with a config that is none."""
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    (folder / part).mkdir(exist_ok=True)
    message = {"scheduler": "v-prediction", "tokenizer": "no vocabulary", "unet": "config"}[part]
    if part == "scheduler":
        (folder / part / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    elif part == "tokenizer":
        for name in ("vocab.json", "merges.txt"):
            (folder / part / name).write_text("none")
        command += ["--prompt", "an old man"]
    else:
        (folder / part / "config.json").write_text("[]")
    command[command.index("--checkpoint") + 1] = str(folder)
    assert main(command) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_small_squares_are_refused_and_the_last_method_counts(command, capsys) -> None:
    assert main([*command, "--inversion-size", "8"]) == 1
    assert "at least 64" in capsys.readouterr().err
    assert main(["anonymize", "--method", "solid", *command[1:], "--inversion-size", "8"]) == 1
    assert "at least 64" in capsys.readouterr().err


def test_missing_files_are_named(photo, capsys, tmp_path: Path) -> None:
    assert main(["anonymize", str(photo), "-o", str(tmp_path / "o.png"), "--method", "inversion"]) == 1
    assert "needs three files" in capsys.readouterr().err
