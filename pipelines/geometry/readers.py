"""Read morphable models that users have: ICT-FaceKit's folder, BFM's .mat file, and our own safetensors."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import OutputError, WeightsError
from ..images import write_whole
from ..stored import read_safetensors
from .camera import rotation
from .morphable import LANDMARKS, MorphableModel, plain_triangles

FORMAT = "faceveil.morphable/1"
IDENTITIES = 80
"""Modes kept of ICT-FaceKit's hundred: they hold 99.5 % of the face's variance, and DiffDeID's layout has as many."""
_ICT_FACE = 9409
_ICT_SKIPPED = ("M_LacrimalFluid", "M_EyeBlend", "M_EyeOcclusion", "M_EyeLashes")
"""Without transparency these hide the eyes."""
_ICT_COLOURS = {
    "M_Face": (0.62, 0.47, 0.40),
    "M_BackHead": (0.62, 0.47, 0.40),
    "M_GumsTongue": (0.55, 0.30, 0.30),
    "M_Teeth": (0.80, 0.78, 0.72),
    "M_ScleraLeft": (0.80, 0.78, 0.76),
    "M_ScleraRight": (0.80, 0.78, 0.76),
    "M_IrisLeft": (0.22, 0.17, 0.13),
    "M_IrisRight": (0.22, 0.17, 0.13),
}
_ICT_SCALE, _ICT_NOD, _ICT_SHIFT = 0.09511, math.radians(1.34), (-0.002, -0.025, -0.712)
"""Centimetres to the common frame, by Procrustes analysis of the inner landmarks; the jaw's differ by definition."""
_TEXTURE_SPREAD = 0.06


def load_morphable(path: Path) -> MorphableModel:
    """Open a model by what it is: a folder of ICT-FaceKit, a BFM ``.mat``, or our ``.safetensors``.

    Raises:
        WeightsError: it is missing, damaged or none of these.
    """
    if path.is_dir():
        return load_ict(path)
    if path.suffix == ".mat":
        return load_bfm(path)
    if path.suffix == ".safetensors":
        return load_stored(path)
    raise WeightsError(
        f"{path.name} is no morphable model; name ICT-FaceKit's folder, BFM_model_front.mat, or a .safetensors file"
    )


def load_ict(folder: Path, face_only: bool = False) -> MorphableModel:
    """ICT-FaceKit from a clone of its repository (MIT), or its folder ``FaceXModel``.

    It has no texture: smooth waves over the skin's UV stand in, 26 for each channel and two unused, so that there are
    80.

    Args:
        face_only: leave out head, eyes and mouth cavity.

    Raises:
        WeightsError: a file is missing or cut off, or has another topology.
    """
    root = next((f for f in (folder / "FaceXModel", folder) if (f / "generic_neutral_mesh.obj").is_file()), None)
    if root is None:
        raise WeightsError(
            f"{folder.name} is not ICT-FaceKit: generic_neutral_mesh.obj is not there; clone its repository"
        )
    neutral, where, polygons, materials, corners = _read_obj(root / "generic_neutral_mesh.obj")
    try:
        indices = json.loads((root / "vertex_indices.json").read_text(encoding="utf-8"))
        landmarks, names = torch.tensor(indices["idx_to_landmark_verts"]), [str(n) for n in indices["expressions"]]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"vertex_indices.json of {folder.name} cannot be read ({type(error).__name__}); get a fresh copy"
        ) from None
    faces = [i for i, m in enumerate(materials) if (m == "M_Face" if face_only else m not in _ICT_SKIPPED)]
    used = np.unique([v for i in faces for v in polygons[i]]) if not face_only else np.arange(_ICT_FACE)
    renumber = np.full(len(neutral), -1)
    renumber[used] = np.arange(len(used))
    uv, colour = np.zeros((len(neutral), 2)), np.zeros((len(neutral), 3))
    for i in reversed(faces):
        uv[polygons[i]] = where[corners[i]]
        colour[polygons[i]] = _ICT_COLOURS.get(materials[i], (0.5, 0.5, 0.5))
    turn = rotation(torch.tensor([[_ICT_NOD, 0.0, 0.0]], dtype=torch.float64))[0].numpy() * _ICT_SCALE

    def modes(files: list[Path]) -> Tensor:
        moved = [(_read_vertices(file, len(neutral), len(polygons)) - neutral)[used] @ turn.T for file in files]
        return torch.from_numpy(np.stack(moved) if moved else np.zeros((0, len(used), 3))).float()

    shapes = sorted(root.glob("identity[0-9][0-9][0-9].obj"))[:IDENTITIES]
    present = [n for n in names if (root / f"{n}.obj").is_file()]
    if not shapes:
        raise WeightsError(f"{folder.name} holds no identity000.obj and so on; get a fresh copy of ICT-FaceKit")
    skin = colour[used] == np.array(_ICT_COLOURS["M_Face"])
    mean = torch.from_numpy(neutral[used] @ turn.T + np.array(_ICT_SHIFT)).float()
    return MorphableModel(
        name="ict-face" if face_only else "ict",
        mean=mean,
        identity=modes(shapes),
        expression=modes([root / f"{n}.obj" for n in present]),
        texture_mean=torch.from_numpy(colour[used]).float(),
        texture=_waves(uv[used], skin.all(1)),
        triangles=outwards(mean, torch.from_numpy(renumber[plain_triangles([polygons[i] for i in faces]).numpy()])),
        landmarks=torch.from_numpy(renumber[landmarks.numpy()])[:, None].expand(-1, 3).contiguous(),
        landmark_weights=_first_corner(),
        uv=torch.from_numpy(uv[used] * [1, -1] + [0, 1]).float(),
        expressions=tuple(present),
        expression_range=(0.0, 1.0),
    )


def load_bfm(path: Path) -> MorphableModel:
    """The Basel Face Model as Deep3DFaceRecon prepares it, ``BFM_model_front.mat``: 80 shape, 64 expression and 80
    texture modes.

    Raises:
        WeightsError: the file is missing, damaged or another one.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise WeightsError(
            f"{path.name} is not there; prepare it with Deep3DFaceRecon from the Basel Face Model, which needs a"
            " registration"
        )
    try:
        # A MATLAB file holds numbers; loadmat runs no code.
        stored = loadmat(str(path))
        mean, texture_mean = (np.asarray(stored[k], dtype=np.float64).reshape(-1, 3) for k in ("meanshape", "meantex"))
        identity, expression, texture = (
            np.asarray(stored[k], dtype=np.float32).T.reshape(-1, len(mean), 3) for k in ("idBase", "exBase", "texBase")
        )
        triangles = np.asarray(stored["tri"], dtype=np.int64) - 1
        landmarks = np.asarray(stored["keypoints"], dtype=np.int64).reshape(-1) - 1
    except KeyError as missing:
        raise WeightsError(f"{path.name} lacks {missing}; it is not BFM_model_front.mat") from None
    except Exception as error:  # scipy raises classes of every kind for damaged files
        raise WeightsError(
            f"{path.name} is not a whole BFM_model_front.mat ({type(error).__name__}); prepare it again"
        ) from None
    if len(landmarks) != LANDMARKS:
        raise WeightsError(f"{path.name} names {len(landmarks)} key points, not {LANDMARKS}; prepare it again")
    centred = torch.from_numpy(mean - mean.mean(0)).float()
    around = torch.stack(
        [
            torch.atan2(centred[:, 0], centred[:, 2]) / (2 * math.pi) + 0.5,
            0.5 - centred[:, 1] / (2 * centred[:, 1].abs().max()),
        ],
        1,
    )
    return MorphableModel(
        name="bfm",
        mean=centred,
        identity=torch.from_numpy(identity),
        expression=torch.from_numpy(expression),
        texture_mean=torch.from_numpy(texture_mean / 255).float(),
        texture=torch.from_numpy(texture / 255),
        triangles=outwards(centred, torch.from_numpy(triangles)),
        landmarks=torch.from_numpy(landmarks)[:, None].expand(-1, 3).contiguous(),
        landmark_weights=_first_corner(),
        uv=around,
    )


_TENSORS = (
    "mean",
    "identity",
    "expression",
    "texture_mean",
    "texture",
    "triangles",
    "landmarks",
    "landmark_weights",
    "uv",
)


def save_morphable(path: Path, model: MorphableModel) -> None:
    """Write a model as safetensors, which opens at once where a folder of text takes seconds.

    Raises:
        OutputError: the file cannot be written, or its name has another ending.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise OutputError(f"{path.name} must end in .safetensors")
    facts = {
        "name": model.name,
        "texture_scale": model.texture_scale,
        "expressions": model.expressions,
        "expression_range": model.expression_range,
    }
    tensors = {part: getattr(model, part).contiguous() for part in _TENSORS}
    write_whole(path, save(tensors, {"format": FORMAT, "model": json.dumps(facts)}))


def load_stored(path: Path) -> MorphableModel:
    """Read what ``save_morphable`` wrote.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    tensors, metadata = read_safetensors(path, "morphable model", "convert it again with: faceveil convert-morphable")
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path.name} is not a morphable model of format {FORMAT}; convert one with: faceveil convert-morphable"
        )
    try:
        facts: dict[str, Any] = json.loads(metadata["model"])
        facts |= {k: tuple(facts[k]) for k in ("expressions", "expression_range")} | {
            part: tensors[part] for part in _TENSORS
        }
        return MorphableModel(**facts)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.name} was cut off or made by another version ({type(error).__name__}); convert it again"
        ) from None


def outwards(mean: Tensor, triangles: Tensor) -> Tensor:
    """The triangles in the order that is counter-clockwise seen from outside; files differ in it."""
    if triangles.numel() and not 0 <= int(triangles.min()) <= int(triangles.max()) < len(mean):
        # The model itself says what is wrong with it.
        return triangles
    a, b, c = mean[triangles].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    centre = mean.mean(0)
    outward = (normal * ((a + b + c) / 3 - centre)).sum(1).sum()
    return triangles if outward >= 0 else triangles.flip(1)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, list[list[int]], list[str], list[list[int]]]:
    """Vertices, texture coordinates, polygons, their materials, and their corners' texture coordinates."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64)
        where = np.array([line.split()[1:3] for line in lines if line.startswith("vt ")], dtype=np.float64)
        polygons, corners, materials, material = [], [], [], ""
        for line in lines:
            if line.startswith("usemtl "):
                material = line.split()[1]
            elif line.startswith("f "):
                pairs = [corner.split("/") for corner in line.split()[1:]]
                polygons.append([int(p[0]) - 1 for p in pairs])
                corners.append([int(p[1]) - 1 for p in pairs])
                materials.append(material)
    except (OSError, ValueError, IndexError) as error:
        raise WeightsError(f"{path.name} is not a whole OBJ file ({type(error).__name__}); get a fresh copy") from None
    if not polygons or max(max(p) for p in polygons) >= len(vertices) or len(vertices) < _ICT_FACE:
        raise WeightsError(f"{path.name} is cut off or has another topology than ICT-FaceKit; get a fresh copy")
    return vertices, where, polygons, materials, corners


def _read_vertices(path: Path, count: int, polygons: int) -> np.ndarray:
    """The vertices of an OBJ file ``(count, 3)``, which lie in one block; it must be whole."""
    try:
        data = path.read_bytes()
        start = data.index(b"\nv ") + 1
        end = data.find(b"\nvt", start)
        values = np.array(data[start : end if end > 0 else None].replace(b"v", b"").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a whole OBJ file ({type(error).__name__}); get a fresh copy") from None
    if values.size != 3 * count or not np.isfinite(values).all() or data.count(b"\nf ") != polygons:
        raise WeightsError(
            f"{path.name} does not hold {count} vertices and {polygons} polygons; it is cut off or of another topology"
        )
    return values.reshape(count, 3)


def _first_corner() -> Tensor:
    """Weights of landmarks that are vertices."""
    return torch.tensor([1.0, 0.0, 0.0]).expand(LANDMARKS, -1).contiguous()


def _waves(uv: np.ndarray, skin: np.ndarray) -> Tensor:
    """Cosine waves over UV, slow ones first, 26 for each channel: ``(80, V, 3)``; only the skin takes part."""
    orders = sorted(product(range(8), repeat=2), key=lambda o: (o[0] ** 2 + o[1] ** 2, o))[:26]
    modes = np.zeros((80, len(uv), 3), dtype=np.float32)
    for i, (m, n) in enumerate(orders):
        wave = np.cos(math.pi * m * uv[:, 0]) * np.cos(math.pi * n * uv[:, 1]) * skin
        for channel in range(3):
            modes[3 * i + channel, :, channel] = wave * _TEXTURE_SPREAD / (1 + math.hypot(m, n))
    return torch.from_numpy(modes)
