"""All generated inputs: each ends in one sentence or in a whole result, never in a traceback, and no file is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import bad_inputs as inputs
import pytest
import torch
from faceveil.pipelines.cli import main
from faceveil.pipelines.cli.terminal import OK, SOME_FAILED, UNPROTECTED, USAGE
from faceveil.pipelines.core.errors import FaceVeilError
from faceveil.pipelines.faces.face import Faces
from faceveil.pipelines.geometry.coefficients import load_coefficients
from faceveil.pipelines.geometry.readers import load_bfm, load_morphable
from faceveil.pipelines.identity.bank import load_bank
from faceveil.pipelines.identity.ensemble import load_ensemble
from faceveil.pipelines.identity.lds import load_sampler
from faceveil.pipelines.identity.pseudonym import Pseudonyms
from faceveil.pipelines.imaging.load import load_image
from faceveil.pipelines.jobs.manifest import NAME
from faceveil.pipelines.jobs.photo import anonymize_batch
from faceveil.pipelines.jobs.settings import Settings
from faceveil.pipelines.methods.identities import load_any_identity
from faceveil.pipelines.recognition.catalog import open_recognizer
from faceveil.pipelines.training.checkpoints import load_state

CODES = (OK, SOME_FAILED, USAGE, UNPROTECTED)
MAX_LINES = 4
"""Lines of text on standard error: a sentence, and the file it belongs to."""
IMAGES, PLANS, STORES = inputs.damaged_images(), inputs.plans(), inputs.stores()
LEDGERS, OPTIONS, PATHS = inputs.ledgers(), inputs.options(), inputs.paths()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures and a text, in the current folder."""
    for seed, name in enumerate(("a.png", "b.png")):
        inputs.picture(seed=seed).save(tmp_path / name)
    (tmp_path / "text.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one_sentence(error: FaceVeilError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert len(text) < 400


def run(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """Run a command; all files that were there must be there unchanged, and no temporary file may be left."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    try:
        code = main(arguments)
    except SystemExit as stopped:
        # argparse's own message about a value.
        code = int(str(stopped.code))
    said = capsys.readouterr()
    assert code in CODES
    assert "Traceback" not in said.err + said.out
    if code in (SOME_FAILED, UNPROTECTED):
        assert 1 <= len(said.err.strip().splitlines()) <= MAX_LINES, said.err
    assert {p: p.read_bytes() for p in before} == before
    assert not [p for p in folder.rglob("*") if p.name.endswith(".part")]
    return code


def test_there_are_enough_inputs() -> None:
    assert sum(map(len, (IMAGES, PLANS, STORES, LEDGERS, OPTIONS, PATHS))) + 7 * len(STORES) >= 300


@pytest.mark.parametrize("kind", IMAGES)
def test_damaged_images(tmp_path: Path, kind: str) -> None:
    name, data = IMAGES[kind]
    (tmp_path / name).write_bytes(data)
    try:
        image = load_image(tmp_path / name)
    except FaceVeilError as error:
        one_sentence(error)
    else:
        # Some damage cannot be seen; the image is then whole and in range.
        assert image.pixels.shape[:2] == (1, 3)
        assert bool(torch.isfinite(image.pixels).all())
        assert 0 <= float(image.pixels.min()) <= float(image.pixels.max()) <= 1


@pytest.mark.parametrize("kind", PLANS)
def test_plans(kind: str) -> None:
    """A plan that is accepted redacts what it says: every pixel of the outcome's box is looked at."""
    pixels = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    try:
        faces = Faces.from_json(PLANS[kind])
        if len(faces) > 100:
            faces = faces.only(faces[:100])
        result = anonymize_batch(pixels, Settings(method="solid"), faces)
    except FaceVeilError as error:
        one_sentence(error)
        return
    changed = (result.pixels != pixels).any(1)[0]
    for row in result.report.faces:
        x1, y1, x2, y2 = row.box
        inside = changed[max(0, int(y1)) : int(y2) + 1, max(0, int(x1)) : int(x2) + 1]
        assert row.outcome != "redacted" or bool(inside.any()), row


@pytest.mark.parametrize("kind", PLANS)
def test_plans_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    (folder / "plan.json").write_text(PLANS[kind], encoding="utf-8")
    arguments = ["anonymize", "a.png", "-o", "out.png", "--method", "solid", "--plan", "plan.json"]
    code = run(folder, arguments, capsys)
    assert (folder / "out.png").exists() == (code in (OK, UNPROTECTED))


ENDINGS = {"BFM": ".mat", "state": ".state"}
READERS = {
    "identity": load_any_identity,
    "coefficients": load_coefficients,
    "sampler": load_sampler,
    "ensemble": load_ensemble,
    "morphable": load_morphable,
    "BFM": load_bfm,
    "state": load_state,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", STORES)
def test_stores(folder: Path, reader: str, kind: str) -> None:
    path = folder / f"file{ENDINGS.get(reader, '.safetensors')}"
    path.write_bytes(STORES[kind])
    try:
        READERS[reader](path)
    except FaceVeilError as error:
        one_sentence(error)
        assert "file" in str(error)
    assert not (folder / "pickle-was-run").exists()


@pytest.mark.parametrize("recognizer", ["arcface", "facenet", "farl", "adaface"])
@pytest.mark.parametrize("kind", STORES)
def test_recognizer_files(folder: Path, recognizer: str, kind: str) -> None:
    path = folder / "file.onnx"
    path.write_bytes(STORES[kind])
    with pytest.raises(FaceVeilError) as caught:
        open_recognizer(recognizer, path)
    one_sentence(caught.value)
    assert not (folder / "pickle-was-run").exists()


@pytest.mark.parametrize("kind", STORES)
def test_banks(folder: Path, kind: str) -> None:
    (folder / "bank").mkdir()
    (folder / "bank" / "bank.safetensors").write_bytes(STORES[kind])
    with pytest.raises(FaceVeilError) as caught:
        load_bank(folder / "bank")
    one_sentence(caught.value)


@pytest.mark.parametrize("kind", LEDGERS)
def test_ledgers(folder: Path, kind: str) -> None:
    (folder / "mine.key").write_bytes(bytes(range(32)))
    (folder / "mine.ledger.json").write_bytes(LEDGERS[kind])
    with pytest.raises(FaceVeilError) as caught:
        Pseudonyms.open(folder, "mine")
    one_sentence(caught.value)
    assert (folder / "mine.ledger.json").read_bytes() == LEDGERS[kind]


@pytest.mark.parametrize("size", [0, 1, 31, 33, 1000])
def test_keys_of_a_wrong_length(folder: Path, size: int) -> None:
    (folder / "mine.key").write_bytes(bytes(size))
    with pytest.raises(FaceVeilError, match="a pseudonym key has 32 bytes"):
        Pseudonyms.open(folder, "mine")


@pytest.mark.parametrize("kind", OPTIONS)
def test_options(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    code = run(folder, ["anonymize", "a.png", "-o", "out.png", *OPTIONS[kind]], capsys)
    if code in (SOME_FAILED, USAGE):
        assert not (folder / "out.png").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs links, pipes and bytes as names")
@pytest.mark.parametrize("kind", PATHS)
def test_paths(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    arguments = PATHS[kind](folder)
    target = [] if "-o" in arguments else ["-o", str(folder / "out")]
    # A name that looks like a flag is an absolute path here.
    run_here = ["anonymize", *arguments, *target, "--method", "solid"]
    before = {p for p in folder.rglob("*") if p.is_file() and not p.is_fifo()}
    code = main(run_here)
    said = capsys.readouterr()
    assert code in CODES
    assert "Traceback" not in said.err + said.out
    assert all(p.exists() for p in before)


@pytest.mark.parametrize("command", ["bank", "calibrate", "triplets", "detect", "compare", "train"])
@pytest.mark.parametrize("kind", sorted(IMAGES)[::9])
def test_other_commands_with_damaged_images(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    name, data = IMAGES[kind]
    (folder / "in" / "someone").mkdir(parents=True)
    (folder / "in" / "someone" / name).write_bytes(data)
    photo = str(folder / "in" / "someone" / name)
    arguments = {
        "bank": ["bank", "in", "-o", "bank"],
        "calibrate": ["calibrate", "in", "--workers", "1"],
        "triplets": ["triplets", "in", "-o", "out", "--swapper", "a.png", "--recognizer", "a.png"],
        "detect": ["detect", photo],
        "compare": ["compare", photo, "a.png"],
        "train": ["train", "lds", "--images", "in", "--workers", "1", "-o", "lds.safetensors"],
    }[command]
    run(folder, arguments, capsys)


def test_a_report_of_a_batch_names_no_failed_file_as_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All damaged images in one folder: each is named, or written whole."""
    (folder / "in").mkdir()
    for place, (name, data) in enumerate(list(IMAGES.values())[::4]):
        (folder / "in" / f"{place}{name}").write_bytes(data)
    sources = sorted((folder / "in").iterdir())
    code = main(["anonymize", "in", "-o", "out", "--method", "solid", "--report", "report.json"])
    said = capsys.readouterr()
    assert code == SOME_FAILED
    assert "Traceback" not in said.err + said.out
    written = {p.name for p in (folder / "out").iterdir()} - {NAME}
    assert len(json.loads((folder / "report.json").read_text())) == len(written)
    for source in sources:
        assert (source.name in written) != (f"failed: in/{source.name}" in said.err)


@pytest.mark.parametrize("value", ["-1", "0", "1.5", "all", ""])
@pytest.mark.parametrize("command", ["bank in -o bank", "calibrate in", "train lds --images in"])
def test_numbers_of_processes(folder: Path, capsys: pytest.CaptureFixture[str], command: str, value: str) -> None:
    assert run(folder, [*command.split(), "--workers", value], capsys) in (USAGE, SOME_FAILED)
