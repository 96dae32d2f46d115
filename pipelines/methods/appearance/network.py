"""The appearance model: Gaussian PCA of log reflectance detail per face region, with a 3D shape code and attributes.

Each region has one joint vector ``v = [texture code, shape code] = W a + E z``. The attributes ``a`` are what the new
face shares with the photo (apparent sex, age and ethnic group, light, beard, roughness, yaw, mouth). The residual code
``z`` is the identity. The PCA bases describe the mirror-symmetric and the antisymmetric half of a face separately, so
mirroring a face only changes the signs of codes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....weights.builtin import open_builtin
from ...core.errors import WeightsError
from ...core.files import short_reason
from ...core.stored import read_safetensors
from ...geometry.shape_model import ShapeModel
from ...imaging.resample import resize
from ...training.labels import GROUPS, LABELS
from .canonical import REGIONS, SIZE, CanonicalSpace, RenderMasks
from .halves import Packer
from .jacobian import GUIDES, EmbeddingJacobian
from .people import People
from .shading import MEASURES, Decomposer, Measures

FORMAT = "faceveil.appearance/3"
FILE = "appearance.safetensors"
REMEDY = "train one with: faceveil train appearance --images DIR"
MAX_ATTRIBUTE = 1.8
"""Limit of attributes in standard deviations, because photos vary more than the training faces."""
SHAPE_STRETCH = {"eyes": 2.1, "nose": 1.6, "mouth": 1.9, "base": 1.9}
"""Scale factors of people's shape codes. The regularized model describes people closer to the mean than they are, and
proportions change an identity with the least harm to the picture."""
PATTERN_COMPONENTS = 4
"""Principal components of the light pattern among the attributes."""

_PERSON_MEASURES = ("beard on chin", "mustache", "beard on jaw", "roughness", "forehead creases", "eye creases")
TRAITS = np.array(
    [*range(len(LABELS)), *(len(LABELS) + PATTERN_COMPONENTS + MEASURES.index(name) for name in _PERSON_MEASURES)]
)
"""Indices of the attributes of a person: apparent sex, age and ethnic group, beard, skin. Light, yaw and mouth belong
to the photo."""

Codes = dict[str, np.ndarray]
"""Region name to texture code ``(K,)``."""


@dataclass(frozen=True)
class RegionBasis:
    """PCA of one region.

    Attributes:
        mean: of the symmetric half, ``(P,)``: luma pixels in the mask, then chroma pixels.
        even: basis of the symmetric half, ``(P, Ke)``.
        odd: basis of the antisymmetric half, ``(P, Ko)``.
        sign: ``(K,)``, +1 for codes of ``even``, -1 for codes of ``odd``.
        regress: W, ``(A + 1, K + S)``.
        residual: E, ``(K + S, Z)``.
    """

    mean: Tensor
    even: Tensor
    odd: Tensor
    sign: np.ndarray
    regress: np.ndarray
    residual: np.ndarray

    @property
    def components(self) -> int:
        """Number of texture codes K."""
        return len(self.sign)


@dataclass(frozen=True)
class AttributeSpace:
    """Computes and standardizes attributes.

    Attributes:
        labels: ridge regression from a dlib embedding with a trailing 1 to the labels, ``(129, 6)``.
        pattern_mean: mean of the light pattern, ``(768,)``.
        pattern_basis: PCA basis of the light pattern, ``(768, 4)``.
        mean: of each attribute.
        std: standard deviation of each attribute.
    """

    labels: np.ndarray
    pattern_mean: np.ndarray
    pattern_basis: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def raw(self, labels: np.ndarray, measures: Measures) -> np.ndarray:
        """Concatenate labels ``(6,)``, light pattern and measures to attributes ``(A,)`` that are not standardized."""
        pattern = (measures.pattern - self.pattern_mean) @ self.pattern_basis
        return np.concatenate([labels, pattern, measures.values])

    def vector(self, embedding: np.ndarray, measures: Measures) -> np.ndarray:
        """Compute the standardized attributes of a photo with a trailing 1, ``(A + 1,)``.

        The predicted labels are sharpened, and the values are clipped to +-``MAX_ATTRIBUTE``.
        """
        predicted = np.append(embedding, 1.0) @ self.labels
        sex, age, groups = predicted[0], predicted[1], predicted[-len(GROUPS) :]
        definite = np.where(groups == groups.max(), 0.9, -0.95)
        labels = np.concatenate(
            [[np.clip(2.5 * sex, -1.1, 1.1), np.clip(age, -1.5, 2)], 0.5 * definite + 0.5 * np.clip(groups, -1, 1)]
        )
        standard = (self.raw(labels, measures) - self.mean) / self.std
        return np.append(np.clip(standard, -MAX_ATTRIBUTE, MAX_ATTRIBUTE), 1.0)


class AppearanceModel:
    """The trained model."""

    def __init__(
        self,
        mean_shape: np.ndarray,
        shapes: ShapeModel,
        regions: dict[str, RegionBasis],
        attributes: AttributeSpace,
        jacobians: dict[str, EmbeddingJacobian],
        limits: Tensor,
        people: People,
    ) -> None:
        self.canonical = CanonicalSpace(mean_shape)
        self.decomposer = Decomposer(self.canonical)
        self.shapes = shapes
        self.regions = regions
        self.attributes = attributes
        self.jacobians = jacobians
        self._texture_responses: dict[str, list[np.ndarray]] = {}
        self.people = people
        self.limits = resize(limits, SIZE, SIZE)
        self.packer = Packer(self.canonical)
        self.masks = RenderMasks(self.canonical)

    def encode(self, detail: Tensor) -> Codes:
        """Compute the texture codes of reflectance detail ``(1, 3, 256, 256)``."""
        codes = {}
        for name, (symmetric, antisymmetric) in self.packer.pack(detail).items():
            region = self.regions[name]
            code = np.empty(region.components, dtype=np.float32)
            code[region.sign > 0] = ((symmetric - region.mean) @ region.even).numpy()
            code[region.sign < 0] = (antisymmetric @ region.odd).numpy()
            codes[name] = code
        return codes

    def encode_visible(self, detail: Tensor, visible: Tensor, start: Codes, rounds: int = 4) -> tuple[Codes, Tensor]:
        """Compute the texture codes of partly occluded detail by expectation-maximization.

        Each round fills the occluded pixels with the decoded current codes and re-encodes the result.

        Args:
            detail: ``(1, 3, 256, 256)``.
            visible: ``(1, 1, 256, 256)``, 1 where the detail is visible.
            start: initial codes.

        Returns:
            The codes, and the detail that they decode to.
        """
        fitted = self.decode(start)
        codes = start
        for _ in range(rounds):
            codes = self.encode(torch.lerp(fitted, detail, visible))
            fitted = self.decode(codes)
        return codes, fitted

    def decode(self, codes: Codes) -> Tensor:
        """Compute the reflectance detail ``(1, 3, 256, 256)`` of texture codes."""
        halves = {}
        for name, code in codes.items():
            region, value = self.regions[name], np.asarray(code, dtype=np.float32)
            even, odd = (aligned(value[region.sign == s]) for s in (1, -1))
            halves[name] = (region.mean + region.even @ even, region.odd @ odd)
        return self.packer.unpack(halves)

    def clamp(self, detail: Tensor) -> Tensor:
        """Clamp the luma of reflectance detail to its range in the training faces at each pixel."""
        luma = detail.mean(1, keepdim=True)
        return detail + (torch.minimum(torch.maximum(luma, self.limits[:, :1]), self.limits[:, 1:]) - luma)

    def expected(self, name: str, attributes: np.ndarray) -> np.ndarray:
        """Compute ``W a`` of a region, ``(K + S,)``: the mean codes for these attributes."""
        return attributes @ self.regions[name].regress

    def deviation(self, name: str, z: np.ndarray) -> np.ndarray:
        """Compute ``E z`` of a region from ``(..., Z)`` to ``(..., K + S)``, with scaled shape codes."""
        joint = z @ self.regions[name].residual.T
        joint[..., self.regions[name].components :] *= SHAPE_STRETCH[name]
        return joint

    def texture_responses(self, guide: str) -> list[np.ndarray]:
        """Derivatives ``(Z, D)`` of a guide's embedding with respect to ``z`` through the texture, for each region."""
        if guide not in self._texture_responses:
            textures = self.jacobians[guide].textures
            self._texture_responses[guide] = [
                self.regions[n].residual[: self.regions[n].components].T @ textures[n] for n in REGIONS
            ]
        return self._texture_responses[guide]


def aligned(vector: np.ndarray) -> Tensor:
    """A copy of a vector for products with a matrix: their last bits depend on where in the memory the vector begins.
    torch's own tensors begin at multiples of 64 bytes."""
    return torch.tensor(vector)


def load_model(path: Path | None = None) -> AppearanceModel:
    """Load a trained model, or the built-in one when ``path`` is omitted.

    Raises:
        WeightsError: the file is missing, damaged or not an appearance model.
    """
    tensors, metadata = open_builtin(FILE) if path is None else read_safetensors(path, "appearance model", REMEDY)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path or FILE} is not an appearance model of format {FORMAT}; train one with: faceveil train appearance"
        )
    try:
        return model_of(tensors, metadata)
    except KeyError as error:
        raise WeightsError(f"{path or FILE} lacks the tensor {error}; train or download the model again") from None
    except (ValueError, RuntimeError, IndexError) as error:
        # Sizes that do not fit each other, or text that is no number.
        reason = short_reason(error)
        raise WeightsError(f"{path or FILE} is damaged ({reason}); train or download the model again") from None


def model_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> AppearanceModel:
    """Build a model from the tensors and metadata of its file.

    Raises:
        KeyError: a tensor or a metadata entry is missing.
    """

    def get(key: str) -> np.ndarray:
        return tensors[key].float().numpy()

    regions = {name: _region(name, tensors) for name in REGIONS}
    shapes = ShapeModel(
        get("shape.mean").astype(np.float64),
        get("shape.modes").astype(np.float64),
        float(json.loads(metadata["shape_noise"])),
    )
    attributes = AttributeSpace(
        *(get(f"attributes.{k}").astype(np.float64) for k in ("labels", "pattern_mean", "pattern_basis", "mean", "std"))
    )
    return AppearanceModel(
        get("frame.mean").astype(np.float64),
        shapes,
        regions,
        attributes,
        {guide: EmbeddingJacobian.of(tensors, guide) for guide in GUIDES},
        tensors["limits"].float(),
        People.from_tensors(tensors),
    )


def _region(name: str, tensors: dict[str, Tensor]) -> RegionBasis:
    part = {key.removeprefix(f"{name}."): value.float() for key, value in tensors.items() if key.startswith(f"{name}.")}
    basis, sign = part["basis"] * part["scale"], part["sign"]
    return RegionBasis(
        mean=part["mean"],
        even=basis[:, sign > 0].contiguous(),
        odd=basis[:, sign < 0].contiguous(),
        sign=sign.numpy(),
        regress=part["regress"].numpy(),
        residual=(part["residual"] * part["residual_scale"][:, None]).numpy(),
    )
