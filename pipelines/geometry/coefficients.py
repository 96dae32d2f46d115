"""Coefficients of a morphable model as named fields, and the vector layouts of papers."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.files import write_whole
from ..core.noise import perturb_codes
from ..core.stored import read_safetensors

FORMAT = "faceveil.coefficients/1"
FIELDS = ("identity", "expression", "texture", "lighting", "angles", "translation", "gaze")
DEEP3D = (("identity", 80), ("expression", 64), ("texture", 80), ("angles", 3), ("lighting", 27), ("translation", 3))
"""Layout of the 257 numbers of Deep3DFaceRecon."""
DIFFDEID = (
    ("identity", 80),
    ("expression", 64),
    ("texture", 80),
    ("lighting", 27),
    ("angles", 3),
    ("translation", 3),
    ("gaze", 4),
)
"""Layout of the 261 numbers of DiffDeID (section 3.1), whose pose is angles and translation."""
_FIXED = {"lighting": 27, "angles": 3, "translation": 3, "gaze": 4}
Layout = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of N faces or frames of one morphable model.

    Attributes:
        model: name of the morphable model.
        identity, expression, texture: ``(N, K)``, ``(N, E)``, ``(N, T)``.
        lighting: ``(N, 27)``, spherical-harmonics coefficients, channel by channel.
        angles: ``(N, 3)``, radians about x (pitch), y (yaw) and z (roll).
        translation: ``(N, 3)``, decimeters.
        gaze: ``(N, 4)``, pupil offset to the right and up for the image-left and the image-right eye, in half widths of
            the eye.

    Raises:
        InputError: the numbers of rows or columns do not match, or values are not finite.
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
        """Select rows, in the given order."""
        return self._with({name: value[list(chosen)] for name, value in self.fields().items()})

    def fields(self) -> dict[str, Tensor]:
        """All tensors by field name."""
        return {name: getattr(self, name) for name in FIELDS}

    def replaced(self, other: Coefficients, names: Sequence[str]) -> Coefficients:
        """Copy the coefficients with the fields ``names`` taken from ``other``, such as its expression or lighting.

        Raises:
            InputError: ``other`` belongs to another model, a field name is unknown, or ``other`` has neither one row
                nor as many rows as this object.
        """
        same_model([self, other])
        if unknown := set(names) - set(FIELDS):
            raise InputError(f"{', '.join(sorted(unknown))} is not one of {', '.join(FIELDS)}")
        return self._with({name: self._fitting(other, name) for name in names})

    def blended(self, other: Coefficients, share: float, names: Sequence[str] = FIELDS) -> Coefficients:
        """Interpolate the fields ``names``: ``(1 - share) self + share other``; errors as in ``replaced``."""
        replaced = self.replaced(other, names)
        return self._with({name: torch.lerp(getattr(self, name), getattr(replaced, name), share) for name in names})

    def perturbed(
        self, scale: float, seed: int, names: Sequence[str] = ("identity",), limit: float | None = None
    ) -> Coefficients:
        """Add Gaussian noise N(0, scale^2) to each number, as IDEudemon does (section 3.2).

        All rows belong to one person and get the same noise.

        Args:
            limit: clamp the sums to +-limit. The paper uses 1 for the codes of HeadNeRF. Coefficients of unit variance
                need no limit.
        """
        # One stream over all fields, in the given order.
        sizes = [getattr(self, name).shape[1] for name in names]
        joined = torch.cat([getattr(self, name) for name in names], 1)
        noisy = perturb_codes(joined, scale, seed, shared=True, limit=limit)
        return self._with(dict(zip(names, noisy.split(sizes, 1), strict=True)))

    def to_vector(self, layout: Layout) -> Tensor:
        """Convert to vectors ``(N, D)`` in a layout; pad fields that have fewer numbers with zeros.

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
        """Convert from vectors ``(N, D)``; fields that the layout lacks are zero.

        Raises:
            InputError: the vector does not have the length of the layout.
        """
        total = sum(size for _, size in layout)
        if vector.dim() != 2 or vector.shape[1] != total:
            raise InputError(f"this layout holds {total} numbers per face, got the shape {tuple(vector.shape)}")
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
    """Build coefficients of the mean face in frontal pose under uniform light."""
    widths = dict(zip(FIELDS, sizes, strict=False)) | _FIXED
    return Coefficients(model, **{name: torch.zeros(count, widths[name]) for name in FIELDS})


def same_model(coefficients: Sequence[Coefficients]) -> str:
    """Return the name of the model that all coefficients belong to.

    Raises:
        InputError: they belong to different models.
    """
    names = sorted({c.model for c in coefficients})
    if len(names) != 1:
        raise InputError(
            f"coefficients of different models cannot be mixed ({', '.join(names)}); estimate all with the same model"
        )
    return names[0]


@dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation ``(1, D)`` of each number of a layout over a set of faces.

    DiffDeID standardizes the input p of its network in this way.
    """

    layout: Layout
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, coefficients: Coefficients, layout: Layout = DIFFDEID) -> Standardizer:
        """Compute mean and standard deviation of each number over the rows."""
        vectors = coefficients.to_vector(layout)
        # Avoid division by zero for numbers that are constant.
        return cls(layout, vectors.mean(0, keepdim=True), vectors.std(0, keepdim=True).clamp(min=1e-6))

    def standardize(self, coefficients: Coefficients) -> Tensor:
        """Convert to vectors ``(N, D)`` of zero mean and unit variance."""
        return (coefficients.to_vector(self.layout) - self.mean) / self.std

    def restore(self, standardized: Tensor, model: str) -> Coefficients:
        """Invert ``standardize``."""
        return Coefficients.from_vector(standardized * self.std + self.mean, self.layout, model)


def save_coefficients(
    path: Path, coefficients: Coefficients, transforms: Tensor, when: datetime.date | None = None
) -> None:
    """Save coefficients and alignment transforms as a safetensors file. It stores no image and no image file name.

    Args:
        transforms: from image pixels to the aligned square of each face, ``(N, 2, 3)``.
        when: the date to store; today if omitted.
    """
    from safetensors.torch import save

    date = (when or datetime.datetime.now(datetime.UTC).date()).isoformat()
    tensors: Mapping[str, Tensor] = {
        name: getattr(coefficients, name).detach().float().cpu().contiguous() for name in FIELDS
    }
    metadata = {"format": FORMAT, "model": coefficients.model, "date": date}
    write_whole(path, save({**tensors, "transforms": transforms.float().contiguous()}, metadata))


def load_coefficients(path: Path, model: str | None = None) -> tuple[Coefficients, Tensor]:
    """Load a file that ``save_coefficients`` saved.

    Args:
        model: the model that the coefficients must belong to; any model if omitted.

    Returns:
        The coefficients, and the transforms from image pixels to the aligned squares, ``(N, 2, 3)``.

    Raises:
        InputError: the file is missing, damaged, of another format or model, or holds values that are not finite.
    """
    tensors, metadata = read_safetensors(
        path, "coefficients file", "check its name and folder, or save it again", InputError
    )
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path.name} is not a coefficients file of format {FORMAT}; create one with Save Coefficients"
        )
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
        raise InputError(f"{path.name} does not hold a valid transform for each face; save the coefficients again")
    return found, transforms
