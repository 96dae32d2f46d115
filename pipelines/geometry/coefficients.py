"""Coefficients of a morphable model as named fields, and the orders in which papers lay them out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..images import write_whole
from ..stored import read_safetensors

FORMAT = "faceveil.coefficients/1"
FIELDS = ("identity", "expression", "texture", "lighting", "angles", "translation", "gaze")
DEEP3D = (("identity", 80), ("expression", 64), ("texture", 80), ("angles", 3), ("lighting", 27), ("translation", 3))
"""The 257 numbers of Deep3DFaceRecon, in its order."""
DIFFDEID = (
    ("identity", 80),
    ("expression", 64),
    ("texture", 80),
    ("lighting", 27),
    ("angles", 3),
    ("translation", 3),
    ("gaze", 4),
)
"""The 261 numbers of DiffDeID (section 3.1): pose is angles and translation."""
_FIXED = {"lighting": 27, "angles": 3, "translation": 3, "gaze": 4}
Layout = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Coefficients:
    """N faces (or frames) of one morphable model.

    Attributes:
        model: its name.
        identity, expression, texture: ``(N, K)``, ``(N, E)``, ``(N, T)``.
        lighting: ``(N, 27)``, spherical harmonics, channel by channel.
        angles: ``(N, 3)``, radians about x, y and z.
        translation: ``(N, 3)``, decimetres.
        gaze: ``(N, 4)``, right and up for the image-left and the other eye, in half widths of the eye.

    Raises:
        InputError: numbers of rows or columns do not fit, or values are not finite.
    """

    model: str
    identity: Tensor
    expression: Tensor
    texture: Tensor
    lighting: Tensor
    angles: Tensor
    translation: Tensor
    gaze: Tensor

    def __post_init__(self) -> None:
        for name in FIELDS:
            value: Tensor = getattr(self, name)
            if (
                value.dim() != 2
                or len(value) != len(self.identity)
                or value.shape[1] != _FIXED.get(name, value.shape[1])
            ):
                raise InputError(
                    f"coefficients {name} have the shape {tuple(value.shape)}, which does not fit {len(self.identity)}"
                    " faces"
                )
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"coefficients {name} hold values that are not finite; estimate them again")

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, index: int) -> Coefficients:
        return self.rows([index])

    def rows(self, chosen: Sequence[int]) -> Coefficients:
        """Some rows, in this order."""
        return self._with({name: value[list(chosen)] for name, value in self.fields().items()})

    def fields(self) -> dict[str, Tensor]:
        """All numbers by name."""
        return {name: getattr(self, name) for name in FIELDS}

    def replaced(self, other: Coefficients, names: Sequence[str]) -> Coefficients:
        """The same with the fields ``names`` of another: who wears whose expression, under whose light.

        Raises:
            InputError: another model, an unknown field, or neither one row nor as many as here.
        """
        same_model([self, other])
        if unknown := set(names) - set(FIELDS):
            raise InputError(f"{', '.join(sorted(unknown))} is not one of {', '.join(FIELDS)}")
        return self._with({name: self._fitting(other, name) for name in names})

    def blended(self, other: Coefficients, share: float, names: Sequence[str] = FIELDS) -> Coefficients:
        """``(1 - share) self + share other`` in the fields ``names``."""
        taken = self.replaced(other, names)
        return self._with({name: torch.lerp(getattr(self, name), getattr(taken, name), share) for name in names})

    def perturbed(
        self, scale: float, seed: int, names: Sequence[str] = ("identity",), limit: float | None = None
    ) -> Coefficients:
        """IDEudemon's step (section 3.2): add N(0, scale^2) to each number, the same for all rows, which are one
        person.

        Args:
            limit: clamp the sums to +-limit, as the paper does with 1 for HeadNeRF's codes; coefficients of unit
                variance have none.
        """
        generator = torch.Generator().manual_seed(seed)
        changed = {}
        for name in names:
            value: Tensor = getattr(self, name)
            noisy = value + scale * torch.randn(value.shape[1], generator=generator).to(value)
            changed[name] = noisy if limit is None else noisy.clamp(-limit, limit)
        return self._with(changed)

    def to_vector(self, layout: Layout) -> Tensor:
        """``(N, D)`` in a layout; fields with fewer numbers are filled up with zeros.

        Raises:
            InputError: a field has more numbers than the layout holds.
        """
        parts = []
        for name, size in layout:
            value: Tensor = getattr(self, name)
            if value.shape[1] > size:
                raise InputError(f"{name} of {self.model} has {value.shape[1]} numbers, but this layout holds {size}")
            parts.append(torch.nn.functional.pad(value, (0, size - value.shape[1])))
        return torch.cat(parts, 1)

    @classmethod
    def from_vector(cls, vector: Tensor, layout: Layout, model: str) -> Coefficients:
        """Read ``(N, D)``; fields that the layout lacks are zero.

        Raises:
            InputError: the vector has another length.
        """
        total = sum(size for _, size in layout)
        if vector.dim() != 2 or vector.shape[1] != total:
            raise InputError(f"this layout holds {total} numbers a face, got the shape {tuple(vector.shape)}")
        parts = dict(zip((name for name, _ in layout), vector.split([size for _, size in layout], 1), strict=True))
        missing = {name: vector.new_zeros(len(vector), _FIXED[name]) for name in FIELDS if name not in parts}
        return cls(model, **parts, **missing)

    def _with(self, changed: dict[str, Any]) -> Coefficients:
        return replace(self, **changed)

    def _fitting(self, other: Coefficients, name: str) -> Tensor:
        value: Tensor = getattr(other, name)
        if len(other) not in (1, len(self)):
            raise InputError(f"{len(other)} rows of coefficients do not fit {len(self)}; give one, or one for each")
        return value.expand(len(self), -1)


def neutral(model: str, sizes: tuple[int, int, int], count: int = 1) -> Coefficients:
    """The mean face under even light, looking at the camera."""
    widths = dict(zip(FIELDS, sizes, strict=False)) | _FIXED
    return Coefficients(model, **{name: torch.zeros(count, widths[name]) for name in FIELDS})


def same_model(coefficients: Sequence[Coefficients]) -> str:
    """The model that all share.

    Raises:
        InputError: they belong to different ones.
    """
    names = sorted({c.model for c in coefficients})
    if len(names) != 1:
        raise InputError(
            f"coefficients of different models cannot be mixed ({', '.join(names)}); estimate all with the same one"
        )
    return names[0]


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation ``(1, D)`` of each number of a layout over a set of faces, as DiffDeID feeds p to its
    network."""

    layout: Layout
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, coefficients: Coefficients, layout: Layout = DIFFDEID) -> Standard:
        vectors = coefficients.to_vector(layout)
        # Numbers that never change would otherwise be blown up.
        return cls(layout, vectors.mean(0, keepdim=True), vectors.std(0, keepdim=True).clamp(min=1e-6))

    def standardise(self, coefficients: Coefficients) -> Tensor:
        """``(N, D)`` of zero mean and unit variance."""
        return (coefficients.to_vector(self.layout) - self.mean) / self.std

    def restore(self, standard: Tensor, model: str) -> Coefficients:
        return Coefficients.from_vector(standard * self.std + self.mean, self.layout, model)


def save_coefficients(
    path: Path, coefficients: Coefficients, transforms: Tensor, when: datetime.date | None = None
) -> None:
    """Write coefficients and where their squares lie, as safetensors; no picture and no file name.

    Args:
        transforms: from the picture to the square of each face, ``(N, 2, 3)``.
    """
    from safetensors.torch import save

    date = (when or datetime.datetime.now(datetime.UTC).date()).isoformat()
    tensors: Mapping[str, Tensor] = {
        name: getattr(coefficients, name).detach().float().cpu().contiguous() for name in FIELDS
    }
    metadata = {"format": FORMAT, "model": coefficients.model, "date": date}
    write_whole(path, save({**tensors, "transforms": transforms.float().contiguous()}, metadata))


def load_coefficients(path: Path, model: str | None = None) -> tuple[Coefficients, Tensor]:
    """Read what ``save_coefficients`` wrote.

    Args:
        model: the model that is needed; any when omitted.

    Raises:
        InputError: the file is missing, damaged, of another kind or model, or holds values that are not finite.
    """
    tensors, metadata = read_safetensors(
        path, "coefficients file", "check its name and folder, or save it again", InputError
    )
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path.name} holds no coefficients of format {FORMAT}; save them with Save Coefficients")
    if model is not None and metadata.get("model") != model:
        raise InputError(
            f"{path.name} belongs to the model {metadata.get('model')}, but {model} is needed; estimate it again"
        )
    try:
        transforms = tensors["transforms"]
        found = Coefficients(metadata["model"], **{name: tensors[name] for name in FIELDS})
    except KeyError as missing:
        raise InputError(f"{path.name} lacks {missing}; save the coefficients again") from None
    if tuple(transforms.shape) != (len(found), 2, 3) or not bool(torch.isfinite(transforms).all()):
        raise InputError(f"{path.name} does not say where its faces lie; save the coefficients again")
    return found, transforms
