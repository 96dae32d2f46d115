"""Load morphable models from files: the ICT-FaceKit folder, the BFM .mat file, and safetensors of this project."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import OutputError, WeightsError
from ..core.files import write_whole
from ..core.stored import read_safetensors
from ..faces.face import MOUTH
from .camera import rotation
from .morphable import LANDMARKS, MorphableModel, triangulate

TRIANGLE_CORNERS = 3
FORMAT = "faceveil.morphable/1"
IDENTITIES = 80
"""Number of ICT-FaceKit's 100 identity modes that are kept. They hold 99.5 % of the face's variance, and the layout of
DiffDeID has the same number."""
_ICT_FACE = 9409
"""Number of vertices of the face without head, eyes and mouth cavity."""
_ICT_SKIPPED = ("M_LacrimalFluid", "M_EyeBlend", "M_EyeOcclusion", "M_EyeLashes")
"""Transparent materials. They are left out, because they would hide the eyes when rendered opaque."""
_ICT_COLORS = {
    "M_Face": (0.62, 0.47, 0.40),
    "M_BackHead": (0.62, 0.47, 0.40),
    "M_GumsTongue": (0.55, 0.30, 0.30),
    "M_Teeth": (0.80, 0.78, 0.72),
    "M_ScleraLeft": (0.80, 0.78, 0.76),
    "M_ScleraRight": (0.80, 0.78, 0.76),
    "M_IrisLeft": (0.22, 0.17, 0.13),
    "M_IrisRight": (0.22, 0.17, 0.13),
}
_IRIS_RADIUS, _PUPIL_RADIUS, _PUPIL_COLOR = 0.62, 0.24, (0.02, 0.02, 0.02)
"""Radii of iris and pupil in ICT-FaceKit's centimeters, where an eyeball has 1.45, and the pupil's color."""
_ICT_SCALE, _ICT_PITCH, _ICT_TRANSLATION = 0.09511, math.radians(1.34), (-0.002, -0.025, -0.712)
"""Transform from ICT-FaceKit's centimeters to the coordinate system of ``morphable``, from a Procrustes analysis of the
landmarks without the jaw line, which the two models define differently."""
_RIGID = 17
"""Landmarks from here on are compared between models; the jaw line before them slides over the skin."""
_TEXTURE_AMPLITUDE = 0.06
"""Amplitude of the lowest-frequency texture mode."""


def load_morphable(path: Path) -> MorphableModel:
    """Load a model from an ICT-FaceKit folder, a BFM ``.mat`` file, or a ``.safetensors`` file of this project.

    Raises:
        WeightsError: the model is missing, damaged, or of another format.
    """
    if path.is_dir():
        return load_ict(path)
    if path.suffix == ".mat":
        return load_bfm(path)
    if path.suffix == ".safetensors":
        return load_stored(path)
    raise WeightsError(
        f"{path.name} is not a morphable model; use ICT-FaceKit's folder, BFM_model_front.mat, or a .safetensors file"
    )


def load_ict(folder: Path, face_only: bool = False) -> MorphableModel:
    """Load ICT-FaceKit from a clone of its repository (MIT), or from its folder ``FaceXModel``.

    ICT-FaceKit has no texture modes. Cosine waves over the UV coordinates of the skin replace them: 26 per channel and
    two unused modes, 80 in total.

    Args:
        face_only: leave out head, eyes and mouth cavity.

    Raises:
        WeightsError: a file is missing or truncated, or has another topology.
    """
    root = next((f for f in (folder / "FaceXModel", folder) if (f / "generic_neutral_mesh.obj").is_file()), None)
    if root is None:
        raise WeightsError(
            f"{folder.name} is not ICT-FaceKit: generic_neutral_mesh.obj is missing; clone its repository"
        )
    neutral, texture_coordinates, polygons, materials, corners = _read_obj(root / "generic_neutral_mesh.obj")
    try:
        indices = json.loads((root / "vertex_indices.json").read_text(encoding="utf-8"))
        landmarks, names = torch.tensor(indices["idx_to_landmark_verts"]), [str(n) for n in indices["expressions"]]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, IndexError) as error:
        raise WeightsError(
            f"vertex_indices.json of {folder.name} cannot be read ({type(error).__name__}); get a fresh copy"
        ) from None
    if landmarks.shape != (LANDMARKS,) or not 0 <= int(landmarks.min()) <= int(landmarks.max()) < len(neutral):
        raise WeightsError(f"vertex_indices.json of {folder.name} names other landmarks; get a fresh copy")
    faces = [i for i, m in enumerate(materials) if (m == "M_Face" if face_only else m not in _ICT_SKIPPED)]
    used = np.unique([v for i in faces for v in polygons[i]]) if not face_only else np.arange(_ICT_FACE)
    if not face_only:
        # It would hide the iris when rendered opaque.
        hidden = {i for side in ("Left", "Right") for i in _cornea(neutral, polygons, materials, side)}
        faces = [i for i in faces if i not in hidden]
    renumber = np.full(len(neutral), -1)
    renumber[used] = np.arange(len(used))
    uv, color = np.zeros((len(neutral), 2)), np.zeros((len(neutral), 3))
    for i in reversed(faces):
        uv[polygons[i]] = texture_coordinates[corners[i]]
        color[polygons[i]] = _ICT_COLORS.get(materials[i], (0.5, 0.5, 0.5))
    for side in ("Left", "Right"):
        _paint_eye(color, neutral, polygons, materials, side)
    transform = rotation(torch.tensor([[_ICT_PITCH, 0.0, 0.0]], dtype=torch.float64))[0].numpy() * _ICT_SCALE

    def modes(files: list[Path]) -> Tensor:
        offsets = [(_read_vertices(file, len(neutral), len(polygons)) - neutral)[used] @ transform.T for file in files]
        return torch.from_numpy(np.stack(offsets) if offsets else np.zeros((0, len(used), 3))).float()

    shapes = sorted(root.glob("identity[0-9][0-9][0-9].obj"))[:IDENTITIES]
    present = [n for n in names if (root / f"{n}.obj").is_file()]
    if not shapes:
        raise WeightsError(
            f"{folder.name} contains no identity modes such as identity000.obj; get a fresh copy of ICT-FaceKit"
        )
    skin = color[used] == np.array(_ICT_COLORS["M_Face"])
    mean = torch.from_numpy(neutral[used] @ transform.T + np.array(_ICT_TRANSLATION)).float()
    model = MorphableModel(
        name="ict-face" if face_only else "ict",
        mean=mean,
        identity=modes(shapes),
        expression=modes([root / f"{n}.obj" for n in present]),
        texture_mean=torch.from_numpy(color[used]).float(),
        texture=_waves(uv[used], skin.all(1)),
        triangles=orient_outwards(mean, torch.from_numpy(renumber[triangulate([polygons[i] for i in faces]).numpy()])),
        landmarks=torch.from_numpy(renumber[landmarks.numpy()])[:, None].expand(-1, 3).contiguous(),
        landmark_weights=_first_corner(),
        uv=torch.from_numpy(uv[used] * [1, -1] + [0, 1]).float(),
        expressions=tuple(present),
        expression_range=(0.0, 1.0),
    )
    return replace(model, landmark_offsets=_offsets(model))


def _offsets(model: MorphableModel) -> Tensor:
    """By how much the landmarks of a model differ from those of the detector, ``(68, 3)``.

    The average face is taken to be the same in this model and in the built-in one, which was learned from what the
    detector finds. The mouth gets half of the difference: the other half is that average portraits smile.
    """
    from .builtin import built_in_morphable_model

    own, other = (m.landmark_modes[0].double() for m in (model, built_in_morphable_model()))
    a, b = (points[_RIGID:] - points[_RIGID:].mean(0) for points in (other, own))
    left, scales, right = torch.linalg.svd(a.T @ b)
    flip = torch.ones(3).double()
    flip[2] = torch.sign(torch.det(left @ right))
    turn, scale = left @ torch.diag(flip) @ right, float((scales * flip).sum() / a.square().sum())
    offsets = scale * (other - other[_RIGID:].mean(0)) @ turn + own[_RIGID:].mean(0) - own
    offsets[MOUTH] *= 0.5
    return offsets.float()


def _cornea(neutral: np.ndarray, polygons: list[list[int]], materials: list[str], side: str) -> list[int]:
    """Polygons of the transparent cornea, which has the sclera's material and lies in front of the iris."""
    center = _eye_center(neutral, polygons, materials, side)
    return [
        i
        for i, (polygon, material) in enumerate(zip(polygons, materials, strict=True))
        if material == f"M_Sclera{side}"
        and (_off_axis(neutral[polygon], center) < _IRIS_RADIUS).all()
        and neutral[polygon][:, 2].mean() > center[2]
    ]


def _paint_eye(
    color: np.ndarray, neutral: np.ndarray, polygons: list[list[int]], materials: list[str], side: str
) -> None:
    """Color the inner eyeball, whose material is the iris': pupil, iris, and white around them."""
    inner = _vertices_of(polygons, materials, f"M_Iris{side}")
    center = _eye_center(neutral, polygons, materials, side)
    distance = _off_axis(neutral[inner], center)
    color[inner[distance >= _IRIS_RADIUS]] = _ICT_COLORS[f"M_Sclera{side}"]
    color[inner[distance < _PUPIL_RADIUS]] = _PUPIL_COLOR


def _eye_center(neutral: np.ndarray, polygons: list[list[int]], materials: list[str], side: str) -> np.ndarray:
    points = neutral[_vertices_of(polygons, materials, f"M_Iris{side}")]
    return (points.max(0) + points.min(0)) / 2 if len(points) else np.zeros(3)


def _off_axis(points: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Distances from the axis of an eye that looks straight ahead, ``(N,)``."""
    return np.hypot(*(points[:, :2] - center[:2]).T)


def _vertices_of(polygons: list[list[int]], materials: list[str], material: str) -> np.ndarray:
    found = [v for polygon, m in zip(polygons, materials, strict=True) if m == material for v in polygon]
    return np.unique(np.array(found, dtype=np.int64))


def load_bfm(path: Path) -> MorphableModel:
    """Load the Basel Face Model from ``BFM_model_front.mat``, which Deep3DFaceRecon creates: 80 identity, 64 expression
    and 80 texture modes.

    Raises:
        WeightsError: the file is missing, damaged or of another format.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise WeightsError(
            f"{path.name} does not exist; create it with Deep3DFaceRecon from the Basel Face Model, which requires"
            " registration"
        )
    try:
        # loadmat reads numbers and executes no code.
        stored = loadmat(str(path))
        mean, texture_mean = (np.asarray(stored[k], dtype=np.float64).reshape(-1, 3) for k in ("meanshape", "meantex"))
        identity, expression, texture = (
            np.asarray(stored[k], dtype=np.float32).T.reshape(-1, len(mean), 3) for k in ("idBase", "exBase", "texBase")
        )
        triangles = np.asarray(stored["tri"], dtype=np.int64) - 1
        landmarks = np.asarray(stored["keypoints"], dtype=np.int64).reshape(-1) - 1
    except KeyError as missing:
        raise WeightsError(f"{path.name} lacks {missing}; use BFM_model_front.mat") from None
    except Exception as error:  # scipy raises many types of exceptions for damaged files
        raise WeightsError(
            f"{path.name} is not a complete BFM_model_front.mat ({type(error).__name__}); create it again"
        ) from None
    if triangles.ndim != 2 or triangles.shape[1] != TRIANGLE_CORNERS:
        raise WeightsError(f"{path.name} has faces that are no triangles; create BFM_model_front.mat again")
    if len(landmarks) != LANDMARKS:
        raise WeightsError(f"{path.name} has {len(landmarks)} key points instead of {LANDMARKS}; create it again")
    centered = torch.from_numpy(mean - mean.mean(0)).float()
    cylindrical_uv = torch.stack(
        [
            torch.atan2(centered[:, 0], centered[:, 2]) / (2 * math.pi) + 0.5,
            0.5 - centered[:, 1] / (2 * centered[:, 1].abs().max()),
        ],
        1,
    )
    return MorphableModel(
        name="bfm",
        mean=centered,
        identity=torch.from_numpy(identity),
        expression=torch.from_numpy(expression),
        texture_mean=torch.from_numpy(texture_mean / 255).float(),
        texture=torch.from_numpy(texture / 255),
        triangles=orient_outwards(centered, torch.from_numpy(triangles)),
        landmarks=torch.from_numpy(landmarks)[:, None].expand(-1, 3).contiguous(),
        landmark_weights=_first_corner(),
        uv=cylindrical_uv,
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


def save_morphable(path: Path, model: MorphableModel, half: bool = False) -> None:
    """Save a model as a safetensors file, which loads much faster than a folder of text files.

    Args:
        half: store floating-point numbers in half precision.

    Raises:
        OutputError: the file cannot be written, or its name does not end in ``.safetensors``.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise OutputError(f"{path.name} must end in .safetensors; change the file name")
    properties = {
        "name": model.name,
        "texture_scale": model.texture_scale,
        "expressions": model.expressions,
        "expression_range": model.expression_range,
    }
    tensors = {part: getattr(model, part).contiguous() for part in _TENSORS}
    if model.landmark_offsets is not None:
        tensors["landmark_offsets"] = model.landmark_offsets.contiguous()
    if half:
        tensors = {part: v.half() if v.is_floating_point() else v for part, v in tensors.items()}
    write_whole(path, save(tensors, {"format": FORMAT, "model": json.dumps(properties)}))


def load_stored(path: Path) -> MorphableModel:
    """Load a model that ``save_morphable`` saved.

    Raises:
        WeightsError: the file is missing, damaged or of another format.
    """
    tensors, metadata = read_safetensors(path, "morphable model", "convert it again with: faceveil convert-morphable")
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path.name} is not a morphable model of format {FORMAT}; convert one with: faceveil convert-morphable"
        )
    try:
        properties: dict[str, Any] = json.loads(metadata["model"])
        properties |= {k: tuple(properties[k]) for k in ("expressions", "expression_range")} | {
            part: tensors[part].float() if tensors[part].is_floating_point() else tensors[part] for part in _TENSORS
        }
        offsets = tensors.get("landmark_offsets")
        return MorphableModel(**properties, landmark_offsets=None if offsets is None else offsets.float())
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is truncated or from another version ({type(error).__name__}); convert it again"
        ) from None


def orient_outwards(mean: Tensor, triangles: Tensor) -> Tensor:
    """Orient triangles ``(F, 3)`` counter-clockwise as seen from outside. Files differ in the order of corners."""
    if triangles.numel() and not 0 <= int(triangles.min()) <= int(triangles.max()) < len(mean):
        # MorphableModel reports indices that are out of range.
        return triangles
    a, b, c = mean[triangles].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    center = mean.mean(0)
    outward = (normal * ((a + b + c) / 3 - center)).sum(1).sum()
    return triangles if outward >= 0 else triangles.flip(1)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, list[list[int]], list[str], list[list[int]]]:
    """Read vertices, texture coordinates, the polygons' vertex indices and materials, and the index of each corner's
    texture coordinates."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        vertices = np.array([line.split()[1:4] for line in lines if line.startswith("v ")], dtype=np.float64)
        texture_coordinates = np.array(
            [line.split()[1:3] for line in lines if line.startswith("vt ")], dtype=np.float64
        )
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
        raise WeightsError(
            f"{path.name} is not a complete OBJ file ({type(error).__name__}); get a fresh copy"
        ) from None
    if not polygons or max(max(p) for p in polygons) >= len(vertices) or len(vertices) < _ICT_FACE:
        raise WeightsError(f"{path.name} is truncated or has another topology than ICT-FaceKit; get a fresh copy")
    return vertices, texture_coordinates, polygons, materials, corners


def _read_vertices(path: Path, count: int, polygons: int) -> np.ndarray:
    """Read the vertices ``(count, 3)`` of an OBJ file, which are stored in one block, and check that it is complete."""
    try:
        data = path.read_bytes()
        start = data.index(b"\nv ") + 1
        end = data.find(b"\nvt", start)
        values = np.array(data[start : end if end > 0 else None].replace(b"v", b"").split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path.name} is not a complete OBJ file ({type(error).__name__}); get a fresh copy"
        ) from None
    if values.size != 3 * count or not np.isfinite(values).all() or data.count(b"\nf ") != polygons:
        raise WeightsError(
            f"{path.name} does not hold {count} vertices and {polygons} polygons; get a fresh copy of ICT-FaceKit"
        )
    return values.reshape(count, 3)


def _first_corner() -> Tensor:
    """Build the weights ``(68, 3)`` of landmarks that are vertices: 1 for the first of the three vertices."""
    return torch.tensor([1.0, 0.0, 0.0]).expand(LANDMARKS, -1).contiguous()


def _waves(uv: np.ndarray, skin: np.ndarray) -> Tensor:
    """Build texture modes ``(80, V, 3)``: cosine waves over UV on the skin, 26 per channel, low frequencies first."""
    orders = sorted(product(range(8), repeat=2), key=lambda o: (o[0] ** 2 + o[1] ** 2, o))[:26]
    modes = np.zeros((80, len(uv), 3), dtype=np.float32)
    for i, (m, n) in enumerate(orders):
        wave = np.cos(math.pi * m * uv[:, 0]) * np.cos(math.pi * n * uv[:, 1]) * skin
        for channel in range(3):
            modes[3 * i + channel, :, channel] = wave * _TEXTURE_AMPLITUDE / (1 + math.hypot(m, n))
    return torch.from_numpy(modes)
