"""How the parts of a training are stored on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...training.parts import Packing
from ...training.portraits import Portrait
from .jacobian_training import JacobianSamples
from .plainness import Plainness
from .shading import Measures


@dataclass(frozen=True)
class PackedFaces:
    """Packed detail and measures of all faces.

    Attributes:
        halves: region name to symmetric and antisymmetric half, ``(N, 2, P)``, float16.
        measures: of each face.
        plainness: of each face.
    """

    halves: dict[str, np.ndarray]
    measures: list[Measures]
    plainness: list[Plainness]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _pack_portraits(portraits: list[Portrait]) -> dict[str, Any]:
    return {
        "faces": [
            {"path": str(p.path), "points": _tensor(p.points), "embedding": _tensor(p.embedding)} for p in portraits
        ]
    }


def _unpack_portraits(state: dict[str, Any]) -> list[Portrait]:
    return [Portrait(Path(f["path"]), f["points"].numpy(), f["embedding"].numpy()) for f in state["faces"]]


def _pack_features(faces: PackedFaces) -> dict[str, Any]:
    measures = [
        {"values": _tensor(m.values), "pattern": _tensor(m.pattern), **asdict(p)}
        for m, p in zip(faces.measures, faces.plainness, strict=True)
    ]
    return {"halves": {name: _tensor(half) for name, half in faces.halves.items()}, "measures": measures}


def _unpack_features(state: dict[str, Any]) -> PackedFaces:
    measures = [Measures(m["values"].numpy(), m["pattern"].numpy()) for m in state["measures"]]
    plainness = [Plainness(**{f.name: m[f.name] for f in fields(Plainness)}) for m in state["measures"]]
    return PackedFaces({name: half.numpy() for name, half in state["halves"].items()}, measures, plainness)


def _pack_samples(samples: JacobianSamples) -> dict[str, Any]:
    return {
        "textures": {name: _tensor(texture) for name, texture in samples.textures.items()},
        "moves": _tensor(samples.moves),
        **{key: {g: _tensor(v) for g, v in getattr(samples, key).items()} for key in ("original", "shifts")},
    }


def _unpack_samples(state: dict[str, Any]) -> JacobianSamples:
    textures = {name: texture.numpy() for name, texture in state["textures"].items()}
    original, shifts = ({g: v.numpy() for g, v in state[key].items()} for key in ("original", "shifts"))
    return JacobianSamples(textures, state["moves"].numpy(), original, shifts)


PORTRAITS = Packing(_pack_portraits, _unpack_portraits)
FEATURES = Packing(_pack_features, _unpack_features)
SAMPLES = Packing(_pack_samples, _unpack_samples)
