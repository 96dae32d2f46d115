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
    with pytest.raises(Exception, match="neither in ComfyUI's output nor in its input folder"):
        run("LoadIdentity", file="../user/faceveil/mine.key")
    shown, number = run("MapToPseudonym", identity=own, key="mine")
    again, same = run("MapToPseudonym", identity=own, key="mine")
    assert number == same and np.array_equal(shown.vectors, again.vectors)
    run("MapToPseudonym", identity=own, key="theirs")
    assert {p.name for p in (tmp_path / "user" / "faceveil").iterdir()} == {"mine.key", "mine.ledger.json", "theirs.key", "theirs.ledger.json"}
    with pytest.raises(Exception, match="letters, digits"):
        run("MapToPseudonym", identity=own, key="../x")


def test_a_look_is_not_a_vector(run, image, own) -> None:
    look = run("VeilFaces", image=image, search=1)[3]
    with pytest.raises(Exception, match="a look that Veil Faces found"):
        run("BlendIdentity", identity=own, other=look)
