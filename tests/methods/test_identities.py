"""What a method needs to show one person again, through its one door."""

from __future__ import annotations

import numpy as np
import pytest
from faceveil.pipelines.core.errors import InputError
from faceveil.pipelines.identity.identity import Identity
from faceveil.pipelines.methods.identities import MethodIdentity, load_any_identity, save_any_identity
from safetensors.torch import save_file

IDENTITY = Identity(np.arange(1.0, 5.0), "dlib")


@pytest.mark.parametrize(
    "kept",
    [
        MethodIdentity("referencenet", 7),
        MethodIdentity("inswapper", 3, IDENTITY),
        MethodIdentity("appearance", 1, codes={"eyes": np.ones(3, np.float32), "traits": np.zeros(2, np.float32)}),
    ],
)
def test_round_trip(tmp_path, kept) -> None:
    path = tmp_path / "a.safetensors"
    save_any_identity(path, kept)
    again = load_any_identity(path)
    assert isinstance(again, MethodIdentity)
    assert (again.method, again.seed) == (kept.method, kept.seed)
    assert {n: c.tolist() for n, c in again.codes.items()} == {n: c.tolist() for n, c in kept.codes.items()}
    assert (again.identity is None) == (kept.identity is None)
    if kept.identity is not None:
        assert again.identity.space == "dlib" and np.allclose(again.identity.vectors, IDENTITY.vectors)


def test_an_embedding_comes_back_as_one(tmp_path) -> None:
    save_any_identity(tmp_path / "a.safetensors", IDENTITY)
    again = load_any_identity(tmp_path / "a.safetensors")
    assert isinstance(again, Identity) and again.space == "dlib"


def test_another_methods_identity_is_refused() -> None:
    with pytest.raises(InputError, match="made by the method inswapper; appearance cannot show it"):
        MethodIdentity("inswapper").of("appearance")


def test_bad_files(tmp_path) -> None:
    import torch

    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="identity file"):
        load_any_identity(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="identity file"):
        load_any_identity(path)
    save_file({"x": torch.zeros(1)}, str(path))
    with pytest.raises(InputError, match="is not an identity file"):
        load_any_identity(path)
    save_file({"codes.x": torch.tensor([float("nan")])}, str(path), {"format": "faceveil.method-identity/1"})
    with pytest.raises(InputError, match="not finite"):
        load_any_identity(path)
    save_file({"codes.x": torch.zeros(1)}, str(path), {"format": "faceveil.method-identity/1", "method": "appearance"})
    with pytest.raises(InputError, match="damaged"):
        load_any_identity(path)
