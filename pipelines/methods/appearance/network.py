"""The appearance model: region-wise Gaussian PCA of log-detail, with a 3D shape code, conditioned on lean attributes.

Per region one joint vector ``v = [texture code, shape code] = W a + E z``: ``a`` are attributes that the new face must
share with the photo (sex look, group, light, beard, roughness, head turn, mouth), ``z`` is what makes a person. Bases
hold
the mirror-symmetric and the antisymmetric half of a face, so that mirroring is a change of signs.
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
from ...core.stored import read_safetensors
from ...geometry.shape_model import ShapeModel
from ...imaging.resample import resize
from .canonical import REGIONS, SIZE, CanonicalSpace, Guides
from .jacobian import EmbeddingJacobian
from .shading import MEASURES, Measures, Splitter

FORMAT = "faceveil.appearance/2"
FILE = "appearance.safetensors"
REMEDY = "train one with: faceveil train appearance --images DIR"
LUMA_SIZE = {"eyes": 256, "nose": 256, "mouth": 256, "base": 192}
CHROMA_SIZE = 64
LABELS = ("male", "white", "black", "asian", "latino")
CLIP = 1.8
"""Photos are harsher than the training faces: attributes are cut here, in standard deviations."""
STRETCH = {"eyes": 3.4, "nose": 3.7, "mouth": 3.1, "base": 3.2}
"""Draws of a regularized model lie nearer to the mean than people do: their shapes are stretched by this much."""
PATTERN = 4
"""Components of the light pattern that condition the model."""

_OF_A_PERSON = ("beard on chin", "moustache", "beard on jaw", "roughness", "forehead creases", "eye creases")
TRAITS = np.array([*range(len(LABELS)), *(len(LABELS) + PATTERN + MEASURES.index(name) for name in _OF_A_PERSON)])
"""Attributes that belong to a person: sex look, groups, beard, skin. Light, head turn and mouth belong to the photo."""

Codes = dict[str, np.ndarray]
"""Region name to texture code ``(K,)``."""


@dataclass(frozen=True)
class RegionBasis:
    """PCA of one region.

    Attributes:
        mean: symmetric half, ``(P,)``: luma pixels under the mask, then chroma.
        even, odd: bases of the symmetric ``(P, Ke)`` and of the antisymmetric half ``(P, Ko)``.
        sign: ``(K,)``, +1 where a code belongs to ``even``, -1 where to ``odd``.
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
        return len(self.sign)


@dataclass(frozen=True)
class AttributeSpace:
    """How attributes are formed and standardized.

    Attributes:
        labels: ridge from a dlib embedding with a trailing 1 to the labels, ``(129, 5)``.
        pattern_mean, pattern_basis: PCA of the light pattern, ``(768,)`` and ``(768, 4)``.
        mean, std: of each attribute.
    """

    labels: np.ndarray
    pattern_mean: np.ndarray
    pattern_basis: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    def raw(self, labels: np.ndarray, measures: Measures) -> np.ndarray:
        pattern = (measures.pattern - self.pattern_mean) @ self.pattern_basis
        return np.concatenate([labels, pattern, measures.values])

    def vector(self, embedding: np.ndarray, measures: Measures) -> np.ndarray:
        """Standardized attributes of a photo with a trailing 1, ``(A + 1,)``; labels are made definite, values
        clipped."""
        guess = np.append(embedding, 1.0) @ self.labels
        definite = np.full(len(LABELS), -0.95)
        definite[1 + int(np.argmax(guess[1:]))] = 0.9
        labels = 0.5 * definite + 0.5 * np.clip(guess, -1, 1)
        labels[0] = np.clip(2.5 * guess[0], -1.1, 1.1)
        standard = (self.raw(labels, measures) - self.mean) / self.std
        return np.append(np.clip(standard, -CLIP, CLIP), 1.0)


class AppearanceModel:
    """Everything the method needs, read-only after loading."""

    def __init__(
        self,
        mean_shape: np.ndarray,
        shapes: ShapeModel,
        regions: dict[str, RegionBasis],
        attributes: AttributeSpace,
        jacobian: EmbeddingJacobian,
        limits: Tensor,
    ) -> None:
        self.frame = CanonicalSpace(mean_shape)
        self.splitter = Splitter(self.frame)
        self.shapes = shapes
        self.regions = regions
        self.attributes = attributes
        self.jacobian = jacobian
        self.limits = resize(limits, SIZE, SIZE)
        self.packer = Packer(self.frame)
        self.guides = Guides(self.frame)

    def encode(self, detail: Tensor) -> Codes:
        """Texture codes of a detail layer ``(1, 3, 256, 256)``."""
        codes = {}
        for name, (symmetric, antisymmetric) in self.packer.pack(detail).items():
            region = self.regions[name]
            code = np.empty(region.components, dtype=np.float32)
            code[region.sign > 0] = ((symmetric - region.mean) @ region.even).numpy()
            code[region.sign < 0] = (antisymmetric @ region.odd).numpy()
            codes[name] = code
        return codes

    def explain(self, detail: Tensor, visible: Tensor, start: Codes, rounds: int = 4) -> tuple[Codes, Tensor]:
        """Texture codes of a partly covered detail layer, and what they decode to.

        What is hidden is filled with the current explanation and the whole encoded again (expectation-maximisation).
        """
        fitted = self.decode(start)
        codes = start
        for _ in range(rounds):
            codes = self.encode(torch.lerp(fitted, detail, visible))
            fitted = self.decode(codes)
        return codes, fitted

    def decode(self, codes: Codes) -> Tensor:
        """Detail layer ``(1, 3, 256, 256)`` of texture codes."""
        halves = {}
        for name, code in codes.items():
            region, value = self.regions[name], np.asarray(code, dtype=np.float32)
            even, odd = (torch.from_numpy(value[region.sign == s]) for s in (1, -1))
            halves[name] = (region.mean + region.even @ even, region.odd @ odd)
        return self.packer.unpack(halves)

    def clamp(self, detail: Tensor) -> Tensor:
        """Limit the luma of a detail layer to what training faces showed at each pixel: no glowing lids."""
        luma = detail.mean(1, keepdim=True)
        return detail + (torch.minimum(torch.maximum(luma, self.limits[:, :1]), self.limits[:, 1:]) - luma)

    def expected(self, name: str, attributes: np.ndarray) -> np.ndarray:
        """``W a`` of a region, ``(K + S,)``."""
        return attributes @ self.regions[name].regress

    def person(self, name: str, z: np.ndarray) -> np.ndarray:
        """``E z`` of a region: ``(..., Z)`` to ``(..., K + S)``, its shape stretched."""
        joint = z @ self.regions[name].residual.T
        joint[..., self.regions[name].components :] *= STRETCH[name]
        return joint


class Packer:
    """Lays a detail layer out as one vector a region and half."""

    def __init__(self, frame: CanonicalSpace) -> None:
        grown = torch.nn.functional.max_pool2d((frame.face > 0.5).float(), 7, 1, 3)
        self.weights = frame.regions
        self._luma = {
            n: _half(resize(self.weights[n] * grown, LUMA_SIZE[n], LUMA_SIZE[n]))[0, 0] > 0.03 for n in REGIONS
        }
        self._chroma = {
            n: _half(resize(self.weights[n] * grown, CHROMA_SIZE, CHROMA_SIZE))[0, 0] > 0.03 for n in REGIONS
        }

    def chroma_weight(self, name: str) -> float:
        """A chroma pixel stands for as much area as its luma pixels."""
        return LUMA_SIZE[name] / CHROMA_SIZE

    def pack(self, detail: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Symmetric and antisymmetric half ``(P,)`` of each region of ``(1, 3, 256, 256)``."""
        luma = detail.mean(1, keepdim=True)
        chroma = detail[:, [0, 2]] - luma
        # Bright pixels say what color skin has; dark lashes would bleed into the lids.
        trust = torch.exp(2.5 * luma.clamp(-1.5, 0.6))
        trust_small = resize(trust, CHROMA_SIZE, CHROMA_SIZE)
        packed = {}
        for name in REGIONS:
            weight = self.weights[name]
            y = resize(luma * weight, LUMA_SIZE[name], LUMA_SIZE[name])
            c = resize(chroma * weight * trust, CHROMA_SIZE, CHROMA_SIZE) / trust_small * self.chroma_weight(name)
            packed[name] = tuple(
                torch.cat(
                    [_half(part_y)[0, 0][self._luma[name]], _half(part_c)[0][:, self._chroma[name]].T.reshape(-1)]
                )
                for part_y, part_c in zip(_split_mirror(y), _split_mirror(c), strict=True)
            )
        return packed  # type: ignore[return-value]

    def unpack(self, halves: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """The inverse of ``pack``: ``(1, 3, 256, 256)``."""
        luma, chroma = torch.zeros(1, 1, SIZE, SIZE), torch.zeros(1, 2, CHROMA_SIZE, CHROMA_SIZE)
        for name, (symmetric, antisymmetric) in halves.items():
            count = int(self._luma[name].sum())
            y = _whole(_scatter(symmetric[:count], self._luma[name]), _scatter(antisymmetric[:count], self._luma[name]))
            luma = luma + (resize_up(y, SIZE) if y.shape[-1] != SIZE else y)
            s, a = (_scatter_pairs(half[count:], self._chroma[name]) for half in (symmetric, antisymmetric))
            chroma = chroma + _whole(s, a) / self.chroma_weight(name)
        wide = torch.nn.functional.interpolate(chroma, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        red, blue = luma + wide[:, :1], luma + wide[:, 1:]
        return torch.cat([red, 3 * luma - red - blue, blue], 1)


def resize_up(image: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(image, size=(size, size), mode="bicubic", align_corners=False)


def _half(image: Tensor) -> Tensor:
    return image[..., image.shape[-1] // 2 :]


def _split_mirror(image: Tensor) -> tuple[Tensor, Tensor]:
    return (image + image.flip(-1)) / 2, (image - image.flip(-1)) / 2


def _scatter(values: Tensor, mask: Tensor) -> Tensor:
    image = torch.zeros(1, 1, *mask.shape)
    image[0, 0][mask] = values
    return image


def _scatter_pairs(values: Tensor, mask: Tensor) -> Tensor:
    image = torch.zeros(1, 2, *mask.shape)
    image[0][:, mask] = values.reshape(-1, 2).T
    return image


def _whole(symmetric: Tensor, antisymmetric: Tensor) -> Tensor:
    return torch.cat([(symmetric - antisymmetric).flip(-1), symmetric + antisymmetric], -1)


def load_model(path: Path | None = None) -> AppearanceModel:
    """Open a trained model, or the built-in one.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    tensors, metadata = open_builtin(FILE) if path is None else read_safetensors(path, "appearance model", REMEDY)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path or FILE} is not an appearance model of format {FORMAT}; train one with: faceveil train appearance"
        )
    try:
        return model_of(tensors, metadata)
    except KeyError as error:
        raise WeightsError(
            f"{path or FILE} lacks {error}; it was cut off or made by another version: train or fetch it again"
        ) from None


def model_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> AppearanceModel:
    """A model from the contents of its file; KeyError where a part is missing."""

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
        EmbeddingJacobian.of(tensors),
        tensors["limits"].float(),
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
