"""The identity nodes inside ComfyUI."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def image(run) -> torch.Tensor:
    return run("SamplePortrait")[0]


@pytest.fixture(scope="module")
def own(run, image):
    return run("EmbedFaces", image=image)[0]


def test_a_sampled_identity_is_shown(run, image, own) -> None:
    drawn, cosine = run("SampleIdentity", original=own, seed=3)
    assert cosine <= 0.28
    out, *_ = run("VeilFaces", image=image, identity=drawn, unsafe_face="pass")
    shown = run("EmbedFaces", image=out)[0]
    before, after = (float(np.linalg.norm(i.vector - drawn.vector)) for i in (own, shown))
    assert after < before


def test_levels_blends_and_noise(run, own) -> None:
    near, cosine_near = run("SampleIdentity", original=own, level=1, seed=1)
    _, cosine_far = run("SampleIdentity", original=own, level=9, seed=1)
    assert cosine_near > cosine_far
    (half,) = run("BlendIdentity", identity=own, other=near, share=0.5)
    (away,) = run("BlendIdentity", identity=own, other=near, share=-0.5)
    assert half.cosine(near).item() > own.cosine(near).item() > away.cosine(near).item()
    (noisy,) = run("PerturbIdentity", identity=own, scale=0.1)
    assert noisy.cosine(own).item() < 1.0
    distance, same, verdict, plot = run("IdentityDistance", identity_a=own, identity_b=own)
    assert (distance, same) == (0.0, True) and "same person" in verdict and plot.shape[-1] == 3


def test_files_and_pseudonyms_stay_in_their_folders(run, own, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    run("SaveIdentity", identity=own)
    (again,) = run("LoadIdentity", file="identity_00001_.safetensors")
    assert again.cosine(own).item() > 0.9999
    with pytest.raises(Exception, match="in neither ComfyUI's output folder nor its input folder"):
        run("LoadIdentity", file="../user/faceveil/mine.key")
    shown, number = run("MapToPseudonym", identity=own, key="mine")
    again, same = run("MapToPseudonym", identity=own, key="mine")
    assert number == same and np.array_equal(shown.vectors, again.vectors)
    run("MapToPseudonym", identity=own, key="theirs")
    assert {p.name for p in (tmp_path / "user" / "faceveil").iterdir() if p.suffix != ".lock"} == {
        "mine.key",
        "mine.ledger.json",
        "theirs.key",
        "theirs.ledger.json",
    }
    with pytest.raises(Exception, match="letters, digits"):
        run("MapToPseudonym", identity=own, key="../x")


def test_a_file_that_changes_is_read_again(nodes, run, own, tmp_path, monkeypatch) -> None:
    """ComfyUI repeats a node whose fingerprint differs from that of the cached run."""
    import folder_paths

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "faceveil", ([str(tmp_path)], {".onnx"}))
    load, recognizer, veil = (nodes[f"FaceVeil_{n}"] for n in ("LoadIdentity", "LoadRecognizer", "VeilFaces"))
    run("SaveIdentity", identity=own)
    swap = {"method": "inswapper", "model": "swap.onnx", "recognizer": "swap.onnx"}
    cases = [
        (tmp_path / "out" / "identity_00001_.safetensors", load, {"file": "identity_00001_.safetensors"}),
        (tmp_path / "mine.onnx", recognizer, {"kind": "insightface", "file": "mine.onnx"}),
        (tmp_path / "swap.onnx", veil, {"method": swap, "strength": 1.0}),
    ]
    for file, node, inputs in cases:
        missing = file.exists() or node.fingerprint_inputs(**inputs)
        file.write_bytes(b"one")
        before = node.fingerprint_inputs(**inputs)
        assert before == node.fingerprint_inputs(**inputs) != missing
        file.write_bytes(b"others")
        assert node.fingerprint_inputs(**inputs) != before
    # A widget that is connected to another node is None.
    assert load.fingerprint_inputs(file=None) == recognizer.fingerprint_inputs(kind=None, file=None)


def test_what_veil_faces_renders_is_kept_but_is_no_embedding(run, image, own, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    out, _, _, shown, *_ = run("VeilFaces", image=image, method={"method": "appearance", "search": 1})
    with pytest.raises(Exception, match="an output of Veil Faces, not an embedding"):
        run("BlendIdentity", identity=own, other=shown)
    run("SaveIdentity", identity=shown)
    (again,) = run("LoadIdentity", file="identity_00001_.safetensors")
    # Files keep single precision.
    assert (run("VeilFaces", image=image, identity=again)[0] - out).abs().max() < 1e-3


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """ComfyUI's input and faceveil folders, empty."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "faceveil", ([str(tmp_path / "models")], {".safetensors", ".onnx"})
    )
    folder_paths.filename_list_cache.clear()
    (tmp_path / "input" / "people").mkdir(parents=True)
    return tmp_path


def test_a_bank_is_built_once_and_gives_people_out(run, folders, image, own) -> None:
    from PIL import Image

    shown = run("VeilFaces", image=image, method={"method": "appearance", "search": 1}, unsafe_face="pass")[0]
    for i, picture in enumerate((image, shown)):
        Image.fromarray((picture[0].numpy() * 255).astype(np.uint8)).save(folders / "input" / "people" / f"{i}.png")
    bank, count = run("BuildSyntheticBank", folder="people", name="mine")
    assert count == 2
    (again,) = run("LoadSyntheticBank", bank="banks/mine/bank.safetensors")
    assert np.allclose(again.identities.vectors, bank.identities.vectors)
    nearest, picture, number = run("NearestSyntheticPerson", identity=own, bank=again)
    # The person is in the bank, but would hide nobody.
    assert number == 1 and picture.shape == (1, 256, 256, 3) and nearest.cosine(own).item() < 0.93
    with pytest.raises(Exception, match="in ComfyUI's input folder"):
        run("BuildSyntheticBank", folder="..", name="other")
    with pytest.raises(Exception, match="letters, digits"):
        run("BuildSyntheticBank", folder="people", name="../x")
    with pytest.raises(Exception, match="build a bank with Build Synthetic Bank"):
        run("LoadSyntheticBank")


def test_a_group_keeps_its_pseudonyms(run, tmp_path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    group = run("SamplePortrait", picture="group")[0]
    faces = run("DetectFaces", image=group)[0]
    each = run("EmbedFaces", image=group, faces=faces, average=False)[0]
    shown, numbers = run("MapToPseudonym", identity=each)
    assert len(shown) == len(numbers) == 3
    again, same = run("MapToPseudonym", identity=each)
    assert numbers == same and np.array_equal(shown.vectors, again.vectors)


def test_swap_with_identity(run, folders, image, w600k, inswapper_file) -> None:
    pytest.importorskip("insightface")
    (folders / "models").mkdir()
    w600k.rename(folders / "models" / "w600k_r50.onnx")
    inswapper_file[0].rename(folders / "models" / "inswapper_128.onnx")
    (recognizer,) = run("LoadRecognizer", kind="arcface", file="w600k_r50.onnx")
    (own,) = run("EmbedFaces", image=image, recognizer=recognizer)
    assert own.space == "arcface-w600k" and own.vectors.shape == (1, 512)
    (other,) = run("PerturbIdentity", identity=own, scale=0.4)
    inputs = {"image": image, "recognizer": recognizer, "swapper": "inswapper_128.onnx", "identity": other}
    out, mask, faces, shown, report, _ = run("SwapWithIdentity", unsafe_face="pass", **inputs)
    assert (
        (out != image).any()
        and len(faces) == 1
        and shown[0].identity.space == own.space
        and '"method": "inswapper"' in report
    )
    assert torch.equal(out[mask == 0], image[mask == 0])
    with pytest.raises(
        Exception, match="this sampler samples identities of dlib, but the original is of arcface-w600k"
    ):
        run("SampleIdentity", original=own)
    with pytest.raises(Exception, match="needs an arcface recognizer"):
        run("SwapWithIdentity", **(inputs | {"recognizer": run("LoadRecognizer", kind="dlib")[0]}))
    with pytest.raises(Exception, match="is not in models/faceveil or models/insightface"):
        run("SwapWithIdentity", **(inputs | {"swapper": "gone.onnx"}))
